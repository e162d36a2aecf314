"""What receiving has to forget now and then: its log, refusals, greylisting, old changes, contents
that nobody refers to. In bounded steps, a round a minute; what is left over waits for the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from posthouse.clock import DAY, SECOND, Clock
from posthouse.errors import Unavailable
from posthouse.inbound.greylist import Greylist
from posthouse.inbound.refusals import Refusals
from posthouse.storage.contents import Contents
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.partitions import INBOUND_RCPT, REFUSAL, WEEK, Part, Partitions

log = structlog.get_logger("housekeeping")

KEPT_CHANGES = 50_000
"""Changes of an account that clients can still catch up with; more are cut at twice as many."""
ANSWERED_FOR = 90 * DAY
_MOST = 2000
_STEPS = 50
_HOUR = 3600 * SECOND

_OLD = """
SELECT i.id FROM inbound i WHERE i.id < $1
  AND NOT EXISTS (SELECT 1 FROM inbound_rcpt r WHERE r.inbound_id = i.id AND r.state = 'accepted')
ORDER BY i.id LIMIT $2"""
_LOOKED_AT = 20_000
_LOOK = """
SELECT max(inbound_id), count(CASE WHEN state = 'accepted' THEN 1 END), count(*)
FROM (SELECT inbound_id, state FROM inbound_rcpt WHERE inbound_id >= $1 AND inbound_id < $2
      ORDER BY inbound_id LIMIT $3) AS looked"""
_FORGET_RCPT = "DELETE FROM inbound_rcpt WHERE inbound_id = ANY($1)"
_FORGET = "DELETE FROM inbound WHERE id = ANY($1)"
_LONG = "SELECT number FROM account WHERE modseq - change_floor > $1 LIMIT 100"
_FLOOR = """
UPDATE account SET change_floor = modseq - $2 WHERE number = $1 AND modseq - change_floor > $2
RETURNING change_floor"""
_CUT_CHANGES = "DELETE FROM change WHERE account = $1 AND modseq <= $2"
_CUT_EXPUNGED = "DELETE FROM expunged WHERE account = $1 AND modseq <= $2"
_UNANSWER = "DELETE FROM answered WHERE at < $1"


class Housekeeping:
    """:param kept: µs that the log of received and refused mail is kept."""

    def __init__(
        self,
        records: Records,
        contents: Contents,
        refusals: Refusals,
        greylist: Greylist,
        clock: Clock,
        *,
        kept: int,
        kept_changes: int = KEPT_CHANGES,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """:param still: whether this is our work yet; see `Contents.collect`."""
        self._still = still
        self._parts = Partitions(records, clock) if records.capabilities.engine == "postgresql" else None
        # What lies in parts goes with them; what they leave goes row by row, later.
        self._late = kept + (2 * WEEK if self._parts is not None else 0)
        self._records = records
        self._contents = contents
        self._refusals = refusals
        self._greylist = greylist
        self._clock = clock
        self._kept = kept
        self._kept_changes = kept_changes
        self._hourly_at = 0

    async def round(self) -> None:
        """While storage is away nothing is forgotten."""
        try:
            await self._until_little(lambda: self._refusals.forget(self._clock() - self._late, most=_MOST))
            await self._until_little(lambda: self._greylist.forget(most=_MOST))
            await self._until_little(self._forget_log)
            await self._until_little(lambda: self._contents.collect(most=_MOST, still=self._still))
            if self._clock() >= self._hourly_at:
                self._hourly_at = self._clock() + _HOUR
                await self._hourly()
        except Unavailable as error:
            log.warning("housekeeping_waits_for_storage", detail=error.detail)

    async def _until_little(self, step: Callable[[], Awaitable[int]]) -> None:
        for _ in range(_STEPS):
            if await step() < _MOST:
                return

    async def _forget_log(self) -> int:
        before = f"inb_{max(0, self._clock() - self._late) // 1000:012x}"

        async def work(tx: Tx) -> int:
            old = [name for (name,) in await tx.rows(_OLD, before, _MOST)]
            if old:
                await tx.run(_FORGET_RCPT, old)
                await tx.run(_FORGET, old)
            return len(old)

        return await self._records.write(work, durable=False)

    async def _drop_parts(self, parts: Partitions) -> None:
        before = self._clock() - self._kept
        for part in await parts.parts(REFUSAL):
            if part.upper <= before:
                await parts.drop(part)
        for part in await parts.parts(INBOUND_RCPT):
            if part.upper <= before and not await self._accepted_in(part):
                await parts.drop(part)

    async def _accepted_in(self, part: Part) -> bool:
        """Whether mail of these weeks has still to be stored; its log is kept."""
        cursor = part.table.first(part.lower) if part.lower else ""
        while True:
            row = await self._records.read(
                lambda tx, at=cursor: tx.row(_LOOK, at, part.table.first(part.upper), _LOOKED_AT)
            )
            assert row is not None
            last, accepted, count = row
            if accepted:
                log.warning("partition_kept", part=part.name, accepted=accepted)
                return True
            if count < _LOOKED_AT:
                return False
            cursor = last

    async def _hourly(self) -> None:
        if self._parts is not None:
            await self._drop_parts(self._parts)
        await self._records.write(lambda tx: tx.run(_UNANSWER, self._clock() - ANSWERED_FOR), durable=False)
        for (account,) in await self._records.read(lambda tx: tx.rows(_LONG, 2 * self._kept_changes)):
            await self._records.write(lambda tx, account=account: self._cut(tx, account))

    async def _cut(self, tx: Tx, account: int) -> None:
        row = await tx.row(_FLOOR, account, self._kept_changes)
        if row is not None:
            await tx.run(_CUT_CHANGES, account, row[0])
            await tx.run(_CUT_EXPUNGED, account, row[0])
