"""The end of every attempt: the ledger row, its events, the suppression it earned and the
job's fate, in one durable step, for all attempts that end at about the same time.

`Recorder.record` returns when it is on disk. A connection awaits it before its next message,
so when storage is away nothing more is sent: a mail that was delivered and cannot be
recorded would be sent twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog
from prometheus_client import Counter, Histogram

from posthouse import ids
from posthouse.clock import SECOND
from posthouse.errors import Unavailable
from posthouse.events import log as event_log
from posthouse.events.types import Type
from posthouse.outbound import ledger
from posthouse.outbound.ledger import Due
from posthouse.outbound.model import FINAL, State
from posthouse.storage.queue.base import Job, Queue
from posthouse.storage.records.base import Records, Tx

log = structlog.get_logger("outbound")

OUTCOMES = Counter("posthouse_outcomes_total", "Transitions of recipients, by state.", ["state"])
RECORD_BATCH = Histogram(
    "posthouse_record_batch", "Outcomes that shared a durable step.", buckets=(1, 4, 16, 64, 256, 1024, 4096)
)
LATENCY = Histogram(
    "posthouse_delivery_seconds",
    "From when a message was due to its final state.",
    ["lane"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300, 3600, 14400, 86400, 259200),
)

EVENT_OF = {state: Type(state.value) for state in FINAL | {State.DEFERRED}}
"""The event of a transition into a state."""

MOST_IN_STEP = 1000
"""Entries in one durable step."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """One recipient's transition. `data` and `reply` are JSON. A put-back has no event: the
    mail was not attempted and only waits, so `attempts` is as before."""

    due: Due
    state: State
    at: int
    attempts: int
    next_at: int
    stage: str = "send"
    event: Type | None = None
    data: str | None = None
    reply: str | None = None
    suppress: str | None = None
    """Evidence, when the address is to be suppressed."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What ends together for one job. `again_at` None: the job is done; `open`: other
    recipients of the message are still under way, so the job stays leased."""

    job: Job
    outcomes: Sequence[Outcome]
    again_at: int | None = None
    open: bool = False
    relayed: bool = False
    """It came from the receiving flow, which holds its content until it has ended."""
    events: Sequence[tuple[str, int, int, str, str, str | None]] = ()
    """Earlier transitions to write along: message_id, rcpt, at, type, stage, data."""


class LeaseLost(Exception):
    """Somebody else holds the job now: nothing of this entry may be written."""


Suppress = Callable[[Tx, Sequence[Outcome]], Awaitable[None]]
Relayed = Callable[[Tx, Sequence[str], Sequence[Outcome]], Awaitable[None]]
"""Messages of the receiving flow: ids of those that have ended, and outcomes that failed for good."""


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    done: asyncio.Future[bool] = field(repr=False)
    lines: Sequence[event_log.Line] | None = None
    """Its events with their ids, given out once: a step that is repeated because nobody knows
    whether it was written writes the same rows again, and that is once."""


class Recorder:
    def __init__(
        self,
        records: Records,
        queue: Queue,
        suppress: Suppress,
        *,
        current: Callable[[Job], Job],
        release: Callable[[Job], None],
        leases: asyncio.Lock,
        relayed: Relayed | None = None,
    ) -> None:
        self._relayed = relayed
        self._records = records
        self._queue = queue
        self._suppress = suppress
        self._current = current
        self._release = release
        self._leases = leases
        self._waiting: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None

    def record(self, entry: Entry) -> asyncio.Future[bool]:
        """Resolves when the entry is durable: False when the lease was lost, so nothing of it
        was written. Never fails while storage is away: it waits."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(entry, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        return done

    async def drain(self, timeout: float) -> None:
        """Waits until all is on disk, so many seconds at most; what is not then is attempted
        again by whoever claims its job next."""
        if self._flusher is not None and not self._flusher.done():
            await asyncio.wait([self._flusher], timeout=timeout)
        if self._waiting:
            log.error("outcomes_not_recorded", entries=len(self._waiting))

    async def _flush(self) -> None:
        pause = 0.1
        while self._waiting:
            batch = self._waiting[:MOST_IN_STEP]
            try:
                async with self._leases:
                    await self._write(batch)
                pause = 0.1
            except Unavailable as error:
                log.warning("record_waits_for_storage", entries=len(batch), detail=error.detail)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _write(self, batch: list[_Waiting]) -> None:
        """Together; when one of them cannot be written, each by itself.

        :raises Unavailable: those that are not written yet wait on.
        """
        try:
            await self._step([waiting.entry for waiting in batch], _lines(batch))
        except Unavailable:
            raise
        except Exception:  # a lost lease, or an entry that storage does not take
            for waiting in batch:
                self._finish([waiting], written=await self._write_alone(waiting))
            return
        RECORD_BATCH.observe(len(batch))
        self._finish(batch, written=True)

    async def _write_alone(self, waiting: _Waiting) -> bool:
        entry = waiting.entry
        try:
            await self._step([entry], _lines([waiting]))
        except Unavailable:
            raise
        except LeaseLost:
            log.warning("lease_lost", message_id=entry.job.id)
            return False
        except Exception as error:
            log.exception("outcome_refused", message_id=entry.job.id, error=type(error).__name__)
            return await self._write_bare(waiting, error)
        return True

    async def _write_bare(self, waiting: _Waiting, error: Exception) -> bool:
        """The states alone. When even they are refused the job is set aside for people: were it
        left to its lease, it would be sent again and again."""
        entry = waiting.entry
        plain = [msgspec.structs.replace(outcome, data=None, reply=None, suppress=None) for outcome in entry.outcomes]
        bare = _lines([waiting])[len(entry.events) :]  # the outcomes' own
        try:
            await self._step(
                [Entry(entry.job, plain, entry.again_at, entry.open, entry.relayed)],
                [(*line[:6], None) for line in bare],
            )
        except Unavailable:
            raise
        except LeaseLost:
            return False
        except Exception:
            reason = f"its outcome could not be recorded ({type(error).__name__})"
            await self._queue.bury([(self._current(entry.job), reason)])
            log.exception("job_buried", message_id=entry.job.id)
            return False
        return True

    def _finish(self, batch: list[_Waiting], *, written: bool) -> None:
        """`batch` is the head of what waits."""
        del self._waiting[: len(batch)]
        for waiting in batch:
            entry = waiting.entry
            if not entry.open:
                self._release(entry.job)
            if written:
                _count(entry.outcomes)
            if not waiting.done.done():
                waiting.done.set_result(written)

    async def _step(self, entries: Sequence[Entry], lines: Sequence[event_log.Line]) -> None:
        """One transaction. The jobs go first: a lost lease undoes all of it."""
        gone = [self._current(entry.job) for entry in entries if not entry.open and entry.again_at is None]
        back = [
            (self._current(entry.job), entry.again_at)
            for entry in entries
            if not entry.open and entry.again_at is not None
        ]
        settlements = [_settlement(outcome) for entry in entries for outcome in entry.outcomes]
        suppressed = [outcome for entry in entries for outcome in entry.outcomes if outcome.suppress is not None]

        relayed = [entry for entry in entries if entry.relayed]

        async def work(tx: Tx) -> None:
            if gone and await self._queue.done(gone, tx=tx) != len(gone):
                raise LeaseLost
            if back and await self._queue.later(back, tx=tx) != len(back):
                raise LeaseLost
            await ledger.settle(tx, settlements)
            await event_log.append(tx, lines)
            if suppressed:
                await self._suppress(tx, suppressed)
            if relayed and self._relayed is not None:
                await self._relayed(tx, *_ends(relayed))

        await self._records.write(work)


