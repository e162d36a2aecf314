"""What `storage.bus.base` promises, on each backend."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from posthouse.storage.bus.base import ALL, NAMES_AT_MOST, Bus, Change
from posthouse.storage.bus.factory import open_shared
from posthouse.storage.bus.local import LocalBus


@pytest.fixture(params=[pytest.param("local:", id="local"), pytest.param("redis_server", id="redis")])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    """As a process has it."""
    url: str = request.param
    if url == "redis_server":
        url = f"{request.getfixturevalue(url)}?namespace={secrets.token_hex(6)}"
    shared = await open_shared(url)
    yield shared.bus
    await shared.close()


async def _next(changes: AsyncIterator[Change]) -> Change:
    async with asyncio.timeout(30):
        return await anext(changes)


async def _nothing(changes: AsyncIterator[Change]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(changes)


async def test_a_change_reaches_those_who_asked(bus: Bus) -> None:
    change = Change("acc_a", 7, ("email", "thread"), ("3",))
    async with bus.subscribe(["acc_a"]) as a, bus.subscribe(["acc_b", "acc_a"]) as both, bus.subscribe(["acc_b"]) as b:
        bus.publish([change])
        assert await _next(a) == change
        assert await _next(both) == change
        await _nothing(b)
        bus.publish([Change("acc_b", 1), Change("acc_c", 1)])
        assert await _next(b) == await _next(both) == Change("acc_b", 1)
        await _nothing(a)


async def test_a_waiting_subscriber_is_woken(bus: Bus) -> None:
    async with bus.subscribe(["acc_a"]) as changes:
        waiting = asyncio.ensure_future(_next(changes))
        await asyncio.sleep(0.01)
        bus.publish([Change("acc_a", 1)])
        assert await waiting == Change("acc_a", 1)


async def test_a_slow_subscriber_gets_the_last_state(bus: Bus) -> None:
    async with bus.subscribe(["acc_a", "acc_b"]) as changes:
        for modseq in range(1, 10_001):
            bus.publish([Change("acc_a", modseq, ("email",), (str(modseq % 3),))])
        bus.publish([Change("acc_b", 5, ("mailbox",)), Change("acc_a", 9000, ("thread",))])
        first = await _next(changes)
        assert (first.account, first.modseq, first.kinds) == ("acc_a", 10_000, ("email", "thread"))
        assert set(first.mailboxes) == {"0", "1", "2"}
        assert await _next(changes) == Change("acc_b", 5, ("mailbox",))
        await _nothing(changes)


async def test_what_waits_is_bounded(bus: Bus) -> None:
    async with bus.subscribe(["acc_a"]) as changes:
        bus.publish([Change("acc_a", n, ("email",), (f"box{n}",)) for n in range(NAMES_AT_MOST + 1)])
        change = await _next(changes)
        assert (change.kinds, change.mailboxes) == (("email",), ALL)
        bus.publish([Change("acc_a", 1, (), tuple(f"box{n}" for n in range(10 * NAMES_AT_MOST)))])
        bus.publish([Change("acc_a", 2, (), ("x",))])
        assert (await _next(changes)).mailboxes == ALL


async def test_only_while_subscribed(bus: Bus) -> None:
    bus.publish([Change("acc_a", 1)])
    subscription = bus.subscribe(["acc_a"])
    bus.publish([Change("acc_a", 2)])
    async with subscription as changes:
        await _nothing(changes)
        bus.publish([Change("acc_a", 3)])
    bus.publish([Change("acc_a", 4)])
    with pytest.raises(StopAsyncIteration):
        await _next(changes)
    with pytest.raises(RuntimeError):
        async with subscription:
            pass


async def test_closing_ends_the_iteration_after_what_waits(bus: Bus) -> None:
    seen: list[Change] = []

    async def follow() -> None:
        async with bus.subscribe(["acc_a"]) as changes:
            seen.extend([change async for change in changes])

    following = [asyncio.ensure_future(follow()) for _ in range(3)]
    await asyncio.sleep(0.01)
    bus.publish([Change("acc_a", 1)])
    await bus.close()
    await bus.close()
    async with asyncio.timeout(30):
        await asyncio.gather(*following)
    assert seen == [Change("acc_a", 1)] * 3
    bus.publish([Change("acc_a", 2)])
    async with bus.subscribe(["acc_a"]) as changes:
        with pytest.raises(StopAsyncIteration):
            await _next(changes)


async def test_a_subscriber_that_is_canceled_leaves_nothing_behind(bus: Bus) -> None:
    async def follow() -> None:
        async with bus.subscribe([f"acc_{n}" for n in range(100)]) as changes:
            async for _ in changes:
                pass

    following = asyncio.ensure_future(follow())
    await asyncio.sleep(0.01)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    bus.publish([Change("acc_1", 1)])
    if isinstance(bus, LocalBus):
        assert bus.subscriptions == 0


async def test_caches_are_told_at_once_in_the_same_process(bus: Bus) -> None:
    told: list[tuple[str, str]] = []
    bus.listen("keys", lambda key: told.append(("keys", key)))
    bus.listen("keys", lambda key: told.append(("keys too", key)))
    bus.listen("domains", lambda key: told.append(("domains", key)))
    bus.invalidate("keys", "a")
    bus.invalidate("domains")
    bus.invalidate("nobody's")
    assert told == [("keys", "a"), ("keys too", "a"), ("domains", "")]
    await bus.close()
    bus.invalidate("keys", "b")
    bus.listen("keys", lambda key: told.append(("late", key)))
    assert len(told) == 3


async def test_many_subscribers_and_changes_in_order(bus: Bus) -> None:
    async def follow(account: str, last: int) -> list[int]:
        got: list[int] = []
        async with bus.subscribe([account]) as changes:
            async for change in changes:
                got.append(change.modseq)
                if change.modseq == last:
                    break
        return got

    following = [asyncio.ensure_future(follow(f"acc_{n % 10}", 50)) for n in range(200)]
    await asyncio.sleep(0.01)
    for modseq in range(1, 51):
        bus.publish([Change(f"acc_{n}", modseq) for n in range(10)])
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        for got in await asyncio.gather(*following):
            assert got == sorted(set(got))
