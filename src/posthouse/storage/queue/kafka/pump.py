"""Moves rows of the table `job` that are due into their topics.

A crash between produce and commit leaves a second record of the same job in the same
partition, which is harmless: stages are safe to repeat for the same id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from posthouse.errors import Error
from posthouse.storage.queue.base import Job
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Row, Tx

log = structlog.get_logger("queue")

LEASE = 30.0
"""Seconds after which another pump takes over what one took and died with."""
_AT_ONCE = 512
_POLL = 0.2
_SOON = 0.002

_WHERE = """
    WITH RECURSIVE place (stage, lane) AS (
        SELECT * FROM (SELECT stage, lane FROM job ORDER BY stage, lane LIMIT 1) AS first
        UNION ALL
        SELECT (SELECT job.stage FROM job WHERE (job.stage, job.lane) > (place.stage, place.lane)
                ORDER BY job.stage, job.lane LIMIT 1),
               (SELECT job.lane FROM job WHERE (job.stage, job.lane) > (place.stage, place.lane)
                ORDER BY job.stage, job.lane LIMIT 1)
        FROM place WHERE place.stage IS NOT NULL
    )
    SELECT stage, lane FROM place WHERE stage IS NOT NULL"""


class Pump:
    def __init__(
        self, records: Records, parked: RecordsQueue, produce: Callable[[Sequence[Job]], Awaitable[None]]
    ) -> None:
        """:param produce: durable on return."""
        self._records = records
        self._parked = parked
        self._produce = produce
        self._hints: set[tuple[str, int]] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._moving = asyncio.Lock()

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def soon(self, places: set[tuple[str, int]]) -> None:
        """A transaction that may not be committed yet put jobs there that are due."""
        self._hints |= places
        self._wake.set()

    async def _run(self) -> None:
        """Looked for everywhere now and then, and soon, again and again, where a hint says so."""
        pause = _POLL
        while not self._stopping:
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass
            else:
                self._wake.clear()
                pause = _SOON
                await asyncio.sleep(_SOON)
            hints, self._hints = self._hints, set()
            try:
                moved = await self.move(hints) if pause < _POLL else await self.move()
            except Error as error:
                log.warning("parked_jobs_wait", detail=error.detail)
                await asyncio.sleep(1)
                continue
            if moved:
                pause = _SOON
                self._hints |= hints
            else:
                pause = min(pause * 2, _POLL)
                self._hints |= hints if pause < _POLL else set()

    async def move(self, places: set[tuple[str, int]] | None = None) -> int:
        """One round, after one that is under way; how many were moved.

        :raises StorageUnavailable: they wait on.
        """
        moved = 0
        async with self._moving:
            for stage, lane in sorted(await self._records.read(_places) if places is None else places):
                jobs = await self._parked.take_due(stage, lane, _AT_ONCE, lease=LEASE)
                if jobs:
                    await self._send(jobs)
                    moved += len(jobs)
        return moved

    async def _send(self, taken: list[tuple[Job, int]]) -> None:
        held = [job for job, _ in taken]
        try:
            await self._produce([_as_put(job, due_at) for job, due_at in taken])
        except Error:
            await self._parked.later(taken)
            raise
        await self._records.write(lambda tx: self._parked.done(held, tx=tx), durable=False)

    async def close(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=15)


def _as_put(job: Job, due_at: int) -> Job:
    """As it was before we took it."""
    return Job(job.stage, job.lane, job.tenant, due_at, job.id, job.attempts - 1, job.payload, job.key)


async def _places(tx: Tx) -> set[tuple[str, int]]:
    rows: list[Row] = await tx.rows(_WHERE)
    return {(stage, lane) for stage, lane in rows}
