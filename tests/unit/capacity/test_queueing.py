"""Formulas against closed forms and against a simulation that knows none of them."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.capacity.queueing import Burst, Latency, Station, by_lane, drained, erlang_c, latency, queues


def simulated(servers: int, rate: float, service: Callable[[random.Random], float], jobs: int = 150_000) -> list[float]:
    """Times from arrival to end of a first-come-first-served queue with Poisson arrivals, sorted."""
    pick = random.Random(7)
    free, at, found = [0.0] * servers, 0.0, list[float]()
    for number in range(jobs):
        at += pick.expovariate(rate)
        end = max(at, heapq.heappop(free)) + service(pick)
        heapq.heappush(free, end)
        if number > jobs // 20:
            found.append(end - at)
    return sorted(found)


def moments(pick: random.Random, rate: float, seconds: float) -> list[float]:
    """Poisson arrivals."""
    at, found = 0.0, list[float]()
    while (at := at + pick.expovariate(rate)) < seconds:
        found.append(at)
    return found


@pytest.mark.parametrize(("servers", "offered", "expected"), [(1, 0.7, 0.7), (2, 1.0, 1 / 3), (10, 8.0, 0.4092)])
def test_erlang_c_is_what_tables_say(servers: int, offered: float, expected: float) -> None:
    assert erlang_c(servers, offered) == pytest.approx(expected, rel=1e-3)


def test_one_exponential_server_is_exact() -> None:
    found = latency(Station("x", 1, 0.1), 8.0)
    assert found.mean == pytest.approx(0.1 / (1 - 0.8))
    assert found.quantile(0.99) == pytest.approx(-math.log(0.01) * 0.5, rel=0.02)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("servers", [1, 2, 8])
@pytest.mark.parametrize(("scv", "draw"), [(1.0, lambda r: r.expovariate(10.0)), (0.0, lambda r: 0.1)])
def test_latency_is_near_a_simulation(
    servers: int, load: float, scv: float, draw: Callable[[random.Random], float]
) -> None:
    rate = load * servers * 10
    told = latency(Station("x", servers, 0.1, scv=scv), rate)
    seen = simulated(servers, rate, draw)
    assert told.mean == pytest.approx(sum(seen) / len(seen), rel=0.15)
    assert told.quantile(0.5) == pytest.approx(seen[len(seen) // 2], rel=0.35)
    assert told.quantile(0.99) == pytest.approx(seen[int(len(seen) * 0.99)], rel=0.25)


def test_a_lane_does_not_feel_those_behind_it() -> None:
    station = Station("x", 2, 0.01)
    alone = by_lane(station, {"critical": 20.0})["critical"]
    crowded = by_lane(station, {"critical": 20.0, "bulk": 500.0})
    assert crowded["critical"].quantile(0.99) < 4 * alone.quantile(0.99)
    assert math.isinf(crowded["bulk"].quantile(0.99))


def test_lanes_are_near_a_simulation() -> None:
    pick, rates, service = random.Random(3), (2.0, 6.0), 0.1
    arrivals = sorted((at, lane) for lane, rate in enumerate(rates) for at in moments(pick, rate, 8000))
    waiting: list[tuple[int, float]] = []
    waits: tuple[list[float], list[float]] = ([], [])
    now, place = 0.0, 0
    while place < len(arrivals) or waiting:
        while place < len(arrivals) and arrivals[place][0] <= now:
            at, lane = arrivals[place]
            heapq.heappush(waiting, (lane, at))
            place += 1
        if not waiting:
            now = arrivals[place][0]
            continue
        lane, at = heapq.heappop(waiting)
        waits[lane].append(now - at)
        now += pick.expovariate(1 / service)
    told = by_lane(Station("x", 1, service), {"critical": rates[0], "bulk": rates[1]})
    for lane, seen in zip(("critical", "bulk"), waits, strict=True):
        assert told[lane].mean - service == pytest.approx(sum(seen) / len(seen), rel=0.2)


def test_a_shared_commit_costs_at_most_one_and_a_half_of_it() -> None:
    found = latency(Station("commit", 1, 1e-6, setup=0.01, batch=10_000), 5_000.0)
    assert 0.01 <= found.mean <= 0.016
    assert found.quantile(0.99) < 0.025


def test_what_cannot_be_served_waits_for_ever() -> None:
    assert math.isinf(latency(Station("x", 2, 0.1), 20.0).quantile(0.99))
    assert math.isinf(drained(Burst(100, 10, base=60), 50, 50).seconds)


def test_a_burst_by_hand() -> None:
    found = drained(Burst(peak=300, seconds=60), during=100, after=150)
    assert found.queued == 12_000
    assert found.seconds == 80
    # The last of the burst leaves 80 s after it came; the one half-way at 30 s has 9,000 before it:
    # 6,000 are served by 60 s, and 3,000 in 20 s more.
    assert found.p99 == pytest.approx(80 * 0.99 + 0.5, abs=1)
    assert found.p50 == pytest.approx(60 + 20 - 30, abs=0.1)


@settings(max_examples=60, deadline=None)
@given(
    peak=st.floats(1, 1e6),
    seconds=st.floats(1, 3600),
    during=st.floats(1, 1e6),
    more=st.floats(1, 3),
    base=st.floats(0, 0.9),
)
def test_a_burst_against_small_steps(peak: float, seconds: float, during: float, more: float, base: float) -> None:
    after = during * more
    burst = Burst(peak, seconds, min(base * after, peak))
    found = drained(burst, during, after)
    queue, step = 0.0, seconds / 1000
    for _ in range(1000):
        queue = max(0.0, queue + (peak - during) * step)
    assert found.queued == pytest.approx(queue, rel=1e-6, abs=1e-3)
    assert found.seconds * (after - burst.base) == pytest.approx(found.queued, abs=1e-3)
    assert 0 <= found.p50 <= found.p99 * (1 + 1e-9) + 1e-9


def test_the_queue_stands_before_the_slowest_stage() -> None:
    assert queues(Burst(100, 10), [200, 60, 50]) == [0, 400, 100]


def test_times_add_and_a_sure_time_is_its_own_quantile() -> None:
    total = Latency(1, 0) + Latency(2, 0)
    assert total.quantile(0.99) == 3
