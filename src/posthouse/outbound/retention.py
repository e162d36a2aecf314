"""Messages and events that are old enough are forgotten: in whole parts where the tables have
parts, row by row and in bounded steps elsewhere and for what strayed from its part.

A message that is not final is kept, however old, and its events and request with it. What a
request laid into the blob store goes when no message that is kept can name it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Counter

from posthouse.clock import HOUR, Clock
from posthouse.errors import Unavailable
from posthouse.storage import blob_uses
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.records.partitions import EVENT, MESSAGE, SUBMISSION, WEEK, Part, Partitions, Table, moment_of

log = structlog.get_logger("retention")

FORGOTTEN = Counter("posthouse_forgotten_total", "Rows, parts and blobs that grew older than they are kept.", ["what"])

_MOST = 1000
_STEPS = 50
_LOOKED_AT = 20_000
"""Rows of a part looked at in one statement, to see whether all are final."""
_LOOKS = 100


class Retention:
    """:param messages, events: µs that each is kept; events no longer than messages.
    :param still: whether this is our work yet; see `blob_uses.collect`."""

    def __init__(
        self,
        records: Records,
        blobs: Blobs,
        clock: Clock,
        *,
        messages: int,
        events: int,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._clock = clock
        self._messages = messages
        self._events = min(events, messages)
        self._still = still
        self._parts = Partitions(records, clock) if records.capabilities.engine == "postgresql" else None
        self._looked: dict[tuple[int, int], str | None] = {}  # ids up to which all are final; None: all
        self._next_at = 0

    async def round(self) -> None:
        """Once an hour; while storage is away nothing is forgotten."""
        if self._clock() < self._next_at:
            return
        try:
            await self.forget()
        except Unavailable as error:
            log.warning("retention_waits_for_storage", detail=error.detail)
        else:
            self._next_at = self._clock() + HOUR

    async def forget(self) -> None:
        """:raises StorageUnavailable: some of it is done."""
        now = self._clock()
        old, old_events = now - self._messages, now - self._events
        if self._parts is not None:
            await self._drop(EVENT, old_events)
            await self._drop(MESSAGE, old)
            # What is older than a part that could not go, or strayed, goes row by row, later.
            old, old_events = old - 2 * WEEK, old_events - 2 * WEEK
        await self._until_little("events", lambda: self._delete(_OLD_EVENTS, EVENT.first(old_events)))
        await self._until_little("messages", lambda: self._delete(_OLD_MESSAGES, MESSAGE.first(old)))
        await self._requests(now - self._messages)
        await self._until_little("blobs", lambda: self._collect(now))

    async def _drop(self, table: Table, before: int) -> None:
        assert self._parts is not None
        for part in await self._parts.parts(table):
            if part.upper <= before and await self._all_final(part):
                await self._parts.drop(part)
                FORGOTTEN.labels(f"{table.name}_parts").inc()

    async def _all_final(self, part: Part) -> bool:
        """Whether no message of these weeks is under way: looked at once, some each round."""
        span = (part.lower, part.upper)
        cursor = self._looked.get(span, MESSAGE.first(part.lower) if part.lower else "")
        for _ in range(_LOOKS):
            if cursor is None:
                break
            row = await self._records.read(
                lambda tx, at=cursor: tx.row(_LOOK, at, MESSAGE.first(part.upper), _LOOKED_AT)
            )
            assert row is not None
            last, waiting, count = row
            if waiting is not None:
                log.warning("partition_kept", part=part.name, not_final=waiting)
                cursor = waiting
                break
            cursor = last if count == _LOOKED_AT else None
        self._looked[span] = cursor
        return cursor is None

    async def _requests(self, before: int) -> None:
        """Requests older than the oldest message that is kept."""
        row = await self._records.read(lambda tx: tx.row("SELECT min(id) FROM message"))
        if row is not None and row[0] is not None:
            before = min(before, _moment(row[0]) - HOUR)
        if self._parts is not None:
            for part in await self._parts.parts(SUBMISSION):
                if part.upper <= before:
                    await self._parts.drop(part)
                    FORGOTTEN.labels("submission_parts").inc()
            before -= WEEK
        await self._until_little("submissions", lambda: self._delete(_OLD_SUBMISSIONS, SUBMISSION.first(before)))

    async def _collect(self, now: int) -> int:
        before = now - self._messages
        row = await self._records.read(lambda tx: tx.row("SELECT min(id) FROM submission"))
        if row is not None and row[0] is not None:
            before = min(before, _moment(row[0]))
        return await blob_uses.collect(
            self._records, self._blobs, before - blob_uses.SPARE, now=now, most=_MOST, still=self._still
        )

    async def _delete(self, statements: tuple[str, str], before: str) -> int:
        find, delete = statements

        async def work(tx: Tx) -> int:
            old: list[Row] = await tx.rows(find, before, _MOST)
            if old:
                await tx.run_each(delete, old)
            return len(old)

        return await self._records.write(work, durable=False)

    async def _until_little(self, what: str, step: Callable[[], Awaitable[int]]) -> None:
        for _ in range(_STEPS):
            count = await step()
            FORGOTTEN.labels(what).inc(count)
            if count < _MOST:
                return


def _moment(id_: str) -> int:
    """An id that holds no time keeps everything."""
    try:
        return moment_of(id_)
    except ValueError:
        return 0


_OPEN = "state IN ('scheduled', 'queued', 'rendering', 'sending', 'deferred')"
_LOOK = f"""
SELECT max(id), min(CASE WHEN {_OPEN} THEN id END), count(*)
FROM (SELECT id, state FROM message WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3) AS looked"""  # noqa: S608
_OLD_MESSAGES = (
    f"""
SELECT m.id, m.rcpt FROM message m WHERE m.id < $1
  AND NOT EXISTS (SELECT 1 FROM message o WHERE o.id = m.id AND o.{_OPEN})
ORDER BY m.id, m.rcpt LIMIT $2""",  # noqa: S608
    "DELETE FROM message WHERE (id, rcpt) IN (SELECT v.id, v.rcpt FROM {v(id text, rcpt int)})",
)
_OLD_EVENTS = (
    f"""
SELECT e.message_id, e.rcpt, e.id FROM event e WHERE e.message_id < $1
  AND NOT EXISTS (SELECT 1 FROM message o WHERE o.id = e.message_id AND o.{_OPEN})
ORDER BY e.message_id, e.rcpt, e.id LIMIT $2""",  # noqa: S608
    """DELETE FROM event WHERE (message_id, rcpt, id) IN
    (SELECT v.message_id, v.rcpt, v.id FROM {v(message_id text, rcpt int, id text)})""",
)
_OLD_SUBMISSIONS = (
    "SELECT id FROM submission WHERE id < $1 ORDER BY id LIMIT $2",
    "DELETE FROM submission WHERE id IN (SELECT v.id FROM {v(id text)})",
)
