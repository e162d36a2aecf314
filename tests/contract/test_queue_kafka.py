"""What the queue on Kafka promises beyond the port: exactly once against the records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from posthouse.clock import SECOND
from posthouse.errors import StorageUnavailable
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.kafka.wire import LARGE, Options, partition_of
from posthouse.storage.records.base import Records, Tx
from tests.conftest import ManualClock
from tests.kafka_queues import SettledQueue, fresh_options

LANE = int(Lane.BULK)
Open = Callable[[], SettledQueue]


def job(id_: str, due_at: int, payload: str = "{}", tenant: str = "t") -> Job:
    return Job("send", LANE, tenant, due_at, id_, 0, payload)


def some(count: int, due_at: int) -> list[Job]:
    return [job(f"j{n:04}", due_at) for n in range(count)]


@pytest.fixture
def options(kafka_server: str, postgres_url: str) -> Options:
    return fresh_options(kafka_server)


@pytest.fixture
async def another(
    options: Options, postgres_records: Records, local_blobs: Blobs, clock: ManualClock
) -> AsyncIterator[Open]:
    """Queues on the same topics and records: what other processes would have."""
    opened: list[SettledQueue] = []

    def make() -> SettledQueue:
        opened.append(SettledQueue(postgres_records, local_blobs, options, clock=clock))
        return opened[-1]

    yield make
    await asyncio.gather(*(one.close() for one in opened))


async def claim(queue: SettledQueue, n: int = 100, lease: float = 60) -> list[Job]:
    """Again where the first claim only found that a partition had been taken over."""
    jobs = await queue.claim("send", LANE, n, lease=lease)
    if len(jobs) < n:
        jobs += await queue.claim("send", LANE, n - len(jobs), lease=lease)
    return jobs


async def keys_of(blobs: Blobs) -> list[str]:
    return [key async for key in blobs.keys()]  # noqa: SIM118 - no mapping


async def usurp(records: Records, clock: ManualClock) -> None:
    """Another process takes every partition over, as it may when the leases have ended."""

    async def work(tx: Tx) -> None:
        await tx.run("UPDATE queue_partition SET epoch = epoch + 1, leased_until = 0 WHERE leased_until <= $1", clock())

    await records.write(work)


async def test_partitions_are_shared_and_no_job_is_given_twice(another: Open, clock: ManualClock) -> None:
    one, two = another(), another()
    await one.put(some(400, clock()))
    seen: Counter[str] = Counter()

    async def work(queue: SettledQueue) -> None:
        for _ in range(400):
            jobs = await super(SettledQueue, queue).claim("send", LANE, 20, lease=60)
            assert await queue.done(jobs) == len(jobs)
            seen.update(job.id for job in jobs)
            if sum(seen.values()) >= 400:
                return
            await asyncio.sleep(0 if jobs else 0.05)

    await asyncio.gather(work(one), work(two))
    assert set(seen.values()) == {1}
    assert len(seen) == 400


async def test_an_owner_that_was_replaced_writes_nothing(
    another: Open, postgres_records: Records, clock: ManualClock
) -> None:
    queue = another()
    await queue.put(some(6, clock()))
    held = await claim(queue, lease=60)
    assert len(held) == 6
    await usurp(postgres_records, clock)  # too early: the leases hold
    assert await queue.done(held[:1]) == 1
    clock.advance(61)
    await usurp(postgres_records, clock)
    assert await queue.done([held[1]]) == 0
    assert await queue.later([(held[2], clock())]) == 0
    assert await queue.bury([(held[3], "why")]) == 0
    assert await queue.extend([held[4]], lease=60) == []
    assert await queue.buried() == []
    again = await claim(queue)
    assert sorted(job.id for job in again) == sorted(job.id for job in held[1:])
    assert {job.attempts for job in again} == {2}


async def test_what_is_done_follows_the_commit_alone(
    another: Open, postgres_records: Records, clock: ManualClock
) -> None:
    queue = another()
    await queue.put(some(4, clock()))
    held = await claim(queue, lease=60)

    async def fail(tx: Tx) -> None:
        assert await queue.done(held, tx=tx) == 4
        raise KeyError

    async def twice(tx: Tx) -> int:
        """As a transaction that is begun again sees it."""
        first = await queue.done(held[:2], tx=tx)
        assert await queue.done(held[:2], tx=tx) == 0
        return first

    with pytest.raises(KeyError):
        await postgres_records.write(fail)
    assert await postgres_records.write(twice) == 2
    assert await queue.done(held[:2]) == 0
    clock.advance(61)
    assert {job.id for job in await claim(queue)} == {job.id for job in held[2:]}


async def test_transactions_at_once_lose_no_mark(another: Open, postgres_records: Records, clock: ManualClock) -> None:
    queue = another()
    await queue.put(some(200, clock()))
    held = await claim(queue, 200)
    parts = [held[n::8] for n in range(8)]
    counts = await asyncio.gather(*(queue.done(part) for part in parts))
    assert sum(counts) == 200
    assert await queue.depths() == []
    clock.advance(61)
    assert await claim(queue) == []


async def test_claims_are_counted_across_crashes(another: Open, postgres_records: Records, clock: ManualClock) -> None:
    """So that a job that kills its workers is buried; its partition goes on."""
    queue = another()
    await queue.put([job("poison", clock())])
    for claims in range(1, 5):
        (poison,) = await claim(queue, lease=60)
        assert poison.attempts == claims
        await queue.put([job(f"fine-{claims}", clock())])
        (fine,) = await claim(queue, lease=60)
        assert await queue.done([fine]) == 1
        clock.advance(61)
        await usurp(postgres_records, clock)
        # Memory forgets; the rows do not.
        assert await queue.extend([poison], lease=60) == []
    (poison,) = await claim(queue)
    assert poison.attempts == 5
    assert await queue.bury([(poison, "kills")]) == 1


async def test_a_job_in_a_topic_can_be_withdrawn_unless_it_is_held(another: Open, clock: ManualClock) -> None:
    queue = another()
    due = clock()
    await queue.put(some(3, due))
    (held,) = await claim(queue, 1)
    waiting = [one for one in some(3, due) if one.id != held.id]
    assert await queue.withdraw([as_it_waits(held, due)]) == 0
    assert await queue.withdraw([waiting[0]]) == 1
    assert await queue.withdraw([waiting[0]]) == 0, "it is withdrawn already"
    assert [job.id for job in await claim(queue)] == [waiting[1].id]
    # The same id at another time is another job.
    await queue.put([job(waiting[0].id, due - 1)])
    assert [job.id for job in await claim(queue)] == [waiting[0].id]


def as_it_waits(one: Job, due_at: int) -> Job:
    return Job(one.stage, one.lane, one.tenant, due_at, one.id, 0, one.payload)


async def test_a_second_record_of_a_job_joins_the_first(another: Open, clock: ManualClock) -> None:
    """A pump that died between produce and commit leaves one."""
    queue = another()
    one = job("a", clock())
    await queue.produce([one, one])
    (first,) = await claim(queue)
    await queue.produce([one])
    assert await claim(queue) == []
    assert await queue.done([first]) == 1
    assert await queue.depths() == []
    await queue.produce([one])  # later than its end: a claim of its own, which stages bear
    (late,) = await claim(queue)
    assert late.id == "a"


async def test_a_large_payload_travels_through_the_blobs(another: Open, clock: ManualClock, local_blobs: Blobs) -> None:
    queue = another()
    text = "é" * LARGE
    await queue.put([job("large", clock(), text), job("small", clock(), "x")])
    claimed = {job.id: job for job in await claim(queue)}
    assert claimed["large"].payload == text
    assert claimed["small"].payload == "x"
    assert await queue.done(list(claimed.values())) == 2
    assert await keys_of(local_blobs)


async def test_a_payload_that_is_gone_is_set_aside(another: Open, clock: ManualClock, local_blobs: Blobs) -> None:
    queue = another()
    await queue.put([job("large", clock(), "x" * (LARGE + 1)), job("small", clock(), "x")])
    for key in await keys_of(local_blobs):
        await local_blobs.delete(key)
    assert [job.id for job in await claim(queue)] == ["small"]
    (lost,) = await queue.buried()
    assert "payload of large" in lost.reason


async def test_jobs_of_one_key_share_a_partition(clock: ManualClock) -> None:
    keyed = [Job("store", 1, "t", clock(), f"i{n}", key="account-7") for n in range(50)]
    assert len({partition_of(one, 12) for one in keyed}) == 1
    assert len({partition_of(one, 12) for one in some(500, clock())}) == 12


async def test_a_key_outlives_parking(another: Open, clock: ManualClock) -> None:
    queue = another()
    await queue.put([Job("send", LANE, "t", clock() + SECOND, "a", key="k")])
    clock.advance(1)
    (claimed,) = await claim(queue)
    assert claimed.key == "k"
    assert await queue.later([(claimed, clock())]) == 1
    (again,) = await claim(queue)
    assert again.key == "k"


async def test_what_was_handed_back_is_another_process_s_at_once(another: Open, clock: ManualClock) -> None:
    one = another()
    await one.put(some(20, clock()))
    held = await claim(one)
    assert len(held) == 20
    assert await one.later([(job, clock()) for job in held]) == 20
    await one.close()
    two = another()
    assert len(await claim(two)) == 20


async def test_a_broker_that_is_away_refuses_in_time(
    postgres_records: Records, local_blobs: Blobs, clock: ManualClock, postgres_url: str
) -> None:
    queue = SettledQueue(postgres_records, local_blobs, fresh_options("127.0.0.1:1"), clock=clock)
    async with asyncio.timeout(25):
        with pytest.raises(StorageUnavailable):
            await queue.put([job("a", clock())])
        with pytest.raises(StorageUnavailable):
            await queue.ready()
        await queue.put([job("later", clock() + SECOND)])  # records are there
        await queue.close()


async def test_an_unreadable_record_is_set_aside(another: Open, options: Options, clock: ManualClock) -> None:
    queue = another()
    await queue.put(some(1, clock()))
    await queue._producer.send([(options.topic("send", LANE), 0, "k", b"not a job")])  # type: ignore[list-item]
    assert [job.id for job in await claim(queue)] == ["j0000"]
    assert [lost.reason for lost in await queue.buried()] == ["its record cannot be read"]


async def test_records_that_are_done_are_deleted_and_a_gap_is_passed(
    another: Open, options: Options, postgres_records: Records, clock: ManualClock
) -> None:
    queue = another()
    await queue.put(some(20, clock()))
    assert await queue.done(await claim(queue)) == 20
    source = await queue.source("send")
    await source._delete_done()
    await queue.close()

    async def forget(tx: Tx) -> None:
        """As a machine that loses its power may."""
        await tx.run("UPDATE queue_partition SET low = 0, done = '[]'")

    await postgres_records.write(forget)
    other = another()
    await other.put([job(f"new-{n}", clock()) for n in range(10)])
    assert await other.done(await claim(other)) == 10
    async with asyncio.timeout(10):
        while await other.depths():
            await asyncio.sleep(0.05)


async def test_every_process_has_an_equal_part_of_every_lane(another: Open, options: Options) -> None:
    """A lane as a whole with one of them would be no faster with more."""
    sources = [await queue.source("send") for queue in (another(), another())]
    expected = dict.fromkeys(options.topics("send"), 1)

    def shares() -> list[Counter[str]]:
        return [Counter(name[0] for name, part in source.parts.items() if part.assigned) for source in sources]

    async with asyncio.timeout(30):
        while shares() != [expected, expected]:
            await asyncio.sleep(0.05)
