"""Messages that are under way but that no job carries on: their job is put again.

That should not happen: row and job are written together. It can after a restore, or when a
person took away the wrong rows. The ledger is the truth, so it is walked: what is new follows
its head, the rest in laps. Only for a queue that lies in the records; another knows its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from prometheus_client import Counter

from posthouse import ids
from posthouse.clock import HOUR, SECOND, Clock
from posthouse.errors import Unavailable
from posthouse.events import log as event_log
from posthouse.events.types import Type
from posthouse.outbound.submit import RENDER
from posthouse.storage.queue.base import Job, Queue
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.records.partitions import MESSAGE

log = structlog.get_logger("reconcile")

RECOVERED = Counter("posthouse_recovered_total", "Messages whose job was lost and was put again.")

OVERDUE = 600 * SECOND
"""µs after its time at which a message is asked for: longer than a lease, and than a stop."""
_ROWS = 5000
_STEPS = 10


class Reconcile:
    """:param wake: told each lane that has jobs again."""

    def __init__(self, records: Records, queue: Queue, wake: Callable[[int], None], clock: Clock) -> None:
        self._records = records
        self._queue = queue
        self._wake = wake
        self._clock = clock
        self._head = MESSAGE.first(clock() - HOUR)
        self._lap = ""

    async def round(self) -> int:
        """How many jobs were put again. While storage is away nothing is done."""
        try:
            self._head, headed = await self._walk(self._head)
            self._lap, lapped = await self._walk(self._lap, again=True)
        except Unavailable as error:
            log.warning("reconcile_waits_for_storage", detail=error.detail)
            return 0
        return headed + lapped

    async def _walk(self, cursor: str, *, again: bool = False) -> tuple[str, int]:
        """So many rows from `cursor` on: where to go on from, and how many were put again."""
        recovered = 0
        for _ in range(_STEPS):
            now = self._clock()
            params = (cursor, MESSAGE.first(now - OVERDUE), _ROWS)
            step = await self._records.read(lambda tx, given=params: tx.row(_STEP, *given))
            if step is None or not step[1]:
                return "" if again else cursor, recovered
            overdue = await self._records.read(lambda tx, given=params, at=now: tx.rows(_OVERDUE, *given, at - OVERDUE))
            if overdue:
                recovered += await self._recover(overdue, now)
            last, count = step
            if count < _ROWS:
                return "" if again else last, recovered
            cursor = last
        return cursor, recovered

    async def _recover(self, overdue: Sequence[Row], now: int) -> int:
        """:param overdue: lane, tenant, when it is due, id."""

        async def without_job(tx: Tx) -> list[Row]:
            keys = [(RENDER, *row) for row in overdue]
            waiting = {row[0] for row in await tx.each(_WAITING, keys)}
            rest = [row[3] for row in overdue if row[3] not in waiting]
            # Those at work are due at their lease's end, which only a look at all jobs tells.
            held = {row[0] for row in await tx.rows(_ANYWHERE, rest, RENDER)} if rest else set[str]()
            return [row for row in overdue if row[3] not in waiting and row[3] not in held]

        if not await self._records.read(without_job):
            return 0

        async def put(tx: Tx) -> list[Job]:
            # In this order: a job ends in the transaction that makes its message final.
            lost = {row[3] for row in await without_job(tx)}
            rows = await tx.rows(_STILL_OPEN, sorted(lost)) if lost else []
            # Due when the first recipient is: a job that waits is found by that.
            jobs = {id_: Job(RENDER, lane, tenant, due, id_) for id_, _, lane, tenant, due in rows}
            if jobs:
                await self._queue.put(list(jobs.values()), tx=tx)
                await event_log.append(tx, _events(rows, now))
            return list(jobs.values())

        jobs = await self._records.write(put)
        if jobs:
            RECOVERED.inc(len(jobs))
            log.error("jobs_were_lost", count=len(jobs), first=jobs[0].id)
            for lane in {job.lane for job in jobs}:
                self._wake(lane)
        return len(jobs)


def _events(rows: Sequence[Row], now: int) -> list[event_log.Line]:
    return [
        (id_, rcpt, event_id, now, Type.RECOVERED.value, "reconcile", None)
        for (id_, rcpt, *_), event_id in zip(rows, ids.many("evt", len(rows)), strict=True)
    ]


_OPEN = "state IN ('scheduled', 'queued', 'rendering', 'sending', 'deferred')"
_LOOKED = (
    "SELECT id, lane, tenant_id, state, next_at FROM message WHERE id >= $1 AND id < $2 ORDER BY id, rcpt LIMIT $3"
)
_STEP = f"SELECT max(id), count(*) FROM ({_LOOKED}) AS looked"  # noqa: S608 - constants
_OVERDUE = f"""
SELECT min(lane), min(tenant_id), min(next_at), id FROM ({_LOOKED}) AS looked
WHERE {_OPEN} GROUP BY id HAVING min(next_at) < $4"""  # noqa: S608
_WAITING = """
SELECT v.id FROM {v(stage text, lane int, tenant text, due_at int, id text)} CROSS JOIN job
WHERE job.stage = v.stage AND job.lane = v.lane AND job.tenant = v.tenant AND job.due_at = v.due_at AND job.id = v.id"""
_ANYWHERE = """
SELECT id FROM job WHERE id = ANY($1) AND stage = $2
UNION ALL SELECT id FROM job_buried WHERE id = ANY($1) AND stage = $2"""
_STILL_OPEN = f"""
SELECT id, rcpt, lane, tenant_id, next_at FROM message WHERE id = ANY($1) AND {_OPEN}
ORDER BY next_at DESC, id, rcpt FOR UPDATE"""  # noqa: S608
