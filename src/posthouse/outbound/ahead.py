"""Submit ahead of the ledger: 202 after the queue has it durably, the ledger's rows by a stage.

For a queue that takes many times what the records can (Kafka). One job a request part carries
the rows; `Record` writes them. Both are safe to repeat: rows and events go by their ids, and
a render job that was put twice finds its message ended.

With an `Idempotency-Key`: the key is claimed in the records with its answer, the jobs are put,
the claim is completed. A process that dies in between leaves a claim; who asks again takes it
over and puts the same ids again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from posthouse import ids
from posthouse.accounts import idempotency
from posthouse.accounts.reserve import Reserve
from posthouse.clock import Clock
from posthouse.errors import Limited, Unavailable
from posthouse.events import log as event_log
from posthouse.events.types import Type
from posthouse.outbound import ledger
from posthouse.outbound.submit import SUBMIT_BATCH, Result, Submission, Submit, render_jobs
from posthouse.storage.queue.base import Job, Queue
from posthouse.storage.records.base import Records, Tx

SUBMIT = "submit"
"""The queue's name of the stage that writes the ledger."""
MOST_IN_PART = 500
"""Messages in one job."""


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The payload: rows as `ledger.insert` takes them. All of one lane."""

    shared: list[ledger.NewSubmission]
    messages: list[ledger.NewMessage]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Part).decode
_answer = msgspec.json.Decoder().decode


class SubmitAhead(Submit):
    """`Submit` whose durable step is the queue's."""

    def __init__(self, records: Records, queue: Queue, wake: Callable[[int], None], clock: Clock) -> None:
        super().__init__(records, queue, wake, clock)
        self._reserve = Reserve(records, clock)

    async def _step(self, submissions: Sequence[Submission]) -> list[Result]:
        results: list[Result] = [await self._charged(one) for one in submissions]
        fine = [place for place, result in enumerate(results) if result is None]
        firsts = [first for place in fine if (first := submissions[place].first) is not None]
        claimed = await self._records.write(lambda tx: idempotency.claim(tx, firsts)) if firsts else {}
        taken: list[Submission] = []
        for place in fine:
            one = submissions[place]
            answer = claimed[one.first.tenant_id, one.first.key].answer if one.first is not None else b""
            if one.first is not None and answer != one.first.answer:
                one, results[place] = as_before(one, one.first.answer, answer), answer
            taken.append(one)
        try:
            await self._queue.put(_jobs(taken, self._clock()))
        except Unavailable:
            await self._give_up(firsts)
            raise
        if firsts:
            await self._records.write(lambda tx: idempotency.complete(tx, firsts), durable=False)
        SUBMIT_BATCH.observe(sum(one.count for one in submissions))
        return results

    async def _give_up(self, firsts: Sequence[idempotency.First]) -> None:
        """Whether the jobs lie in the queue is not known: who asks again puts the same ids."""
        if firsts:
            with suppress(Unavailable):
                await self._records.write(lambda tx: idempotency.abandon(tx, firsts), durable=False)

    async def _charged(self, submission: Submission) -> Result:
        if submission.quota == 0 or submission.count == 0:
            return None
        try:
            await self._reserve.charge(submission.tenant_id, submission.count, submission.quota)
        except Limited as error:
            return error
        return None


def as_before(submission: Submission, answer: bytes, first: bytes) -> Submission:
    """The submission under the ids of the answer that was claimed first.

    :raises Conflict: the same request leads to other messages now (a domain lost its
        verification, say): code `idempotency_in_flight`.
    """
    now, before = _ids_in(answer), _ids_in(first)
    if len(now) != len(before):
        raise idempotency.in_flight()
    names = dict(zip(now, before, strict=True))
    return msgspec.structs.replace(submission, messages=[(names[row[0]], *row[1:]) for row in submission.messages])


def _ids_in(answer: bytes) -> list[str]:
    said: dict[str, Any] = _answer(answer)
    items: list[dict[str, Any]] = said.get("results", [said])
    return [item["id"] for item in items if "id" in item]


def _jobs(submissions: Sequence[Submission], now: int) -> list[Job]:
    """Under one key, so that they lie together (in one partition, which costs the brokers one write);
    the next ones go elsewhere."""
    parts = [part for one in submissions for part in _parts(one)]
    key = parts[0][2].messages[0][0] if parts else ""
    return [
        Job(SUBMIT, lane, tenant, now, part.messages[0][0], payload=_encode(part).decode(), key=key)
        for lane, tenant, part in parts
    ]


