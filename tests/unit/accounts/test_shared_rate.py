from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse import errors
from posthouse.accounts.model import Limits
from posthouse.accounts.shared_rate import SharedRateLimiter
from posthouse.clock import SECOND
from posthouse.storage.bus.limits import Ask, Grant, Hold, SharedLimits
from posthouse.storage.bus.local_limits import LocalLimits


class Time:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


class Buckets(SharedLimits):
    """One set of buckets for all, with a way to and back."""

    def __init__(self, time: Time) -> None:
        self.asked: list[int] = []
        began = time.now
        self._inner = LocalLimits(lambda: (time.now - began) / SECOND)
        self.fault: Exception | None = None

    async def take(self, asks: Sequence[Ask]) -> list[Grant]:
        self.asked.append(len(asks))
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return await self._inner.take(asks)

    async def hold(self, holds: Sequence[Hold], ttl: float) -> list[int]:
        raise AssertionError("a rate holds nothing")

    async def close(self) -> None:
        pass


async def test_most_requests_need_no_round_trip() -> None:
    time = Time()
    buckets = Buckets(time)
    limiter = SharedRateLimiter(buckets, time)
    limits = Limits(rate_per_second=2000, burst=10_000)
    for _ in range(500):
        await limiter.take("ten_a", limits, 1)
    assert len(buckets.asked) <= 6


async def test_requests_of_one_moment_share_a_round_trip() -> None:
    time = Time()
    buckets = Buckets(time)
    limiter = SharedRateLimiter(buckets, time)
    limits = Limits(rate_per_second=1, burst=1000)
    await asyncio.gather(*(limiter.take(f"ten_{n % 7}", limits, 1) for n in range(300)))
    assert len(buckets.asked) <= 3
    assert max(buckets.asked) == 7


async def test_over_the_limit_it_waits_and_asks_no_more_for_a_moment() -> None:
    time = Time()
    buckets = Buckets(time)
    limiter = SharedRateLimiter(buckets, time)
    limits = Limits(rate_per_second=10, burst=5)
    standing = await limiter.take("ten_a", limits, 5)
    assert (standing.limit, standing.remaining) == (5, 0)
    for _ in range(50):
        with pytest.raises(errors.Limited) as caught:
            await limiter.take("ten_a", limits, 1)
        assert caught.value.code == "rate_limited"
        assert 0 < (caught.value.retry_after or 0) <= 0.1
    assert len(buckets.asked) == 2
    time.now += SECOND // 10
    assert (await limiter.take("ten_a", limits, 1)).remaining == 0


async def test_a_batch_over_the_burst_passes_once_and_leaves_a_debt() -> None:
    time = Time()
    limiter = SharedRateLimiter(Buckets(time), time)
    limits = Limits(rate_per_second=100, burst=100)
    assert (await limiter.take("ten_a", limits, 1000)).reset == 10
    with pytest.raises(errors.Limited) as caught:
        await limiter.take("ten_a", limits, 1)
    assert caught.value.retry_after == pytest.approx(9.01)


async def test_a_small_request_passes_where_a_large_one_does_not() -> None:
    time = Time()
    limiter = SharedRateLimiter(Buckets(time), time)
    limits = Limits(rate_per_second=1, burst=10)
    await limiter.take("ten_a", limits, 5)
    large, small = await asyncio.gather(
        limiter.take("ten_a", limits, 8), limiter.take("ten_a", limits, 2), return_exceptions=True
    )
    assert isinstance(large, errors.Limited)
    assert not isinstance(small, BaseException)


async def test_what_is_taken_in_advance_is_lost_after_a_second() -> None:
    time = Time()
    buckets = Buckets(time)
    limiter = SharedRateLimiter(buckets, time)
    limits = Limits(rate_per_second=1000, burst=1000)
    await limiter.take("ten_a", limits, 1)
    time.now += 2 * SECOND
    await limiter.take("ten_a", limits, 1)
    assert len(buckets.asked) == 2


async def test_who_is_canceled_costs_nobody_else_an_answer() -> None:
    time = Time()
    limiter = SharedRateLimiter(Buckets(time), time)
    limits = Limits(rate_per_second=1, burst=10)
    waiting = [asyncio.ensure_future(limiter.take("ten_a", limits, 1)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[3].cancel()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in done) == 2
    assert sum(not isinstance(one, BaseException) for one in done) == 3


async def test_a_defect_below_lets_nobody_wait() -> None:
    time = Time()
    buckets = Buckets(time)
    buckets.fault = ValueError("x")
    limiter = SharedRateLimiter(buckets, time)
    with pytest.raises(errors.Unavailable):
        await limiter.take("ten_a", Limits(1, 10, 0), 1)
    buckets.fault = None
    await limiter.take("ten_a", Limits(1, 10, 0), 1)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12), st.integers(0, 300_000)), max_size=60),
    st.integers(1, 40),
    st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_several_together_never_pass_more_than_the_limit(
    steps: list[tuple[int, int, int]], burst: int, rate: int
) -> None:
    async def run() -> None:
        time = Time()
        buckets = Buckets(time)
        limiters = [SharedRateLimiter(buckets, time) for _ in range(3)]
        limits = Limits(rate_per_second=rate, burst=burst)
        started, passed, largest = time.now, 0, 0
        for who, count, pause in steps:
            largest = max(largest, count)
            try:
                await limiters[who].take("ten_a", limits, count)
                passed += count
            except errors.Limited as error:
                assert error.retry_after is not None
                assert error.retry_after > 0
            assert passed <= max(burst, largest) + rate * (time.now - started) / SECOND + 1e-6
            time.now += pause

    asyncio.run(run())
