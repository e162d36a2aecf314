"""One holder at a time; who lost the lease writes nothing, whether it knows or not."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from posthouse.errors import StorageUnavailable, Unavailable
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.records.lease import Fenced, Lease, LeaseLost, Singleton
from tests.contract import processes


async def note(tx: Tx) -> None:
    await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ('noted', 1, 1)")


async def noted(records: Records) -> int:
    return len(await records.read(lambda tx: tx.rows("SELECT 1 FROM usage WHERE tenant_id = 'noted'")))


async def expire(records: Records) -> None:
    """As if its time had passed."""
    assert await records.write(lambda tx: tx.run("UPDATE lease SET until = 1")) == 1


async def test_one_holds_it_until_it_is_released(records: Records) -> None:
    one, other = Lease(records, "x"), Lease(records, "x")
    assert await one.take()
    assert not await other.take()
    assert await one.take(), "renewed"
    assert (one.fence, one.sure, other.sure) == (1, True, False)
    await one.release()
    assert await other.take()
    assert other.fence == 2
    assert not await one.take()
    assert await Lease(records, "another name").take()


async def test_it_runs_out_by_the_clock_of_the_database(records: Records) -> None:
    one, other = Lease(records, "x", ttl=0.3), Lease(records, "x", ttl=0.3)
    assert await one.take()
    assert not await other.take()
    await asyncio.sleep(0.4)
    assert not one.sure
    assert await other.take()


async def test_the_fence_stays_for_who_takes_it_again(records: Records) -> None:
    one = Lease(records, "x")
    assert await one.take()
    await expire(records)
    assert await one.take()
    assert one.fence == 1


async def test_who_holds_it_writes(records: Records) -> None:
    lease = Lease(records, "x")
    fenced = Fenced(records, lease)
    with pytest.raises(LeaseLost):
        await fenced.write(note)
    await lease.take()
    await fenced.write(note)
    assert await noted(records) == 1


async def test_who_lost_it_writes_nothing(records: Records) -> None:
    lease, other = Lease(records, "x"), Lease(records, "x")
    await lease.take()
    await expire(records)
    await other.take()
    assert lease.sure, "it does not know"
    with pytest.raises(LeaseLost):
        await Fenced(records, lease).write(note)
    assert await noted(records) == 0
    assert not await lease.take()
    assert not lease.sure


async def test_of_many_that_ask_at_once_one_gets_it(records: Records) -> None:
    leases = [Lease(records, "x") for _ in range(8)]
    assert sorted(await asyncio.gather(*(lease.take() for lease in leases))) == [False] * 7 + [True]


async def test_the_work_goes_to_another_when_its_process_ends(records: Records) -> None:
    ran: list[str] = []

    def work(name: str) -> Singleton:
        async def run() -> None:
            ran.append(name)
            await asyncio.Event().wait()

        return Singleton(Lease(records, "x", ttl=0.6), run)

    one, other = work("one"), work("other")
    async with asyncio.timeout(10):
        first = asyncio.create_task(one.run())
        while not ran:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(other.run())
        await asyncio.sleep(0.8)
        assert ran == ["one"]
        one.stop()
        await first
        while ran != ["one", "other"]:
            await asyncio.sleep(0.01)
        other.stop()
        await second


async def test_the_work_stops_when_the_lease_is_lost(records: Records) -> None:
    ended = asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    mine = Singleton(Lease(records, "x", ttl=0.6), run)
    task = asyncio.create_task(mine.run())
    async with asyncio.timeout(10):
        while await records.write(lambda tx: tx.run("UPDATE lease SET holder = 'another', fence = 9")) == 0:
            await asyncio.sleep(0.05)
        await ended.wait()
        mine.stop()
        await task


async def test_what_the_work_raises_is_raised(records: Records) -> None:
    async def run() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        await asyncio.wait_for(Singleton(Lease(records, "x"), run).run(), 10)


async def test_storage_that_is_away_is_waited_for(records: Records) -> None:
    class Away:
        capabilities = records.capabilities
        away = True

        async def write(self, work: object, *, durable: bool = True) -> object:
            if self.away:
                raise StorageUnavailable
            return await records.write(work, durable=durable)  # type: ignore[arg-type]

    ran = asyncio.Event()

    async def run() -> None:
        ran.set()
        await asyncio.Event().wait()

    store = Away()
    mine = Singleton(Lease(store, "x", ttl=0.3), run)  # type: ignore[arg-type]
    task = asyncio.create_task(mine.run())
    await asyncio.sleep(0.3)
    assert not ran.is_set()
    store.away = False
    await asyncio.wait_for(ran.wait(), 10)
    mine.stop()
    await asyncio.wait_for(task, 10)


@pytest.mark.parametrize("records_url", ["postgres_url"], indirect=True)
async def test_a_process_that_was_stopped_for_longer_than_its_lease_writes_nothing(
    records: Records, records_url: str
) -> None:
    process = processes.start("hold", records_url)
    try:
        assert process.stdout is not None
        for _ in range(20):
            await asyncio.to_thread(process.stdout.readline)
        process.send_signal(signal.SIGSTOP)
        mine = Lease(records, "test", ttl=30)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if await mine.take():
                    break
            except Unavailable:  # it stopped in a transaction, which the server ends
                pass
            await asyncio.sleep(0.05)
        before = await held(records)
        process.send_signal(signal.SIGCONT)
        while (await asyncio.to_thread(process.stdout.readline)).strip() != "lost":
            pass
        await asyncio.sleep(0.3)
        assert await held(records) == before
        assert {fence for (_, fence) in before} == {1}
        assert mine.fence == 2
    finally:
        process.kill()
        process.communicate()


async def held(records: Records) -> list[Row]:
    return await records.read(lambda tx: tx.rows("SELECT day, messages FROM usage WHERE tenant_id = 'held'"))
