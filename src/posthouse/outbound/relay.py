"""The relay stage: messages that the receiving flow handed over → ledger rows and render jobs.

From then on they are messages like any other: suppression, routes, retries and explain are
the same. Their bytes came whole, so render only fetches them. What holds their content (the
row in `relayed`) is let go when they have ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from posthouse import ids
from posthouse.accounts.model import Stream
from posthouse.accounts.streams import DEFAULT, Streams
from posthouse.clock import SECOND, Clock
from posthouse.errors import Unavailable
from posthouse.events import handover as handovers
from posthouse.events import log as event_log
from posthouse.events.handover import Handover
from posthouse.events.types import Type
from posthouse.outbound import ledger
from posthouse.outbound import spec as specs
from posthouse.outbound.model import State
from posthouse.outbound.settle import Outcome
from posthouse.outbound.spec import Relayed, Spec
from posthouse.outbound.submit import RENDER
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job, Queue
from posthouse.storage.records.base import Records, Tx

log = structlog.get_logger("outbound")

Report = Callable[[Tx, Sequence[tuple[Outcome, Handover]]], Awaitable[None]]
"""Told, in the transaction, of relayed mail that failed for good and whose sender may know."""

_MOST_ENDED = 500


class LeaseLost(Exception):
    """Somebody else holds a job of this batch now: nothing of it is written."""


class Relay:
    def __init__(
        self,
        records: Records,
        queue: Queue,
        streams: Streams,
        contents: Contents,
        *,
        wake: Callable[[int], None],
        current: Callable[[Job], Job],
        release: Callable[[Job], None],
        clock: Clock,
        report: Report,
    ) -> None:
        """:param wake: the render stage's; `current`, `release`: of the worker that runs this."""
        self._records = records
        self._queue = queue
        self._streams = streams
        self._contents = contents
        self._wake = wake
        self._current = current
        self._release = release
        self._clock = clock
        self._report = report

    async def __call__(self, jobs: Sequence[Job]) -> None:
        """:raises StorageUnavailable: nothing was written; the jobs come back."""
        loaded = await self._records.read(lambda tx: handovers.load(tx, [job.id for job in jobs]))
        now = self._clock()
        rows = [_rows(one, await self._stream(one.tenant_id), now) for one in loaded]
        submissions = [row[0] for row in rows]
        messages = [message for _, recipients in rows for message in recipients]

        async def work(tx: Tx) -> None:
            if await self._queue.done([self._current(job) for job in jobs], tx=tx) != len(jobs):
                raise LeaseLost
            if messages:
                await ledger.insert(tx, submissions, messages)
                await event_log.append(tx, _accepted(messages))
                await self._queue.put([_render_job(row) for row in messages if row[1] == 0], tx=tx)

        try:
            await self._records.write(work)
        except LeaseLost:
            log.warning("lease_lost", stage=handovers.RELAY, jobs=len(jobs))
        for job in jobs:
            self._release(job)
        for lane in {row[5] for row in messages}:
            self._wake(lane)

    async def settled(self, tx: Tx, ended: Sequence[str], failed: Sequence[Outcome]) -> None:
        """With the outcomes of relayed messages: report what failed, let go of what has ended."""
        if failed:
            found = {one.id: one for one in await handovers.load(tx, [outcome.due.id for outcome in failed])}
            told = [(one, found[one.due.id]) for one in failed if one.due.id in found and found[one.due.id].report_to]
            if told:
                await self._report(tx, told)
        if ended:
            await self._let_go(tx, ended)

    async def sweep(self, records: Records) -> int:
        """Let go of what ended without an attempt (canceled through the API); how many.

        :param records: through which it is written: guarded, where several processes could.
        """

        async def work(tx: Tx) -> int:
            done = await handovers.ended(tx, _MOST_ENDED)
            if done:
                await self._let_go(tx, done)
            return len(done)

        try:
            return await records.write(work, durable=False)
        except Unavailable:
            return 0

    async def _let_go(self, tx: Tx, done: Sequence[str]) -> None:
        keys = await handovers.forget(tx, done)
        await self._contents.add(tx, [(key, -1) for key in keys])

    async def _stream(self, tenant_id: str) -> Stream:
        streams = await self._streams.of(tenant_id)
        return streams.get(DEFAULT) or next(iter(streams.values()))


def _rows(one: Handover, stream: Stream, now: int) -> tuple[ledger.NewSubmission, list[ledger.NewMessage]]:
    spec = Spec(
        from_=("", one.sender),
        stream=stream.name,
        key_id="",
        to=tuple(("", address) for address in one.recipients),
        subject=one.subject,
        relayed=Relayed(
            one.kind.value, one.content, one.size, one.reverse_path, one.origin, one.sign, one.utf8, one.report_to
        ),
    )
    submission = "sub_" + one.id.partition("_")[2]
    expires = now + stream.max_age * SECOND
    messages: list[ledger.NewMessage] = [
        (one.id, place, one.tenant_id, submission, stream.id, int(stream.lane), address, None, State.QUEUED.value,
         now, now, expires, now, None, None, now)
        for place, address in enumerate(one.recipients)
    ]  # fmt: skip
    return (submission, one.tenant_id, now, None, specs.encode(spec).decode()), messages


def _accepted(messages: Sequence[ledger.NewMessage]) -> list[event_log.Line]:
    """Under ids that follow from the message's: a job that comes twice writes none twice."""
    return [
        (row[0], row[1], ids.derived("evt", row[0], f"accepted {row[1]}"), row[9], Type.ACCEPTED.value,
         handovers.RELAY, None)
        for row in messages
    ]  # fmt: skip


def _render_job(row: ledger.NewMessage) -> Job:
    return Job(RENDER, row[5], row[2], row[10], row[0])
