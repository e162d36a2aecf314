"""What `storage.bus.limits` and `storage.bus.cache` promise, on each backend; and what several
processes do with one Redis, and without it."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posthouse.storage.bus.cache import MOST_OCTETS, Cache, Item
from posthouse.storage.bus.factory import Shared, open_shared
from posthouse.storage.bus.limits import Ask, Hold, SharedLimits
from posthouse.storage.bus.redis_limits import RedisLimits
from tests.contract.redis_house import OwnRedis, opened, until

BACKENDS = [pytest.param("local:", id="local"), pytest.param("redis_server", id="redis")]


@pytest.fixture(params=BACKENDS)
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Shared]:
    url: str = request.param
    if url == "redis_server":
        url = f"{request.getfixturevalue(url)}?namespace={secrets.token_hex(6)}"
    made = await open_shared(url, groups=["tenant", "site"])
    yield made
    await made.close()


@pytest.fixture
def limits(shared: Shared) -> SharedLimits:
    return shared.limits


@pytest.fixture
def cache(shared: Shared) -> Cache:
    return shared.cache


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as entered:
        yield entered


async def _process(stack: AsyncExitStack, url: str, namespace: str = "t") -> RedisLimits:
    link = await opened(url, namespace)
    stack.push_async_callback(link.close)
    made = RedisLimits(link, ["tenant", "site"], alive_every=0.1)
    await made.open()
    stack.push_async_callback(made.close)
    return made


def _ask(least: int, most: int = 0, *, rate: float = 1.0, burst: int = 10, key: str = "tenant:a") -> Ask:
    return Ask(key, least, max(least, most), rate, burst)


async def test_a_full_bucket_passes_its_burst_then_tells_how_long_to_wait(limits: SharedLimits) -> None:
    (grant,) = await limits.take([_ask(10)])
    assert (grant.taken, grant.wait, round(grant.level)) == (10, 0.0, 0)
    (grant,) = await limits.take([_ask(4)])
    assert grant.taken == 0
    assert 3 < grant.wait <= 4


async def test_more_is_taken_where_there_is_more(limits: SharedLimits) -> None:
    assert [grant.taken for grant in await limits.take([_ask(1, 6), _ask(1, 6), _ask(1, 6)])] == [6, 4, 0]


async def test_more_than_the_burst_passes_a_full_bucket_and_leaves_a_debt(limits: SharedLimits) -> None:
    first, second = await limits.take([_ask(25), _ask(1)])
    assert (first.taken, round(first.level)) == (25, -15)
    assert second.taken == 0
    assert 15 < second.wait <= 16


async def test_buckets_are_apart_and_fill_with_time(limits: SharedLimits) -> None:
    one, other = await limits.take([_ask(10, rate=100, key="tenant:a"), _ask(10, rate=100, key="tenant:b")])
    assert one.taken == other.taken == 10
    await asyncio.sleep(0.06)
    (grant,) = await limits.take([_ask(1, 10, rate=100)])
    assert 5 <= grant.taken <= 10


async def test_what_is_refused_takes_nothing(limits: SharedLimits) -> None:
    await limits.take([_ask(8)])
    refused, granted = await limits.take([_ask(5), _ask(2)])
    assert (refused.taken, granted.taken) == (0, 2)


async def test_slots_up_to_the_most(limits: SharedLimits) -> None:
    holds = [Hold("site:a", 5, 0, 20), Hold("site:b", 50, 0, 20), Hold("site:c", 0, 0, 20)]
    assert await limits.hold(holds, 10) == [5, 20, 0]
    assert await limits.hold([Hold("site:b", 0, 0, 20)], 10) == [0]
    assert await limits.hold([Hold("site:b", 7, 0, 20)], 10) == [7]


async def test_closing_again_is_fine(limits: SharedLimits) -> None:
    await limits.hold([Hold("site:a", 5, 0, 20)], 10)
    await limits.close()
    await limits.close()


async def test_the_cache_keeps_until_it_expires(cache: Cache) -> None:
    assert await cache.get_many(["a", "b"]) == [None, None]
    cache.set_many([Item("a", b"1", 60), Item("b", b"2", 0.05), Item("c", b"", 60), Item("d", b"x", 0)])
    cache.set_many([Item("e", b"x" * (MOST_OCTETS + 1), 60)])
    async with asyncio.timeout(30):
        while None in (await cache.get_many(["a", "c"])):
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.06)
    a, b, c, d, e = await cache.get_many(["a", "b", "c", "d", "e"])
    assert a is not None
    assert c is not None
    assert (a.value, c.value, b, d, e) == (b"1", b"", None, None, None)
    assert 50 < a.seconds <= 60
    assert await cache.get_many([]) == []


async def test_many_at_the_same_time_get_their_own_values(cache: Cache) -> None:
    cache.set_many([Item(str(n), str(n).encode(), 60) for n in range(1000)])
    await asyncio.sleep(0.2)
    found = await asyncio.gather(*(cache.get_many([str(n), str(n + 1)]) for n in range(900)))
    for n, (one, other) in enumerate(found):
        assert one is not None
        assert other is not None
        assert (one.value, other.value) == (str(n).encode(), str(n + 1).encode())


async def test_the_cache_is_empty_while_redis_is_away_and_works_again(own: OwnRedis) -> None:
    shared = await open_shared(own.url, groups=["site"])
    try:
        shared.cache.set_many([Item("a", b"1", 60)])
        await asyncio.to_thread(own.stop)
        assert await shared.cache.get_many(["a"]) == [None]
        shared.cache.set_many([Item("a", b"1", 60)])
        await asyncio.to_thread(own.start)
        await until(shared.connected)
        own.wipe()
        shared.cache.set_many([Item("b", b"2", 60)])
        await asyncio.sleep(0.1)
        a, b = await shared.cache.get_many(["a", "b"])
        assert a is None
        assert b is not None
    finally:
        await shared.close()


# Several processes


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(0, 20), st.floats(0, 0.004)),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 50),
    st.sampled_from([1.0, 50.0, 1000.0]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_together_they_never_take_more_than_the_limit(
    redis_server: str, steps: list[tuple[int, int, int, float]], burst: int, rate: float
) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            namespace = secrets.token_hex(6)
            processes = [await _process(stack, redis_server, namespace) for _ in range(3)]
            started, taken, largest = time.monotonic(), 0, 0
            for who, least, more, pause in steps:
                ask = _ask(least, least + more, rate=rate, burst=burst)
                others = [_ask(1, rate=rate, burst=burst)]
                both = await asyncio.gather(processes[who].take([ask]), processes[who - 1].take(others))
                taken += sum(grant.taken for grants in both for grant in grants)
                largest = max(largest, least)
                bound = max(burst, largest) + rate * (time.monotonic() - started)
                assert taken <= bound + 1
                await asyncio.sleep(pause)

    asyncio.run(run())


async def test_slots_of_several_processes(stack: AsyncExitStack, redis_server: str) -> None:
    name = secrets.token_hex(6)
    one, two = await _process(stack, redis_server, name), await _process(stack, redis_server, name)
    assert await one.hold([Hold("site:a", 20, 0, 20)], 10) in ([20], [10])  # slots are counted since now
    assert await one.hold([Hold("site:a", 4, 0, 20)], 10) == [4]
    assert await two.hold([Hold("site:a", 6, 0, 20)], 10) == [6]
    assert await one.hold([Hold("site:a", 0, 0, 20)], 10) == [0]
    assert await two.hold([Hold("site:a", 0, 0, 20)], 10) == [0]


async def test_who_has_more_than_its_part_is_asked_to_come_down(stack: AsyncExitStack, redis_server: str) -> None:
    name = secrets.token_hex(6)
    one = await _process(stack, redis_server, name)
    await one._link.call(("SET", f"{name}:slots-since", 0))  # as when everything runs for a while
    assert await one.hold([Hold("site:a", 20, 0, 20)], 10) == [20]
    two = await _process(stack, redis_server, name)
    assert await two.hold([Hold("site:a", 20, 0, 20)], 10) == [0], "nothing is free yet"
    assert await one.hold([Hold("site:a", 20, 20, 20)], 10) == [10]
    assert await two.hold([Hold("site:a", 20, 0, 20)], 10) == [0], "still in use"
    assert await one.hold([Hold("site:a", 20, 12, 20)], 10) == [10]
    assert await two.hold([Hold("site:a", 20, 0, 20)], 10) == [8]
    assert await one.hold([Hold("site:a", 20, 10, 20)], 10) == [10]
    assert await two.hold([Hold("site:a", 20, 8, 20)], 10) == [10]
    assert await one.hold([Hold("site:a", 3, 3, 20)], 10) == [3]
    assert await two.hold([Hold("site:a", 20, 10, 20)], 10) == [17]


async def test_slots_of_a_process_that_died_come_free(stack: AsyncExitStack, redis_server: str) -> None:
    name = secrets.token_hex(6)
    one, two = await _process(stack, redis_server, name), await _process(stack, redis_server, name)
    await one.hold([Hold("site:a", 8, 0, 10)], 0.2)
    await two.hold([Hold("site:a", 10, 0, 10)], 0.2)
    for _ in range(8):
        await asyncio.sleep(0.05)
        (granted,) = await two.hold([Hold("site:a", 10, 5, 10)], 0.2)
    assert granted == 10


async def test_more_processes_than_slots_take_turns(
    stack: AsyncExitStack, redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posthouse.storage.bus import redis_limits
    from posthouse.storage.bus.redis_link import Script

    quick = Script(redis_limits.HOLD.text.replace("now / 5000", "now / 100"))
    monkeypatch.setattr(redis_limits, "HOLD", quick)
    name = secrets.token_hex(6)
    processes = [await _process(stack, redis_server, name) for _ in range(5)]
    had = [0] * 5
    using = [0] * 5
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and min(had) == 0:
        for n, process in enumerate(processes):
            (using[n],) = await process.hold([Hold("site:a", 4, 0, 3)], 10)
            had[n] += using[n]
            assert sum(using) <= 3 + 2  # the numbers of those who have not asked again are older
        await asyncio.sleep(0.02)
    assert min(had) > 0


@pytest.mark.parametrize("seed", range(6))
async def test_together_they_never_use_more_than_the_slots(stack: AsyncExitStack, own: OwnRedis, seed: int) -> None:
    """Honest processes that ask for what they like, with a wipe in the middle."""
    rng = random.Random(seed)
    processes = [await _process(stack, own.url) for _ in range(3)]
    await until(lambda: all(process.sharers("site:a") == 3 for process in processes))
    most, granted, used = 9, [0] * 3, [0] * 3
    for step in range(60):
        if step == 30:
            own.wipe()
        n = rng.randrange(3)
        (granted[n],) = await processes[n].hold([Hold("site:a", rng.randrange(12), used[n], most)], 30)
        used[n] = min(used[n], granted[n]) if rng.random() < 0.5 else granted[n]
        if used[n] < granted[n]:
            (granted[n],) = await processes[n].hold([Hold("site:a", used[n], used[n], most)], 30)
        assert sum(used) <= most, (step, used)


async def test_without_redis_each_has_its_part_and_not_more(stack: AsyncExitStack, own: OwnRedis) -> None:
    processes = [await _process(stack, own.url) for _ in range(4)]
    await until(lambda: all(process.sharers("site:a") == 4 for process in processes))
    started = time.monotonic()
    taken = sum([(await process.take([_ask(2, rate=20, burst=40)]))[0].taken for process in processes])
    await asyncio.to_thread(own.stop)
    for _ in range(20):
        for process in processes:
            taken += (await process.take([_ask(1, 3, rate=20, burst=40)]))[0].taken
    assert 25 <= taken <= 40 + 20 * (time.monotonic() - started) + 4
    assert [await process.hold([Hold("site:a", 9, 0, 20)], 10) for process in processes] == [[5]] * 4
    assert await processes[0].hold([Hold("site:b", 9, 0, 2)], 10) == [1], "never none"
    assert (await processes[0].take([_ask(1, rate=0.5, burst=1, key="tenant:few")]))[0].taken == 1
    assert (await processes[0].take([_ask(1, rate=0.5, burst=1, key="tenant:few")]))[0].wait > 1

    await asyncio.to_thread(own.start)
    await until(lambda: all(process._link.there and not process._owed for process in processes))
    for process in processes:
        for _ in range(10):
            taken += (await process.take([_ask(1, 3, rate=20, burst=40)]))[0].taken
    assert taken <= 40 + 20 * (time.monotonic() - started) + 4, "what was given out meanwhile is taken off"


async def test_a_wiped_redis_gives_no_new_burst_to_a_used_bucket(stack: AsyncExitStack, own: OwnRedis) -> None:
    one, two = await _process(stack, own.url), await _process(stack, own.url)
    assert (await one.take([_ask(10)]))[0].taken == 10
    await two.take([_ask(1)])
    own.wipe()
    assert (await two.take([_ask(2)]))[0].taken == 0
    assert (await one.take([_ask(2)]))[0].taken == 0


async def test_the_number_of_processes_follows_those_that_live(stack: AsyncExitStack, own: OwnRedis) -> None:
    one = await _process(stack, own.url)
    async with AsyncExitStack() as inner:
        await _process(inner, own.url)
        await until(lambda: one.sharers("site:a") == 2)
    await until(lambda: one.sharers("site:a") == 1)
    assert one.sharers("unknown:a") == 1
