"""The submit stage: checked messages → ledger rows, events and render jobs, in one durable step.

Requests that arrive together share the step (group commit): while one is being written the
next ones gather. The answer to each, and under which `Idempotency-Key` it is repeated, is
written in the same transaction, so a crash cannot separate them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from prometheus_client import Counter, Histogram

from posthouse import ids
from posthouse.accounts import idempotency, limits
from posthouse.clock import Clock
from posthouse.errors import Limited, Unavailable
from posthouse.events import log as event_log
from posthouse.events.types import Type
from posthouse.outbound import ledger
from posthouse.storage.queue.base import Job, Queue
from posthouse.storage.records.base import Records, Tx

ACCEPTED = Counter("posthouse_accepted_total", "Messages accepted durably, by lane.", ["lane"])
SUBMIT_BATCH = Histogram(
    "posthouse_submit_batch", "Messages that shared a durable step.", buckets=(1, 4, 16, 64, 256, 1024, 4096, 16384)
)

RENDER = "render"
"""The queue's name of the stage that comes next."""
MOST_IN_STEP = 2000
"""Messages in one durable step, unless one request alone has more."""
BUSY = 8
GATHER = 0.002
"""Seconds that a step waits for more when at least `BUSY` requests wait already: fewer, larger
steps save more than that when it is busy, and a lone request is never held."""
_ACCEPTED = [ACCEPTED.labels(lane) for lane in ("critical", "transactional", "bulk")]


class Submission(msgspec.Struct, frozen=True, gc=False):
    """The messages of one request, ready to be written. `count` of them come off the tenant's
    daily `quota` (0: none). `first` is the answer to keep for its Idempotency-Key."""

    tenant_id: str
    quota: int
    lanes: Mapping[int, int]
    """How many messages go into each lane."""
    shared: Sequence[ledger.NewSubmission]
    messages: Sequence[ledger.NewMessage]
    count: int
    first: idempotency.First | None = None


Result = Exception | bytes | None
"""None: durable; octets: so it is, and was before, with this answer. Else nothing of this
submission was written."""


@dataclass(slots=True)
class _Waiting:
    submission: Submission
    done: asyncio.Future[Result] = field(repr=False)


class Submit:
    def __init__(self, records: Records, queue: Queue, wake: Callable[[int], None], clock: Clock) -> None:
        """:param wake: told each lane that new jobs wait in."""
        self._records = records
        self._queue = queue
        self._wake = wake
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._flusher: asyncio.Task[None] | None = None

    async def __call__(self, submission: Submission) -> bytes | None:
        """Returns when it is on disk; with an answer where an earlier request with its key is to
        be answered.

        :raises Limited: code `daily_quota`.
        :raises Conflict: the Idempotency-Key was used meanwhile, by another process.
        :raises StorageUnavailable: it is not known to be written; repeating it is safe only
            with an Idempotency-Key, like every request without an answer.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(submission, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        result = await done
        if isinstance(result, Exception):
            raise result
        return result

    async def _flush(self) -> None:
        while self._waiting:
            if len(self._waiting) >= BUSY:
                await asyncio.sleep(GATHER)
            batch = self._next()
            try:
                await self._write(batch)
            except Exception as error:  # each request gets it as its own
                for waiting in batch:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        count = 0
        while self._waiting and (not batch or count + self._waiting[0].submission.count <= MOST_IN_STEP):
            waiting = self._waiting.popleft()
            if waiting.done.cancelled():
                continue
            count += waiting.submission.count
            batch.append(waiting)
            if len(batch) == MOST_IN_STEP:
                break
        return batch

    async def _write(self, batch: list[_Waiting]) -> None:
        try:
            results = await self._step([waiting.submission for waiting in batch])
        except Unavailable:
            raise
        except Exception:  # one of them is refused: which?
            if len(batch) == 1:
                raise
            for waiting in batch:
                await self._write_alone(waiting)
            return
        for waiting, result in zip(batch, results, strict=True):
            self._finish(waiting, result)

    async def _write_alone(self, waiting: _Waiting) -> None:
        try:
            result = (await self._step([waiting.submission]))[0]
        except Unavailable:
            raise
        except Exception as error:
            result = error
        self._finish(waiting, result)

    def _finish(self, waiting: _Waiting, result: Result) -> None:
        submission = waiting.submission
        if not isinstance(result, Exception):
            for lane, count in submission.lanes.items():
                _ACCEPTED[lane].inc(count)
                self._wake(lane)
        if not waiting.done.done():
            waiting.done.set_result(result)

    async def _step(self, submissions: Sequence[Submission]) -> list[Result]:
        now = self._clock()

        async def work(tx: Tx) -> list[Result]:
            results: list[Result] = [await self._charge(tx, submission, now) for submission in submissions]
            taken = [one for one, result in zip(submissions, results, strict=True) if result is None]
            firsts = [one.first for one in taken if one.first is not None]
            if firsts:
                await idempotency.save(tx, firsts)
            messages = [message for one in taken for message in one.messages]
            if messages:
                await ledger.insert(tx, [row for one in taken for row in one.shared], messages)
                await event_log.append(tx, _accepted(messages))
                await self._queue.put(render_jobs(messages), tx=tx)
            return results

        results = await self._records.write(work)
        SUBMIT_BATCH.observe(sum(one.count for one in submissions))
        return results

    async def _charge(self, tx: Tx, submission: Submission, now: int) -> Result:
        if submission.quota == 0 or submission.count == 0:
            return None
        try:
            await limits.charge(tx, submission.tenant_id, submission.count, submission.quota, now=now)
        except Limited as error:
            return error
        return None


def _accepted(messages: Sequence[ledger.NewMessage]) -> list[event_log.Line]:
    return [
        (row[0], row[1], event_id, row[9], Type.ACCEPTED.value, "submit", None)
        for row, event_id in zip(messages, ids.many("evt", len(messages)), strict=True)
    ]


def render_jobs(messages: Sequence[ledger.NewMessage]) -> list[Job]:
    """One for each message, whatever its recipients; it waits until the message is due."""
    return [Job(RENDER, row[5], row[2], row[10], row[0]) for row in messages if row[1] == 0]
