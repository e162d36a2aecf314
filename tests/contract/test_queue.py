"""What `storage.queue.base` promises, on each engine."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from posthouse.clock import SECOND, Clock
from posthouse.storage.queue.base import Job, Lane, Queue
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records
from tests.conftest import ManualClock

BULK = int(Lane.BULK)
RECORDS = [pytest.param("sqlite_url", id="sqlite"), pytest.param("postgres_url", id="postgresql")]
on_records = pytest.mark.parametrize("backend", RECORDS, indirect=True)


@pytest.fixture(params=[*RECORDS, pytest.param("kafka_queue", id="kafka")])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def sqlite_records(sqlite_url: str) -> AsyncIterator[Records]:
    opened = await open_records(sqlite_url)
    yield opened
    await opened.close()


@pytest.fixture
def records(backend: str, request: pytest.FixtureRequest) -> Records:
    return request.getfixturevalue("sqlite_records" if backend == "sqlite_url" else "postgres_records")


@pytest.fixture
def queue(backend: str, records: Records, clock: ManualClock, request: pytest.FixtureRequest) -> Queue:
    if backend == "kafka_queue":
        return request.getfixturevalue(backend)
    return RecordsQueue(records, clock=clock)


@pytest.fixture
def sees_all(backend: str) -> bool:
    """Whether a claim sees every job that waits, so that it can give the oldest first; a topic
    gives them partition by partition, as they came."""
    return backend != "kafka_queue"


def job(id_: str, due_at: int, *, tenant: str = "t", stage: str = "send", lane: int = BULK) -> Job:
    return Job(stage, lane, tenant, due_at, id_, 0, f'{{"id":"{id_}"}}')


def many(count: int, due_at: int, *, tenant: str = "t") -> list[Job]:
    return [job(f"{tenant}-{i:06}", due_at + i, tenant=tenant) for i in range(count)]


async def claim(queue: Queue, n: int = 100, *, lease: float = 60, lane: int = BULK) -> list[Job]:
    return await queue.claim("send", lane, n, lease=lease)


async def test_what_is_put_is_claimed_once(queue: Queue, clock: Clock) -> None:
    await queue.put([job("a", clock())])
    (claimed,) = await claim(queue)
    assert claimed == Job("send", BULK, "t", clock() + 60 * SECOND, "a", 1, '{"id":"a"}')
    assert await claim(queue) == []


async def test_an_empty_queue_gives_nothing(queue: Queue) -> None:
    assert await claim(queue) == []
    assert await queue.claim("send", BULK, 0, lease=1) == []
    assert await queue.extend([], lease=1) == []
    assert await queue.done([]) == await queue.later([]) == await queue.bury([]) == 0
    assert await queue.put_back([]) == 0
    assert await queue.depths() == []


async def test_stages_and_lanes_are_apart(queue: Queue, clock: Clock) -> None:
    await queue.put([job("a", clock(), stage="render"), job("b", clock(), lane=Lane.CRITICAL), job("c", clock())])
    assert [j.id for j in await claim(queue, lane=Lane.CRITICAL)] == ["b"]
    assert [j.id for j in await claim(queue, lane=Lane.TRANSACTIONAL)] == []
    assert [j.id for j in await claim(queue)] == ["c"]
    assert [j.id for j in await queue.claim("render", BULK, 9, lease=1)] == ["a"]


async def test_a_job_waits_for_its_time(queue: Queue, clock: ManualClock) -> None:
    await queue.put([job("a", clock() + 10 * SECOND)])
    assert await claim(queue) == []
    clock.advance(9.999999)
    assert await claim(queue) == []
    clock.advance(0.000001)
    assert [j.id for j in await claim(queue)] == ["a"]


@on_records
async def test_order_is_by_due_time(queue: Queue, clock: ManualClock) -> None:
    start = clock()
    shuffled = [(7 * i) % 100 for i in range(100)]
    await queue.put([job(f"{99 - due:02}", start + due) for due in shuffled])
    clock.advance(1)
    seen = [j.id for _ in range(4) for j in await claim(queue, 25)]
    assert seen == [f"{99 - due:02}" for due in range(100)]


async def test_the_same_put_again_changes_nothing(queue: Queue, clock: Clock) -> None:
    for _ in range(2):
        await queue.put([job("a", clock())])
    assert len(await claim(queue)) == 1


async def test_put_joins_a_transaction(records: Records, queue: Queue, clock: Clock) -> None:
    async def fail(tx: Tx) -> None:
        await queue.put([job("lost", clock())], tx=tx)
        raise KeyError

    async def keep(tx: Tx) -> None:
        await queue.put([job("kept", clock())], tx=tx)

    with pytest.raises(KeyError):
        await records.write(fail)
    await records.write(keep)
    claimed = await claim(queue)
    assert [j.id for j in claimed] == ["kept"]

    async def finish_and_fail(tx: Tx) -> None:
        assert await queue.done(claimed, tx=tx) == 1
        raise KeyError

    with pytest.raises(KeyError):
        await records.write(finish_and_fail)
    assert await queue.done(claimed) == 1


async def test_one_job_at_two_times_that_have_both_come(queue: Queue, clock: ManualClock) -> None:
    await queue.put([job("a", clock() - 2), job("a", clock() - 1), job("b", clock())])
    first = await claim(queue)
    assert sorted(j.id for j in first) == ["a", "b"]
    assert await queue.done(first) == 2
    clock.advance(1)
    assert {j.id for j in await claim(queue)} <= {"a"}


async def test_done_forgets(queue: Queue, clock: ManualClock) -> None:
    await queue.put(many(30, clock() - 100))
    claimed = await claim(queue)
    assert await queue.done(claimed[:20]) == 20
    assert await queue.done(claimed[:20]) == 0
    clock.advance(61)
    assert {j.id for j in await claim(queue)} == {j.id for j in claimed[20:]}


async def test_later_comes_later(queue: Queue, clock: ManualClock) -> None:
    await queue.put([job("a", clock())])
    (first,) = await claim(queue)
    assert await queue.later([(first, clock() + 5 * SECOND)]) == 1
    assert await claim(queue) == []
    clock.advance(5)
    (second,) = await claim(queue)
    assert (second.id, second.attempts) == ("a", 1), "putting it back is an outcome: claims count anew"


async def test_what_nobody_holds_can_be_withdrawn(queue: Queue, clock: ManualClock) -> None:
    waiting, held = job("a", clock() + 60 * SECOND), job("b", clock())
    await queue.put([waiting, held])
    await claim(queue)
    assert await queue.withdraw([waiting, held]) == 1
    clock.advance(120)
    assert [j.id for j in await claim(queue)] == ["b"]


async def test_an_expired_lease_comes_back_and_a_zombie_changes_nothing(queue: Queue, clock: ManualClock) -> None:
    await queue.put([job("a", clock())])
    (zombie,) = await claim(queue, lease=60)
    clock.advance(59)
    assert await claim(queue) == []
    clock.advance(1)
    (living,) = await claim(queue, lease=60)
    assert living.attempts == 2
    assert await queue.done([zombie]) == 0
    assert await queue.later([(zombie, clock())]) == 0
    assert await queue.bury([(zombie, "dead")]) == 0
    assert await queue.extend([zombie], lease=60) == []
    assert await queue.buried() == []
    assert await queue.done([living]) == 1


async def test_extend_keeps_what_is_held(queue: Queue, clock: ManualClock) -> None:
    await queue.put(many(40, clock() - 100))
    claimed = await claim(queue, lease=60)
    await queue.done(claimed[:10])
    clock.advance(50)
    kept = await queue.extend(claimed, lease=60)
    assert sorted(j.id for j in kept) == sorted(j.id for j in claimed[10:])
    assert {j.due_at for j in kept} == {clock() + 60 * SECOND}
    assert {j.payload for j in kept} == {j.payload for j in claimed[10:]}
    clock.advance(50)
    assert await claim(queue) == []
    assert await queue.done(claimed) == 0
    assert await queue.done(kept) == 30


async def test_buried_jobs_are_listed_and_put_back(queue: Queue, clock: ManualClock) -> None:
    await queue.put(many(3, clock() - 10))
    claimed = await claim(queue)
    assert await queue.bury([(j, f"reason {j.id}") for j in claimed]) == 3
    buried = await queue.buried()
    assert {(b.id, b.reason, b.attempts, b.buried_at, b.payload) for b in buried} == {
        (j.id, f"reason {j.id}", 1, clock(), j.payload) for j in claimed
    }
    assert len(await queue.buried(limit=2)) == 2
    clock.advance(1000)
    assert await claim(queue) == []
    assert await queue.put_back([claimed[1].id, "nobody"]) == 1
    (back,) = await claim(queue)
    assert (back.id, back.attempts, back.payload) == (claimed[1].id, 1, claimed[1].payload)
    assert await queue.put_back([]) == 2
    assert {j.id for j in await claim(queue)} == {claimed[0].id, claimed[2].id}
    assert await queue.buried() == []


async def test_thousands_are_put_back(queue: Queue, clock: Clock) -> None:
    await queue.put(many(2500, clock() - 5000))
    await queue.bury([(j, "all") for j in await claim(queue, 2500)])
    both = await asyncio.gather(queue.put_back([]), queue.put_back([]))
    assert sum(both) == 2500
    assert len(await claim(queue, 3000)) == 2500


async def test_depths_count(queue: Queue, clock: ManualClock) -> None:
    now = clock()
    await queue.put([*many(5, now - 10), job("late", now + SECOND), job("r", now + 3, stage="render", lane=0)])
    claimed = await claim(queue, 2)
    await queue.bury([(claimed[0], "no")])
    render, send = await queue.depths()
    assert (send.stage, send.lane, send.ready, send.delayed, send.buried) == ("send", BULK, 4, 1, 1)
    assert send.oldest_due_at is not None
    assert send.oldest_due_at in range(now - 10, now - 5)  # of what is held, some engines know the lease instead
    assert (render.stage, render.lane, render.ready, render.delayed, render.buried) == ("render", 0, 0, 1, 0)
    await queue.bury([(j, "x") for j in await queue.claim("render", 0, 1, lease=1)])
    clock.advance(1)
    await queue.bury([(j, "x") for j in await queue.claim("render", 0, 1, lease=1)])
    (render, _) = await queue.depths()
    assert (render.ready, render.delayed, render.buried, render.oldest_due_at) == (0, 0, 1, None)


async def test_free_leases_ends_them_all(queue: Queue, clock: ManualClock) -> None:
    await queue.put([*many(20, clock() - 100), job("late", clock() + SECOND)])
    claimed = await claim(queue, 15)
    assert await queue.free_leases() == 15
    assert await queue.done(claimed) == 0
    assert len(await claim(queue)) == 20


@on_records
async def test_a_large_tenant_does_not_hold_up_a_small_one(queue: Queue, clock: Clock) -> None:
    for start in range(0, 50_000, 10_000):
        await queue.put(many(10_000, clock() - 10**9 + start, tenant=f"big{start}"[:3]))
    await queue.put(many(10, clock() - 100, tenant="small"))
    first = await claim(queue, 100)
    assert Counter(j.tenant for j in first) == {"big": 90, "small": 10}


async def test_shares_are_equal_and_what_is_left_goes_to_those_who_have_more(
    queue: Queue, clock: Clock, sees_all: bool
) -> None:
    sizes = {"a": 300, "b": 5, "c": 40, "d": 300, "e": 1}
    for tenant, size in sizes.items():
        await queue.put(many(size, clock() - 1000, tenant=tenant))
    got = await claim(queue, 200)
    shares = Counter(j.tenant for j in got)
    assert (shares["b"], shares["c"], shares["e"], shares["a"], shares["d"]) == (5, 40, 1, 77, 77)
    for tenant in sizes:
        own = [j.id for j in got if j.tenant == tenant]
        assert own == sorted(own) or not sees_all
    assert [j.tenant for j in got[:5]] == list(dict.fromkeys(j.tenant for j in got))  # in turn


async def test_small_claims_go_round_all_tenants(queue: Queue, clock: Clock, sees_all: bool) -> None:
    tenants = [f"t{i:03}" for i in range(150)]
    await queue.put([j for tenant in tenants for j in many(3, clock() - 100, tenant=tenant)])
    seen = [j.tenant for _ in range(75) for j in await claim(queue, 2)]
    assert (seen if sees_all else sorted(seen)) == tenants
    assert {j.tenant for _ in range(3) for j in await claim(queue, 64)} == set(tenants)


async def test_tenants_whose_jobs_wait_are_passed_over(queue: Queue, clock: Clock) -> None:
    await queue.put([job(f"{i:04}", clock() + SECOND, tenant=f"t{i:04}") for i in range(1500)])
    await queue.put([job("due", clock(), tenant="t0700x"), job("due", clock(), tenant="t1499x")])
    got = [j.tenant for _ in range(2) for j in await claim(queue, 1)]
    assert sorted(got) == ["t0700x", "t1499x"]
    assert await claim(queue, 1) == []


@on_records
async def test_workers_never_hold_one_job_together(records: Records, clock: Clock) -> None:
    queues = [RecordsQueue(records, clock=clock) for _ in range(4)]
    await queues[0].put([j for tenant in "abc" for j in many(700, clock() - 1000, tenant=tenant)])
    held: list[str] = []

    async def work(queue: Queue) -> None:
        idle = 0
        while idle < 3:  # on PostgreSQL a claim passes over what another is just taking
            jobs = await claim(queue, 37)
            idle = 0 if jobs else idle + 1
            held.extend(j.id for j in jobs)
            assert await queue.done(jobs) == len(jobs)

    await asyncio.gather(*(work(queue) for queue in queues for _ in range(2)))
    assert len(held) == len(set(held)) == 2100


@on_records
async def test_a_clock_that_was_set_back_leaves_nothing_waiting_for_it(queue: Queue, clock: ManualClock) -> None:
    """Jobs and leases of before are due; what another stage delays on purpose stays so."""
    before = clock.at
    await queue.put([Job("store", Lane.TRANSACTIONAL, "ten_a", before, f"old-{n}") for n in range(3)])
    await queue.put([Job("send", Lane.TRANSACTIONAL, "ten_a", before, "later")])
    assert len(await queue.claim("store", Lane.TRANSACTIONAL, 1, lease=60)) == 1
    clock.at = before - 24 * 3600 * SECOND
    await queue.put([Job("store", Lane.TRANSACTIONAL, "ten_a", clock.at + 5 * SECOND, "soon")])
    assert await queue.undelay(["store"], 3600) == 3
    assert len(await queue.claim("store", Lane.TRANSACTIONAL, 10, lease=60)) == 3
    assert await queue.claim("send", Lane.TRANSACTIONAL, 10, lease=60) == []
    assert await queue.undelay(["store"], 3600) == 0
