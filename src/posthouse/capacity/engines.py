"""What PostgreSQL, Kafka, Redis, S3 and OpenSearch need, and what goes over the network."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posthouse.capacity.costs import Costs
from posthouse.capacity.sizing import FULL, STEADY, to_send
from posthouse.capacity.workload import Workload

REPLICAS = 3
"""Copies of a topic; of records and index there are two."""
KEPT_HOURS = 24
"""How long topics keep what was worked on."""
SMALL = 128 * 1024
"""`receive.small`: up to this size a received mail lies in the records."""
CELL_CORES, CELL_OCTETS = 48.0, 16e12
"""What one PostgreSQL primary is asked at most."""
ROOM = 1.3
"""Records by what their rows need: dead rows, and the log that is being archived."""
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Engine:
    """`cores`, `memory` and `storage` (octets) are of all its servers together."""

    name: str
    servers: int
    cores: float
    memory: float
    storage: float
    about: str


@dataclass(frozen=True, slots=True)
class Flow:
    name: str
    bits: float
    """A second, at the peak."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Octets in the end, without replicas. `apart`: so much mail that all of it goes to the object
    store, not only what is larger than `receive.small`."""

    ledger: float
    mail_rows: float
    small_mail: float
    blobs: float
    index: float
    apart: bool

    @property
    def records(self) -> float:
        return self.ledger + self.mail_rows + self.small_mail

    @property
    def all(self) -> float:
        return self.records + self.blobs + self.index


def stored(work: Workload, costs: Costs) -> Stored:
    kept = work.received_per_day * work.kept_days
    large = _large_octets(work)
    small = kept * (work.octets - large)
    apart = small > CELL_OCTETS / 4
    sent = work.daily * work.retention_days * work.attachment_share * work.attachment_octets
    return Stored(
        ledger=work.daily * work.retention_days * costs.ledger_octets,
        mail_rows=kept * costs.mail_octets + work.mailboxes * costs.account_octets,
        small_mail=0.0 if apart else small,
        blobs=sent + (kept * work.octets if apart else kept * large),
        index=kept * work.body_octets * costs.index_ratio,
        apart=apart,
    )


def _large(work: Workload) -> float:
    """Share of mails that are larger than `SMALL`."""
    if work.body_octets > SMALL:
        return 1.0
    return work.attachment_share if work.body_octets + work.attachment_octets * 4 / 3 > SMALL else 0.0


def _large_octets(work: Workload) -> float:
    """What such mails have of the mean size of all."""
    return (
        work.octets if work.body_octets > SMALL else _large(work) * (work.body_octets + work.attachment_octets * 4 / 3)
    )


def _objects_a_second(work: Workload, held: Stored) -> float:
    return work.peak * work.attachment_share + work.received * (1.0 if held.apart else _large(work))


def embedded(work: Workload, costs: Costs) -> tuple[Engine, ...]:
    held = stored(work, costs)
    return (Engine("disk", 1, 0, 0, held.all * ROOM, "SQLite, blobs and index in the data directory"),)


def engines(work: Workload, costs: Costs) -> tuple[Engine, ...]:
    held = stored(work, costs)
    found = [_postgres(work, costs, held), _kafka(work, costs), _redis(work, costs)]
    found.append(_objects(work, costs, held))
    if work.received_per_day:
        found.append(_opensearch(work, costs, held))
    return tuple(found)


def cells(work: Workload, costs: Costs) -> int:
    """PostgreSQL primaries that share the accounts and tenants between them."""
    held = stored(work, costs).records * ROOM
    return max(1, math.ceil(_postgres_cores(work, costs) / CELL_CORES), math.ceil(held / CELL_OCTETS))


def _postgres_cores(work: Workload, costs: Costs) -> float:
    sending = max(work.steady / STEADY, to_send(work) / FULL) * costs.postgres_send_us
    return (sending + work.received / STEADY * costs.postgres_store_us) / 1e6


def _postgres(work: Workload, costs: Costs, held: Stored) -> Engine:
    count = cells(work, costs)
    cores = max(2.0 * count, _postgres_cores(work, costs))
    disk = held.records * ROOM
    return Engine(
        "PostgreSQL",
        2 * count,
        2 * cores,
        2 * max(count * 4 * _GIB, min(disk / 20, cores * 8 * _GIB)),
        2 * disk,
        f"{count} primary and a standby each" if count == 1 else f"{count} cells: a primary and a standby each",
    )


def _kafka(work: Workload, costs: Costs) -> Engine:
    jobs = work.peak + 2 * work.received
    cores = jobs * costs.kafka_us * REPLICAS / STEADY / 1e6
    day = (work.daily + 2 * work.received_per_day) * costs.job_octets * KEPT_HOURS / 24
    servers = max(3, math.ceil(cores / 16))
    return Engine(
        "Kafka", servers, max(3.0 * 2, cores), servers * 8 * _GIB, REPLICAS * day * ROOM, f"{REPLICAS} replicas, 24 h"
    )


def _redis(work: Workload, costs: Costs) -> Engine:
    cores = (work.peak + work.received) * costs.redis_us / STEADY / 1e6
    shards = max(1, math.ceil(cores))  # one thread runs the commands
    memory = shards * _GIB + work.sockets * 500
    return Engine(
        "Redis", 2 * shards, 2 * max(1.0, cores), 2 * memory, 2 * memory, "a replica each; nothing is lost with it"
    )


def _objects(work: Workload, costs: Costs, held: Stored) -> Engine:
    objects = _objects_a_second(work, held)
    cores = max(1.0, objects * costs.object_us / STEADY / 1e6)
    return Engine("S3", 0, cores, 0, held.blobs, f"{objects:,.0f} objects a second; replicas are the store's")


def _opensearch(work: Workload, costs: Costs, held: Stored) -> Engine:
    cores = max(2.0, 2 * work.received * costs.opensearch_us / STEADY / 1e6)
    disk = 2 * held.index * ROOM
    servers = max(3, math.ceil(disk / 4e12), math.ceil(cores / 32))
    return Engine(
        "OpenSearch", servers, max(cores, servers * 2.0), servers * 16 * _GIB, disk, "a replica of each shard"
    )


def network(work: Workload, costs: Costs) -> tuple[Flow, ...]:
    sending = max(work.steady, to_send(work))
    variables = 300.0  # octets of a recipient in a batch, besides the content that all share
    request = work.octets if work.recipients < 10 else variables + work.octets / work.recipients
    jobs = (work.peak + 2 * work.received) * costs.job_octets
    held = stored(work, costs)
    arriving = costs.mail_octets + (0.0 if held.apart else work.octets - _large_octets(work))
    whole = work.octets if held.apart else _large_octets(work)
    objects = work.peak * work.attachment_share * work.attachment_octets + work.received * whole
    flows = [
        ("API, in", work.peak * request),
        ("SMTP, out", sending * work.octets * 1.05),
        ("SMTP, in", work.received * work.octets * 1.05),
        ("Kafka, with replicas", jobs * (REPLICAS + 1)),
        ("PostgreSQL, with a standby", 2 * (sending * costs.ledger_octets + work.received * arriving)),
        ("S3", objects),
        ("OpenSearch, with a replica", 2 * work.received * work.body_octets),
    ]
    return tuple(Flow(name, octets * 8) for name, octets in flows if octets)
