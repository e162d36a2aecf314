"""How many processes of each role, and how many partitions for each topic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posthouse.capacity.costs import Costs
from posthouse.capacity.queueing import Station
from posthouse.capacity.workload import Workload

STEADY = 0.65
"""Utilisation in the busiest hour: above it waiting times grow quickly."""
FULL = 0.9
"""Utilisation while a burst is drained: waiting is expected then."""
ONE_PROCESS = 0.5
"""Part of one interpreter under which a single process on embedded storage will do."""
EMBEDDED_OCTETS = 500e9
"""More than this on SQLite is not what one wants to copy for a backup."""
SOCKETS = 25_000
"""Open connections of one process."""
PARTITION_RATE = 5_000.0
"""Jobs a second of one partition."""
_PARTITIONS = (3, 6, 12, 24, 48, 96, 192, 384, 768, 1536)


@dataclass(frozen=True, slots=True)
class Role:
    """`cores` and `octets` (of memory) are of one process with its render processes."""

    name: str
    roles: str
    """For `posthouse serve --roles`."""
    processes: int
    render_processes: int
    cores: float
    octets: float
    per_second: float
    """What all of them can do together."""
    steady: float
    """What they are asked in the busiest hour, a second."""
    peak: float
    """And at most."""

    @property
    def utilisation(self) -> float:
        return self.steady / self.per_second if self.per_second else 0.0


@dataclass(frozen=True, slots=True)
class Topic:
    """One for each stage and lane of Kafka."""

    stage: str
    lane: str
    partitions: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Sized:
    roles: tuple[Role, ...]
    topics: tuple[Topic, ...]
    embedded: bool

    def role(self, name: str) -> Role | None:
        return next((one for one in self.roles if one.name == name), None)


def submit_us(work: Workload, costs: Costs) -> float:
    """Of one mail: the request shared by its recipients, and its own part of a batch."""
    return costs.submit_us + max(0.0, costs.request_us - costs.submit_us) / work.recipients


def interpreter_us(work: Workload, costs: Costs) -> float:
    """µs of one interpreter for each second, if one process did everything but rendering."""
    sent = work.steady * (submit_us(work, costs) + costs.send_main_us)
    return sent + work.received * (costs.accept_us + costs.store_us + costs.index_us)


def to_send(work: Workload) -> float:
    """Mails a second that must be sent while a burst is drained; 0 without one."""
    if not work.burst_per_second:
        return 0.0
    waits = max(0.0, work.drain - work.burst_seconds)
    return (work.burst_per_second * work.burst_seconds + work.steady * waits) / work.drain


def sized(work: Workload, costs: Costs, stored: float) -> Sized:
    """
    :param stored: octets of records and blobs in the end.
    """
    small = interpreter_us(work, costs) < ONE_PROCESS * 1e6 and work.burst_per_second * work.burst_seconds < 5e6
    if small and stored < EMBEDDED_OCTETS and work.sockets < SOCKETS:
        return Sized((_everything(work, costs),), (), embedded=True)
    roles: list[Role] = []
    if work.steady or work.burst_per_second:
        roles += [_api(work, costs), _worker(work, costs)]
    else:
        roles.append(_api(work, costs))
    roles.append(Role("schedule", "schedule", 2, 0, 0.25, costs.process_octets, 0, 0, 0))
    if work.received:
        roles += [
            _plain("mx", "mx", work.received, costs.accept_us, costs),
            _plain("store", "store", work.received, costs.store_us, costs),
            _plain("index", "index", work.received, costs.index_us, costs),
        ]
    return Sized(tuple(roles), _topics(work, {role.name: role for role in roles}), embedded=False)


def _count(steady: float, peak: float, each: float) -> int:
    """Two at least: one may be away. Loads at their bounds, and one process more than needed for
    each ten, so that a lost machine is not felt."""
    needed = max(steady / STEADY, peak / FULL) / each
    return max(2, math.ceil(needed) + math.ceil(needed) // 10)


def _everything(work: Workload, costs: Costs) -> Role:
    rate = 1e6 * FULL / max(interpreter_us(work, costs) / max(work.steady + work.received, 1e-9), 1e-9)
    renders = max(1, math.ceil(max(work.steady, to_send(work)) * costs.render_us / 1e6 / FULL))
    octets = costs.process_octets + renders * costs.render_octets + work.sockets * costs.socket_octets
    steady = work.steady + work.received
    return Role("all", "all", 1, renders, 1.0 + renders, octets, rate, steady, max(steady, work.peak + work.received))


def _api(work: Workload, costs: Costs) -> Role:
    each = 1e6 / submit_us(work, costs)
    sockets = math.ceil(work.sockets / SOCKETS)
    count = max(_count(work.steady, work.peak, each), sockets + sockets // 10)
    octets = costs.process_octets + work.sockets / count * costs.socket_octets
    return Role("api", "api", count, 0, 1.0, octets, count * each, work.steady, work.peak)


def _worker(work: Workload, costs: Costs) -> Role:
    """Its own process claims and sends; as many render processes as keep that one busy."""
    each = 1e6 / costs.send_main_us
    drain = to_send(work)
    renders = max(1, math.ceil(each * costs.render_us / 1e6))
    if max(work.steady / STEADY, drain / FULL) < each:  # one of them has less to do than it could
        renders = max(1, math.ceil(max(work.steady / STEADY, drain / FULL) * costs.render_us / 1e6))
    each = min(each, renders * 1e6 / costs.render_us)
    count = _count(work.steady, drain, each)
    octets = costs.process_octets + renders * costs.render_octets
    cores = 1.0 + renders
    return Role(
        "worker", "render,send", count, renders, cores, octets, count * each, work.steady, max(work.steady, drain)
    )


def _plain(name: str, roles: str, rate: float, cost: float, costs: Costs) -> Role:
    each = 1e6 / cost
    count = _count(rate, rate, each)
    return Role(name, roles, count, 0, 1.0, costs.process_octets, count * each, rate, rate)


def _topics(work: Workload, roles: dict[str, Role]) -> tuple[Topic, ...]:
    found: list[Topic] = []
    if "worker" in roles:
        for lane, share in work.lanes().items():
            found.append(_topic("render", lane, work.peak * share, roles["worker"].processes))
        found.append(_topic("relay", "transactional", work.received, roles["worker"].processes))
    if "store" in roles:
        found.append(_topic("store", "transactional", work.received, roles["store"].processes))
        found.append(_topic("index", "transactional", work.received, roles["index"].processes))
    return tuple(found)


def _topic(stage: str, lane: str, rate: float, consumers: int) -> Topic:
    """Two partitions for each consumer, so that one more or less moves few of them."""
    wanted = max(2 * consumers, math.ceil(rate / PARTITION_RATE))
    return Topic(stage, lane, next((one for one in _PARTITIONS if one >= wanted), _PARTITIONS[-1]), rate)


COMMIT_BATCH = 10_000
"""As many as wait share a durable step; the bound only has to be out of reach."""


def sending(work: Workload, costs: Costs, found: Sized) -> list[Station]:
    """The stations that a sent mail passes, in order; empty when nothing is sent. A durable step is
    a station of its own: the process does other work while it lasts."""
    worker = found.role("worker") or found.role("all")
    api = found.role("api") or found.role("all")
    if not work.steady or worker is None or api is None:
        return []
    # One interpreter that does everything spends on each mail what all its stages need.
    own = interpreter_us(work, costs) / work.steady if found.embedded else costs.send_main_us
    accept = own if found.embedded else submit_us(work, costs)
    return [
        Station("submit", api.processes, accept / 1e6),
        _commit("on disk", api.processes, costs),
        Station("render", worker.processes * worker.render_processes, costs.render_us / 1e6, scv=0.3),
        Station("send", worker.processes, own / 1e6),
    ]


def receiving(work: Workload, costs: Costs, found: Sized) -> list[Station]:
    """Those of a received mail, from the end of DATA to its mailbox."""
    gateway = found.role("mx") or found.role("all")
    store = found.role("store") or found.role("all")
    if not work.received or gateway is None or store is None:
        return []
    own = interpreter_us(work, costs) / work.received if found.embedded else 0.0
    return [
        Station("accept", gateway.processes, (own or costs.accept_us) / 1e6),
        _commit("on disk", gateway.processes, costs),
        Station("store", store.processes, (own or costs.store_us) / 1e6),
        _commit("in the mailbox", store.processes, costs),
    ]


def _commit(name: str, processes: int, costs: Costs) -> Station:
    return Station(name, processes, 1e-6, setup=costs.commit_seconds, batch=COMMIT_BATCH)
