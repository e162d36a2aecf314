from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse import errors
from posthouse.accounts.limits import RateLimiter
from posthouse.accounts.model import Limits
from posthouse.clock import SECOND


class Time:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


def test_a_burst_passes_and_the_next_one_waits() -> None:
    time = Time()
    limiter = RateLimiter(time)
    limits = Limits(rate_per_second=10, burst=5)
    for left in (4, 3, 2, 1, 0):
        assert limiter.take_now("a", limits, 1).remaining == left
    with pytest.raises(errors.Limited) as caught:
        limiter.take_now("a", limits, 1)
    assert caught.value.code == "rate_limited"
    assert caught.value.retry_after == pytest.approx(0.1)
    time.now += SECOND // 10
    assert limiter.take_now("a", limits, 1).remaining == 0


def test_tenants_do_not_share_a_bucket() -> None:
    limiter = RateLimiter(Time())
    limits = Limits(rate_per_second=1, burst=1)
    limiter.take_now("a", limits, 1)
    assert limiter.take_now("b", limits, 1).remaining == 0


def test_a_batch_over_the_burst_passes_once_and_leaves_a_debt() -> None:
    time = Time()
    limiter = RateLimiter(time)
    limits = Limits(rate_per_second=100, burst=100)
    standing = limiter.take_now("a", limits, 1000)
    assert standing.remaining == 0
    assert standing.reset == 10
    with pytest.raises(errors.Limited) as caught:
        limiter.take_now("a", limits, 1)
    assert caught.value.retry_after == pytest.approx(9.01)
    time.now += 10 * SECOND
    assert limiter.standing("a", limits).remaining == 100


def test_what_is_refused_takes_nothing() -> None:
    time = Time()
    limiter = RateLimiter(time)
    limits = Limits(rate_per_second=1, burst=10)
    limiter.take_now("a", limits, 8)
    for _ in range(5):
        with pytest.raises(errors.Limited):
            limiter.take_now("a", limits, 3)
    assert limiter.take_now("a", limits, 2).remaining == 0


def test_a_clock_that_goes_back_gives_nothing_and_breaks_nothing() -> None:
    time = Time()
    limiter = RateLimiter(time)
    limits = Limits(rate_per_second=1, burst=2)
    limiter.take_now("a", limits, 1)
    time.now -= 3600 * SECOND
    assert limiter.take_now("a", limits, 1).remaining == 0


def test_memory_is_bounded_and_the_busy_keep_their_buckets() -> None:
    time = Time()
    limiter = RateLimiter(time)
    limits = Limits(rate_per_second=1, burst=10)
    for number in range(10_000):
        limiter.take_now(f"t{number}", limits, 5)
        time.now += 1
    limiter.take_now("one more", limits, 5)
    assert len(limiter._buckets) <= 5001
    assert limiter.standing("t9999", limits).remaining == 5


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3 * SECOND)), max_size=60))
def test_no_more_passes_than_burst_and_rate_allow(requests: list[tuple[int, int]]) -> None:
    time = Time()
    limiter = RateLimiter(time)
    limits = Limits(rate_per_second=10, burst=50)
    start, passed = time.now, 0
    for count, pause in requests:
        time.now += pause
        try:
            limiter.take_now("a", limits, count)
        except errors.Limited as error:
            assert error.retry_after is not None
            assert 0 < error.retry_after <= 5
            continue
        passed += count
    assert passed <= 50 + 10 * (time.now - start) / SECOND + 1e-6
