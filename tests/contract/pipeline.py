"""A worker and a recorder over given records, for the tests of how they act together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from posthouse import ids
from posthouse.clock import SECOND, now
from posthouse.errors import StorageUnavailable
from posthouse.events.types import Type
from posthouse.outbound import ledger
from posthouse.outbound.ledger import Due
from posthouse.outbound.model import State
from posthouse.outbound.settle import Outcome, Recorder
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx, Work
from posthouse.worker import Worker

TENANT = "ten_1"


async def submit(records: Records, queue: RecordsQueue, count: int) -> list[str]:
    """`count` messages with one recipient each, due now."""
    at = now()
    names = ids.many("msg", count)
    rows: list[ledger.NewMessage] = [
        (
            name,
            0,
            TENANT,
            "sub_1",
            "str_1",
            1,
            f"u{n}@b.example",
            None,
            "queued",
            at,
            at,
            at + 3600 * SECOND,
            at,
            None,
            None,
            at,
        )
        for n, name in enumerate(names)
    ]

    async def work(tx: Tx) -> None:
        await ledger.insert(tx, [("sub_1", TENANT, at, None, "{}")], rows)
        await queue.put([Job("render", 1, TENANT, at, name) for name in names], tx=tx)

    await records.write(work)
    return names


def worker_of(queue: RecordsQueue, run, *, room: int = 100, lease: float = 60.0, poll: float = 0.05) -> Worker:
    return Worker("render", queue, run, room=dict.fromkeys(Lane, room), batch=50, lease=lease, poll=poll, clock=now)


async def states(records: Records) -> list[str]:
    async def work(tx: Tx) -> list[str]:
        return [row[0] for row in await tx.rows("SELECT state FROM message ORDER BY id")]

    return await records.read(work)


async def until(condition, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def delivered(due: Due, attempts: int = 1) -> Outcome:
    return Outcome(due, State.DELIVERED, now(), attempts, 0, event=Type.DELIVERED, data="{}", reply='{"code":250}')


class Setting:
    """A worker and a recorder that know each other; `records` may be a proxy that fails."""

    def __init__(self, records: Records, queue: RecordsQueue, run, **options) -> None:
        self.worker = worker_of(queue, run, **options)
        self.suppressed: list[Outcome] = []
        self.recorder = Recorder(
            records,
            queue,
            self._suppress,
            current=self.worker.current,
            release=self.worker.release,
            leases=self.worker.leases,
        )

    async def _suppress(self, tx: Tx, outcomes: Sequence[Outcome]) -> None:
        self.suppressed.extend(outcomes)


class Away:
    """Records whose writes fail until they are back."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.capabilities = records.capabilities
        self.away = True
        self.tried = 0

    async def write(self, work: Work[None], *, durable: bool = True) -> None:
        self.tried += 1
        if self.away:
            raise StorageUnavailable(detail="away")
        await self._records.write(work, durable=durable)
