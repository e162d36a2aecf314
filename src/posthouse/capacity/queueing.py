"""Waiting times of stages, and what a burst leaves behind.

Stations are M/G/c queues. The mean wait is Allen and Cunneen's: the wait of M/M/c (Erlang C)
times half the sum of the squared coefficients of variation of arrivals and service (A. O. Allen,
"Probability, Statistics, and Queueing Theory", 2nd ed., §5.3.5). Lanes are Cobham's non-preemptive
priorities (A. Cobham, Operations Research 2 (1954) 70). A station that works in batches (a group
commit) adds half of the batch under way and the whole of its own. The sum over stations is taken
for a gamma distribution of the same mean and variance; its quantiles are Wilson and Hilferty's.

A burst is a fluid: arrivals and capacities are rates, the queue is what they differ by.

Times are seconds, rates are jobs a second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NORMAL = {0.5: 0.0, 0.9: 1.2815515655, 0.95: 1.6448536270, 0.99: 2.3263478740, 0.999: 3.0902323062}
_SAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Station:
    """`servers` that each take `service` for a job, and `setup` more for each batch of up to
    `batch` jobs. `scv` is the service time's squared coefficient of variation."""

    name: str
    servers: int
    service: float
    scv: float = 1.0
    setup: float = 0.0
    batch: int = 1

    @property
    def capacity(self) -> float:
        """Jobs a second at most: every batch full."""
        return self.servers * self.batch / (self.setup + self.batch * self.service)

    def utilisation(self, rate: float) -> float:
        return rate / self.capacity


@dataclass(frozen=True, slots=True)
class Latency:
    """A time by its first two moments; times of independent stations add."""

    mean: float
    variance: float

    def __add__(self, other: Latency) -> Latency:
        return Latency(self.mean + other.mean, self.variance + other.variance)

    def quantile(self, part: float) -> float:
        """
        :param part: 0.5, 0.9, 0.95, 0.99 or 0.999.
        """
        if math.isinf(self.mean):
            return math.inf
        if self.variance <= 0 or self.mean <= 0:
            return self.mean
        shape = self.mean**2 / self.variance
        cube = 1 - 1 / (9 * shape) + _NORMAL[part] / (3 * math.sqrt(shape))
        return self.mean * max(0.0, cube) ** 3


NOTHING = Latency(0.0, 0.0)
NEVER = Latency(math.inf, 0.0)


def erlang_c(servers: int, offered: float) -> float:
    """The part of arrivals that find all servers busy.

    :param offered: arrivals times service time, in erlangs.
    """
    if offered >= servers:
        return 1.0
    blocked = 1.0  # Erlang B by its recursion, which no number of servers makes overflow
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def _queue(station: Station, rate: float, arrivals: float) -> tuple[float, float]:
    """The part of jobs that wait behind others, and the mean wait over all."""
    each = station.servers / station.capacity
    offered = rate * each
    if offered >= station.servers:
        return 1.0, math.inf
    waits = erlang_c(station.servers, offered)
    return waits, waits * each / (station.servers - offered) * (arrivals + station.scv) / 2


def _batched(station: Station, rate: float) -> Latency:
    """What batches add: half of the one under way, and the whole of the job's own."""
    mine = rate / station.servers
    spare = 1 - mine * station.service
    size = mine * station.setup / spare if spare > 0 else station.batch
    size = min(max(size, 1.0), station.batch)
    length = station.setup + size * station.service
    busy = min(1.0, mine * length / size)
    return Latency(busy * length / 2 + length, busy * length**2 / 12)


def latency(station: Station, rate: float, arrivals: float = 1.0) -> Latency:
    """From a job's arrival to its end.

    :param arrivals: the squared coefficient of variation of the time between arrivals; 1 is Poisson.
    """
    return by_lane(station, {"": rate}, arrivals)[""]


def by_lane(station: Station, rates: Mapping[str, float], arrivals: float = 1.0) -> dict[str, Latency]:
    """The same for lanes, the first before the second before the third."""
    total = sum(rates.values())
    waits, mean = _queue(station, min(total, station.capacity * (1 - 1e-9)), arrivals)
    first = mean * (1 - min(station.utilisation(total), 1 - 1e-9))  # the wait of whom nobody is before
    own = Latency(station.service, station.scv * station.service**2) if station.batch == 1 else None
    found: dict[str, Latency] = {}
    before = 0.0
    for lane, rate in rates.items():
        upto = before + station.utilisation(rate)
        if upto >= 1:
            found[lane] = NEVER
        else:
            wait = first / ((1 - before) * (1 - upto))
            # An exponential wait for the part that waits at all, none for the others.
            found[lane] = Latency(wait, 2 * wait**2 / max(waits, 1e-9) - wait**2) + (own or _batched(station, total))
        before = upto
    return found


@dataclass(frozen=True, slots=True)
class Burst:
    """`peak` arrivals a second for `seconds`, `base` before and after."""

    peak: float
    seconds: float
    base: float = 0.0


@dataclass(frozen=True, slots=True)
class Drained:
    """What a burst leaves: the longest queue, the seconds from the burst's end until the queue is
    empty again, and quantiles of how long its jobs waited."""

    queued: float
    seconds: float
    p50: float
    p99: float


def drained(burst: Burst, during: float, after: float | None = None) -> Drained:
    """A burst into a queue that is served in the order of arrival.

    :param during: jobs a second that are served while the burst lasts,
    :param after: and when it has ended, where that differs: a machine that no longer accepts has
        more left to send with.
    """
    after = during if after is None else after
    queued = max(0.0, burst.peak - during) * burst.seconds
    spare = after - burst.base
    seconds = 0.0 if queued == 0 else queued / spare if spare > 0 else math.inf
    if math.isinf(seconds):
        return Drained(queued, seconds, math.inf, math.inf)
    waits = sorted(_wait(burst, during, after, (n + 0.5) / _SAMPLES * burst.seconds) for n in range(_SAMPLES))
    return Drained(queued, seconds, waits[_SAMPLES // 2], waits[int(_SAMPLES * 0.99)])


def _wait(burst: Burst, during: float, after: float, arrived: float) -> float:
    """Of the job that came at this time of the burst."""
    before = burst.peak * arrived
    if before <= during * burst.seconds:
        return max(0.0, before / during - arrived)
    return burst.seconds + (before - during * burst.seconds) / after - arrived


def queues(burst: Burst, capacities: Sequence[float]) -> list[float]:
    """What stands before each of the stages in a row when the burst ends."""
    flow, found = burst.peak, list[float]()
    for capacity in capacities:
        found.append(max(0.0, flow - capacity) * burst.seconds)
        flow = min(flow, capacity)
    return found