_UNDELIVERED = {State.BOUNCED, State.FAILED, State.SUPPRESSED}


def _ends(entries: Sequence[Entry]) -> tuple[list[str], list[Outcome]]:
    ended = [entry.job.id for entry in entries if not entry.open and entry.again_at is None]
    failed = [one for entry in entries for one in entry.outcomes if one.state in _UNDELIVERED]
    return ended, failed


def _settlement(outcome: Outcome) -> ledger.Settlement:
    due = outcome.due
    return (due.id, due.rcpt, outcome.state.value, outcome.attempts, outcome.at, outcome.reply, outcome.next_at)


def _lines(batch: Sequence[_Waiting]) -> list[event_log.Line]:
    """Event rows; ids ascend within a message because they are given out in order."""
    fresh = [waiting for waiting in batch if waiting.lines is None]
    plain = [_transitions(waiting.entry) for waiting in fresh]
    names = iter(ids.many("evt", sum(map(len, plain))))
    for waiting, rows in zip(fresh, plain, strict=True):
        waiting.lines = [
            (message, rcpt, next(names), at, kind, stage, data) for message, rcpt, at, kind, stage, data in rows
        ]
    return [line for waiting in batch for line in waiting.lines or ()]


def _transitions(entry: Entry) -> list[tuple[str, int, int, str, str, str | None]]:
    """Earlier ones first."""
    return [
        *entry.events,
        *((o.due.id, o.due.rcpt, o.at, o.event.value, o.stage, o.data) for o in entry.outcomes if o.event is not None),
    ]


def _count(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.event is None:
            continue
        OUTCOMES.labels(outcome.state.value).inc()
        if outcome.state in FINAL:
            LATENCY.labels(_LANES[outcome.due.lane]).observe((outcome.at - outcome.due.due_at) / SECOND)


_LANES = ("critical", "transactional", "bulk")
