"""The log of what was refused in the session: written in the background, lost rather than waited for.

Each has an id, which ends the reply, so that whoever was refused can ask the postmaster, and
the postmaster finds why.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec
import structlog
from prometheus_client import Counter

from posthouse import ids
from posthouse.clock import Clock
from posthouse.errors import Error
from posthouse.smtp.reply import Reply, printable
from posthouse.storage.records.base import Records, Tx

log = structlog.get_logger("accept")

REFUSED = Counter("posthouse_refused_total", "Mail refused in the session.", ["stage", "reason"])
DROPPED = Counter("posthouse_refusals_dropped_total", "Refusals that were not logged, since storage did not keep up.")

MOST_WAITING = 10_000
_BATCH = 256
_PAUSE = 0.5
"""Seconds that refusals gather before they are written."""
_MOST_TEXT = 500

_INSERT = """
INSERT INTO refusal (id, at, tenant_id, peer, helo, reverse_path, recipient, stage, reply, reason, evidence)
SELECT v.id, v.at, v.tenant_id, v.peer, v.helo, v.reverse_path, v.recipient, v.stage, v.reply, v.reason, v.evidence
FROM {v(id text, at int, tenant_id text, peer text, helo text, reverse_path text, recipient text, stage text,
        reply text, reason text, evidence text)}
WHERE true ON CONFLICT DO NOTHING
"""
_FORGET = "DELETE FROM refusal WHERE id IN (SELECT id FROM refusal WHERE id < $1 ORDER BY id LIMIT $2)"


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A row. `tenant_id`: of the recipient's domain, '' when it is not ours. `stage`: connect,
    hello, mail, rcpt or data. `reason`: a code. `evidence`: JSON."""

    tenant_id: str
    peer: str
    helo: str
    reverse_path: str
    recipient: str
    stage: str
    reason: str
    evidence: str | None = None


class Refusals:
    """:param most: refusals that wait to be written; more are dropped and counted."""

    def __init__(self, records: Records, clock: Clock, *, most: int = MOST_WAITING, pause: float = _PAUSE) -> None:
        self._records = records
        self._clock = clock
        self._most = most
        self._pause = pause
        self._waiting: list[tuple[str | int | None, ...]] = []
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self.dropped = 0

    def note(self, refusal: Refusal, reply: Reply) -> Reply:
        """The reply with the refusal's id at its end."""
        id_ = ids.new("rfs")
        REFUSED.labels(refusal.stage, refusal.reason).inc()
        told = Reply(reply.code, reply.enhanced, (*reply.lines[:-1], f"{reply.lines[-1]} ({id_})"))
        if len(self._waiting) >= self._most:
            self.dropped += 1
            DROPPED.inc()
            return told
        row = (id_, self._clock(), *map(_bounded, msgspec.structs.astuple(refusal)[:6]))
        self._waiting.append((*row, _bounded(str(told)), refusal.reason, refusal.evidence))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())
        return told

    async def flush(self) -> None:
        """Until all that wait are written or storage is away."""
        self._closing.set()
        if self._writing is not None:
            await self._writing
        self._closing.clear()

    async def forget(self, before: int, *, most: int = 10_000) -> int:
        """Remove those older than `before` (µs); how many. Ids sort by time."""
        first = f"rfs_{max(0, before) // 1000:012x}"
        return await self._records.write(lambda tx: tx.run(_FORGET, first, most), durable=False)

    async def _write(self) -> None:
        while self._waiting:
            if len(self._waiting) < _BATCH:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause):
                        await self._closing.wait()
            batch = self._waiting[:_BATCH]
            try:
                await self._records.write(lambda tx, batch=batch: _insert(tx, batch), durable=False)
            except Exception as error:
                # Refused mail is not worth waiting for; the next refusal tries again.
                log.warning("refusals_not_logged", detail=getattr(error, "detail", "") or repr(error)[:200])
                if not isinstance(error, Error) or not error.temporary:
                    self.dropped += len(batch)
                    del self._waiting[: len(batch)]
                return
            del self._waiting[: len(batch)]


async def _insert(tx: Tx, rows: list[tuple[str | int | None, ...]]) -> None:
    await tx.run_each(_INSERT, rows)


def _bounded(text: str | None) -> str:
    return printable((text or "")[:_MOST_TEXT])
