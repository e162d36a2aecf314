"""`plan`: from a workload and costs to processes, engines, a forecast, and what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from posthouse.capacity import engines as engine
from posthouse.capacity import sizing
from posthouse.capacity.costs import Costs, Priced, shipped
from posthouse.capacity.engines import Engine, Flow, Stored
from posthouse.capacity.queueing import NOTHING, Burst, Latency, Station, by_lane, drained, queues
from posthouse.capacity.sizing import Role, Sized, Topic
from posthouse.capacity.workload import BUSY, Workload


@dataclass(frozen=True, slots=True)
class Stage:
    """`queue`: jobs before it when the burst ends."""

    name: str
    servers: int
    utilisation: float
    queue: float


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds in the busiest hour: of a sent mail from its request until it is handed to the receiving
    server, of a received one (`lane` is "received") from the end of DATA until it is in its mailbox."""

    lane: str
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Drain:
    """`queued` jobs when the burst ends, gone `seconds` later; what its mails wait."""

    queued: float
    seconds: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Forecast:
    stages: tuple[Stage, ...]
    waits: tuple[Waits, ...]
    burst: Drain | None


@dataclass(frozen=True, slots=True)
class Plan:
    workload: Workload
    roles: tuple[Role, ...]
    topics: tuple[Topic, ...]
    engines: tuple[Engine, ...]
    network: tuple[Flow, ...]
    stored: Stored
    forecast: Forecast
    embedded: bool
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def cores(self) -> float:
        """Of Posthouse's own processes."""
        return sum(role.processes * role.cores for role in self.roles)

    @property
    def memory(self) -> float:
        """Octets, of Posthouse's own processes."""
        return sum(role.processes * role.octets for role in self.roles)


def plan(work: Workload, prices: Priced | None = None) -> Plan:
    """What this workload needs."""
    prices = prices or shipped()
    costs = prices.costs
    held = engine.stored(work, costs)
    found = sizing.sized(work, costs, held.all)
    parts = engine.embedded(work, costs) if found.embedded else engine.engines(work, costs)
    return Plan(
        work,
        found.roles,
        found.topics,
        parts,
        engine.network(work, costs),
        held,
        forecast(work, costs, found),
        found.embedded,
        _assumptions(work, prices),
        _warnings(work, costs, found, prices),
    )


def forecast(work: Workload, costs: Costs, found: Sized) -> Forecast:
    stations = sizing.sending(work, costs, found)
    arriving = sizing.receiving(work, costs, found)
    burst = Burst(work.burst_per_second, work.burst_seconds, work.steady) if work.burst_per_second else None
    waiting = queues(burst, [one.capacity for one in stations]) if burst else [0.0] * len(stations)
    stages = [
        Stage(one.name, one.servers, one.utilisation(work.steady), queue)
        for one, queue in zip(stations, waiting, strict=True)
    ]
    stages += [Stage(one.name, one.servers, one.utilisation(work.received), 0.0) for one in arriving]
    rates = {lane: work.steady * share for lane, share in work.lanes().items() if share > 0}
    waits = [*_waits(rates, stations), *_waits({"received": work.received}, arriving)]
    return Forecast(tuple(stages), tuple(waits), _drain(burst, stations) if burst and stations else None)


def _waits(rates: Mapping[str, float], stations: Sequence[Station]) -> list[Waits]:
    total: dict[str, Latency] = dict.fromkeys(rates, NOTHING)
    for station in stations:
        for lane, one in by_lane(station, rates).items():
            total[lane] += one
    return [Waits(lane, one.quantile(0.5), one.quantile(0.99)) for lane, one in total.items() if stations]


def _drain(burst: Burst, stations: Sequence[Station]) -> Drain:
    # What cannot be taken at once is not queued: it is answered later, or 503. Only what was taken waits here.
    taken = min(burst.peak, stations[0].capacity)
    slowest = min(one.capacity for one in stations)
    left = drained(Burst(taken, burst.seconds, burst.base), slowest)
    return Drain(left.queued, left.seconds, left.p50, left.p99)


def _assumptions(work: Workload, prices: Priced) -> tuple[str, ...]:
    guessed = ", ".join(name for name in (one.name for one in fields(Costs)) if name in prices.estimated)
    said = [
        f"Costs measured {prices.date} on: {prices.machine}.",
        f"Not measured, estimated: {guessed}." if guessed else "",
        f"Taken from the figures of this release: {', '.join(sorted(prices.shipped))}." if prices.shipped else "",
        f"The busiest hour has {BUSY:g} times the day's mean rate." if not work.sustained_per_second else "",
        f"Processes are {sizing.STEADY:.0%} busy in the busiest hour and {sizing.FULL:.0%} while a burst is drained; "
        "one in ten is spare, and there are two of each at least.",
        "Cores are like those of the machine measured; each signature is RSA-2048. Receiving servers answer at once: "
        "slow ones cost connections and memory, no cores.",
        "Waiting times: M/G/c by Allen and Cunneen, lanes as Cobham's priorities, batches as half of the one under way "
        "and the own, quantiles of a gamma distribution; bursts as a fluid. Network and peers come on top.",
        f"A topic has {engine.REPLICAS} replicas and keeps {engine.KEPT_HOURS} h; records have a standby, the index a "
        "replica; the object store's own copies are not counted.",
        "So much received mail goes to the object store as a whole: set `receive.small` to 0."
        if engine.stored(work, prices.costs).apart
        else f"Received mail above {engine.SMALL // 1024} KiB lies in the object store, smaller mail in the records.",
    ]
    return tuple(one for one in said if one)


def _warnings(work: Workload, costs: Costs, found: Sized, prices: Priced) -> tuple[str, ...]:
    said: list[str] = []
    count = engine.cells(work, costs)
    if not found.embedded and count > 1:
        said.append(
            f"One PostgreSQL primary is not enough: this needs {count} cells, each a Posthouse with records of its "
            "own, that share the domains, accounts and tenants between them. Posthouse does not divide them by itself."
        )
    if not found.embedded and work.sockets:
        said.append("Open connections are sized by an estimate: nothing has measured them.")
    if work.burst_per_second and found.embedded:
        said.append("On one machine, what accepts a burst is not there to send it: see `docs/operating.md`, Sizing.")
    if found.topics and max(topic.partitions for topic in found.topics) >= 384:
        said.append("With hundreds of partitions, give Kafka controllers of their own.")
    if "send_main_us" in prices.estimated or "render_us" in prices.estimated:
        said.append("The costs of sending are estimates: measure them with `python -m bench --costs FILE`.")
    return tuple(said)