def _parts(submission: Submission) -> list[tuple[int, str, Part]]:
    """By lane, with the tenant; self-contained: each with the shared rows of its messages."""
    shared = {row[0]: row for row in submission.shared}
    by_lane: dict[int, list[ledger.NewMessage]] = {}
    for row in submission.messages:
        by_lane.setdefault(row[5], []).append(row)
    parts: list[tuple[int, str, Part]] = []
    for lane, rows in by_lane.items():
        for part in _in_parts(rows):
            parents = list(dict.fromkeys(row[3] for row in part))
            parts.append((lane, submission.tenant_id, Part([shared[name] for name in parents], part)))
    return parts


def _in_parts(rows: Sequence[ledger.NewMessage]) -> list[list[ledger.NewMessage]]:
    """A message's recipients stay together."""
    parts: list[list[ledger.NewMessage]] = [[]]
    for row in rows:
        if len(parts[-1]) >= MOST_IN_PART and row[1] == 0:
            parts.append([])
        parts[-1].append(row)
    return parts


class Record:
    """The stage: parts of requests → ledger rows, `accepted` events, render jobs."""

    def __init__(
        self,
        records: Records,
        queue: Queue,
        *,
        wake: Callable[[int], None],
        current: Callable[[Job], Job],
        release: Callable[[Job], None],
        leases: asyncio.Lock,
        clock: Clock,
    ) -> None:
        """:param wake: the render stage's; the others: of the worker that runs this."""
        self._records = records
        self._queue = queue
        self._wake = wake
        self._current = current
        self._release = release
        self._leases = leases
        self._clock = clock

    async def __call__(self, jobs: Sequence[Job]) -> None:
        """The jobs are done only when the render jobs lie in their topics: this stage's own jobs
        are their outbox. A crash in between repeats it, and all of it goes by ids.

        :raises StorageUnavailable: the jobs come back.
        """
        parts = [_decode(job.payload or "") for job in jobs]
        shared = [row for part in parts for row in part.shared]
        messages = [row for part in parts for row in part.messages]
        now = self._clock()
        wanted = render_jobs(messages)
        waiting = [job for job in wanted if job.due_at > now]

        async def work(tx: Tx) -> None:
            await ledger.insert(tx, shared, messages)
            await event_log.append(tx, _accepted(messages))
            if waiting:
                await self._queue.put(waiting, tx=tx)

        await self._records.write(work)
        await self._queue.put([job for job in wanted if job.due_at <= now])
        async with self._leases:
            held = [self._current(job) for job in jobs]
            await self._records.write(lambda tx: self._queue.done(held, tx=tx), durable=False)
            for job in jobs:
                self._release(job)
        for lane in {row[5] for row in messages}:
            self._wake(lane)


def _accepted(messages: Sequence[ledger.NewMessage]) -> list[event_log.Line]:
    """Under ids that follow from the message's: a repeat writes none twice."""
    return [
        (row[0], row[1], ids.derived("evt", row[0], f"accepted {row[1]}"), row[9], Type.ACCEPTED.value, "submit", None)
        for row in messages
    ]


class Recorded:
    """Whether a message that nobody finds may be on its way to the ledger."""

    def __init__(self, queue: Queue, clock: Clock, *, patience: float = 2.0) -> None:
        """:param patience: seconds that a reader waits for the ledger."""
        self._queue = queue
        self._clock = clock
        self._patience = patience

    def may_come(self, message_id: str) -> bool:
        """An id of the last `FRESH` seconds."""
        if not ids.is_id(message_id, "msg"):
            return False
        age = self._clock() // 1000 - int(message_id[4:16], 16)
        return -FRESH * 1000 <= age <= FRESH * 1000

    async def wait(self, found: Callable[[], Awaitable[bool]]) -> bool:
        """Ask `found` until it says yes, or there is nothing to wait for.

        :raises Unavailable: code `message_being_recorded`.
        """
        pause, left = 0.02, self._patience
        while left > 0:
            await asyncio.sleep(pause)
            left -= pause
            pause = min(pause * 2, 0.25)
            if await found():
                return True
        if any(depth.stage == SUBMIT and depth.ready for depth in await self._queue.depths()):
            raise being_recorded()
        return await found()


FRESH = 3600
"""Seconds, and as much ahead, for clocks that differ."""


def being_recorded() -> Unavailable:
    return Unavailable(
        "Messages that were accepted are still being recorded; look again in a moment",
        code="message_being_recorded",
        retry_after=2,
    )
