"""The worker and the recorder over real records on both engines: room, leases, one durable step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from posthouse.clock import SECOND, now
from posthouse.errors import StorageUnavailable
from posthouse.events import log as event_log
from posthouse.events.types import Type
from posthouse.outbound import ledger
from posthouse.outbound.ledger import Due
from posthouse.outbound.model import State
from posthouse.outbound.settle import Entry, Outcome
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx
from tests.contract.pipeline import TENANT, Away, Setting, delivered, states, submit, until, worker_of


async def test_a_lane_holds_no_more_than_its_room(records: Records) -> None:
    queue = RecordsQueue(records)
    await submit(records, queue, 300)
    held: list[Job] = []

    async def run(jobs: Sequence[Job]) -> None:
        held.extend(jobs)

    worker = worker_of(queue, run, room=120)
    task = asyncio.create_task(worker.run())
    await until(lambda: len(held) >= 120 - 30)
    await asyncio.sleep(0.2)
    assert len(held) == worker.held <= 120
    for job in list(held):
        worker.release(job)
    await until(lambda: len(held) > 150)
    worker.stop()
    await task


async def test_an_outcome_is_row_event_and_job_together(records: Records) -> None:
    queue = RecordsQueue(records)
    names = await submit(records, queue, 3)
    entries: list[asyncio.Future[bool]] = []

    async def run(jobs: Sequence[Job]) -> None:
        async def load(tx: Tx) -> list[Due]:
            return await ledger.load(tx, [job.id for job in jobs])

        for job, due in zip(jobs, await records.read(load), strict=True):
            later = Outcome(due, State.DEFERRED, now(), 1, now() + 60 * SECOND, event=Type.DEFERRED, data="{}")
            outcome = delivered(due) if due.id != names[0] else later
            again = later.next_at if outcome is later else None
            entries.append(setting.recorder.record(Entry(job, [outcome], again_at=again)))

    setting = Setting(records, queue, run)
    task = asyncio.create_task(setting.worker.run())
    await until(lambda: len(entries) == 3)
    assert await asyncio.gather(*entries) == [True] * 3
    assert sorted(await states(records)) == ["deferred", "delivered", "delivered"]
    depth = (await queue.depths())[0]
    assert (depth.ready, depth.delayed) == (0, 1)

    async def events(tx: Tx) -> list[str]:
        return [event.type for name in names for event in await event_log.of_message(tx, name)]

    assert sorted(await records.read(events)) == ["deferred", "delivered", "delivered"]
    assert setting.worker.held == 0
    setting.worker.stop()
    await task


async def test_a_lost_lease_writes_nothing_and_spares_the_others(records: Records) -> None:
    """Another worker took one of three jobs over: its outcome here must not count."""
    queue = RecordsQueue(records)
    names = await submit(records, queue, 3)
    jobs = await queue.claim("render", Lane.TRANSACTIONAL, 10, lease=60)

    async def load(tx: Tx) -> list[Due]:
        return await ledger.load(tx, names)

    dues = {due.id: due for due in await records.read(load)}
    stolen = jobs[1]
    await queue.extend([stolen], lease=600)  # what its new owner holds

    async def run(jobs: Sequence[Job]) -> None: ...

    setting = Setting(records, queue, run)
    written = await asyncio.gather(*(setting.recorder.record(Entry(job, [delivered(dues[job.id])])) for job in jobs))
    assert written == [True, False, True]
    assert await states(records) == ["delivered", "queued", "delivered"]


async def test_while_storage_is_away_outcomes_wait_and_none_is_lost(records: Records) -> None:
    queue = RecordsQueue(records)
    names = await submit(records, queue, 2)
    jobs = await queue.claim("render", Lane.TRANSACTIONAL, 10, lease=60)

    async def load(tx: Tx) -> list[Due]:
        return await ledger.load(tx, names)

    dues = {due.id: due for due in await records.read(load)}

    async def run(jobs: Sequence[Job]) -> None: ...

    away = Away(records)
    setting = Setting(away, queue, run)  # type: ignore[arg-type]
    waiting = [setting.recorder.record(Entry(job, [delivered(dues[job.id])])) for job in jobs]
    await until(lambda: away.tried >= 2)
    assert not any(future.done() for future in waiting)
    away.away = False
    assert await asyncio.gather(*waiting) == [True, True]
    assert await states(records) == ["delivered", "delivered"]


async def test_leases_are_renewed_while_work_goes_on(records: Records) -> None:
    queue = RecordsQueue(records)
    await submit(records, queue, 1)
    held: list[Job] = []

    async def run(jobs: Sequence[Job]) -> None:
        held.extend(jobs)

    worker = worker_of(queue, run, lease=0.6)
    task = asyncio.create_task(worker.run())
    await until(lambda: bool(held))
    await asyncio.sleep(1.2)
    assert len(held) == 1, "claimed again: the lease was not renewed"
    assert worker.current(held[0]).due_at > now()
    async with worker.leases:  # as the recorder does: no renewal between the look and the verb
        assert await queue.done([worker.current(held[0])]) == 1
    worker.release(held[0])
    worker.stop()
    await task


async def test_a_batch_that_fails_comes_back(records: Records) -> None:
    queue = RecordsQueue(records)
    await submit(records, queue, 1)
    calls = 0

    async def run(jobs: Sequence[Job]) -> None:
        nonlocal calls
        calls += 1
        raise StorageUnavailable(detail="templates cannot be read")

    worker = worker_of(queue, run)
    task = asyncio.create_task(worker.run())
    await until(lambda: calls == 1 and worker.held == 0)
    depth = (await queue.depths())[0]
    assert (depth.ready + depth.delayed, depth.buried) == (1, 0)
    worker.stop()
    await task


async def test_a_job_that_is_claimed_for_ever_is_buried_with_the_reason(records: Records) -> None:
    queue = RecordsQueue(records)
    at = now()
    await queue.put([Job("render", 1, TENANT, at, "msg_poison", attempts=20)])
    ran: list[Job] = []

    async def run(jobs: Sequence[Job]) -> None:
        ran.extend(jobs)

    worker = worker_of(queue, run)
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while not (buried := await queue.buried()):
            await asyncio.sleep(0.01)
    assert buried[0].id == "msg_poison"
    assert "21 times" in buried[0].reason
    await until(lambda: worker.held == 0)
    assert not ran
    worker.stop()
    await task
