"""How requests that send become durable: in the records, or ahead of them in Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posthouse.clock import Clock
from posthouse.config import Settings
from posthouse.outbound import Submit
from posthouse.outbound.ahead import SUBMIT, Record, Recorded, SubmitAhead
from posthouse.storage.queue.base import Job, Lane, Queue
from posthouse.storage.records.base import Records
from posthouse.worker import Worker

_ROOM = 256
_GATHER = 0.03


def _is_ahead(settings: Settings) -> bool:
    return settings.queue.url.startswith("kafka:")


def gather(settings: Settings) -> float:
    """Seconds that jobs come together after a claim. On Kafka they come in ones and twos, and each
    batch costs several transactions and a produce, whatever its size; the first job waits for none."""
    return _GATHER if _is_ahead(settings) else 0.0


@dataclass(frozen=True, slots=True)
class Accepting:
    """`recorder` and `recorded`: None where the ledger is written before the answer."""

    submit: Submit
    recorder: Worker | None = None
    recorded: Recorded | None = None


def accepting(settings: Settings, records: Records, queue: Queue, render: Worker, clock: Clock) -> Accepting:
    """:param render: the worker of the stage that comes next."""
    if not _is_ahead(settings):
        return Accepting(Submit(records, queue, render.wake, clock))

    async def run(jobs: Sequence[Job]) -> None:
        await stage(jobs)

    worker = Worker(
        SUBMIT,
        queue,
        run,
        room={Lane.CRITICAL: _ROOM, Lane.TRANSACTIONAL: 2 * _ROOM, Lane.BULK: _ROOM},
        lease=settings.worker.lease,
        clock=clock,
        gather=gather(settings),
    )
    stage = Record(
        records,
        queue,
        wake=render.wake,
        current=worker.current,
        release=worker.release,
        leases=worker.leases,
        clock=clock,
    )
    return Accepting(SubmitAhead(records, queue, worker.wake, clock), worker, Recorded(queue, clock))
