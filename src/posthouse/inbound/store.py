"""The stage `store`: what was acknowledged becomes emails.

1. The claimed jobs' log rows, recipients and octets are read, in parts that fit in memory.
2. Each message is examined (parsed, looked at by the filter), judged, and decided about for each
   recipient.
3. One transaction for the part: the jobs (a lost lease undoes all of it), the emails with their
   threads and counts, what is sent because of them, the outcome of each recipient, the verdicts,
   one job for the index.
4. After the commit the accounts' changes are announced.

While a part is in the database the next batch is parsed, and what is ready by then shares the next
transaction. Parts are written in the order in which they were claimed, so the emails of an account
come in the order in which they were accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog
from prometheus_client import Counter, Histogram

from posthouse.clock import SECOND, Clock
from posthouse.directory.model import Account, AccountSettings
from posthouse.inbound.decision import Decide, Failed, Sender, by_verdict
from posthouse.inbound.examine import Examine, Given, here
from posthouse.inbound.filter.look import Look
from posthouse.inbound.filter.weigh import Judged
from posthouse.inbound.intake import Around, Intake, Waiting, in_parts
from posthouse.inbound.model import Arrival, Outcome, State
from posthouse.inbound.plan import Plan, Ready, Task, concluded, with_reason
from posthouse.inbound.together import Together, Turn
from posthouse.mail.parsed import Parsed
from posthouse.mailbox.books import Books, open_books
from posthouse.mailbox.deliver import deliver
from posthouse.mailbox.model import Delivered, Touched
from posthouse.mailbox.service import Indexing, Tell, index_nothing, tell_nobody
from posthouse.mailbox.write import write
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job, Queue
from posthouse.storage.records.base import Records, Row, Tx

log = structlog.get_logger("store")

OUTCOMES = Counter(
    "posthouse_inbound_outcomes_total", "Recipients of incoming messages, by their final state.", ["state"]
)
LATENCY = Histogram(
    "posthouse_inbound_seconds",
    "From when a message was acknowledged until it is stored.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300, 3600),
)

MESSAGES_AT_ONCE = 512
"""In one transaction."""
OCTETS_AT_ONCE = 32 * 1024 * 1024
_AT_ONCE = 64
"""Messages decided about before other tasks get their turn: about 1 ms."""

_json = msgspec.json.Encoder()
_OUTCOMES = """
UPDATE inbound_rcpt SET state = v.state, done_at = v.done_at, outcome = v.outcome
FROM {v(inbound_id text, n int, state text, done_at int, outcome text)}
WHERE inbound_rcpt.inbound_id = v.inbound_id AND inbound_rcpt.n = v.n"""
_VERDICTS = "UPDATE inbound SET verdict = v.verdict FROM {v(id text, verdict text)} WHERE inbound.id = v.id"


class Judge(Protocol):
    """`inbound.filter`."""

    async def judge(
        self, batch: Sequence[tuple[Arrival, Parsed | Look | None]], accounts: Mapping[int, AccountSettings]
    ) -> Sequence[Judged]: ...


class _LeaseLostError(Exception):
    """Somebody else holds a job now: nothing of the part may be written."""


class Store:
    """Called by the worker with batches of jobs."""

    def __init__(
        self,
        records: Records,
        contents: Contents,
        queue: Queue,
        judge: Judge,
        *,
        clock: Clock,
        current: Callable[[Job], Job],
        release: Callable[[Job], None],
        leases: asyncio.Lock,
        examine: Examine = here,
        decide: Decide = by_verdict,
        sender: Sender | None = None,
        indexing: Indexing = index_nothing,
        tell: Tell = tell_nobody,
        wake_index: Callable[[], None] = lambda: None,
    ) -> None:
        """
        :param current: the worker's; with `release` and `leases`.
        :param sender: None: nothing can be forwarded or answered.
        :param tell: announces changes, after the commit.
        """
        self._records = records
        self._contents = contents
        self._queue = queue
        self._judge = judge
        self._clock = clock
        self._current = current
        self._release = release
        self._leases = leases
        self._examine = examine
        self._plan = Plan(decide, sends=sender is not None)
        self._sender = sender
        self._indexing = indexing
        self._tell = tell
        self._wake_index = wake_index
        self._intake = Intake(records, contents)
        self._last: Turn | None = None
        self._together = Together(self._write, most=MESSAGES_AT_ONCE)

    async def __call__(self, jobs: Sequence[Job]) -> None:
        """:raises Unavailable: storage or a scanner is away; what is not stored yet comes again."""
        turn = self._last = Turn(self._last)
        try:
            waiting, around = await self._intake.look(jobs)
            known = {one.job.id for one in waiting}
            await self._forget([job for job in jobs if job.id not in known])
            parts = list(in_parts(waiting, OCTETS_AT_ONCE))
            for n, part in enumerate(parts, 1):
                ready = await self._prepare(part, around)
                await turn.comes()
                written = self._together.hand_over(ready)
                if n == len(parts):
                    turn.pass_on()
                await written
        finally:
            turn.pass_on()

    # -- before the transaction --------------------------------------------------------------

    async def _forget(self, jobs: Sequence[Job]) -> None:
        """Whatever they were about is done."""
        if not jobs:
            return
        async with self._leases:
            await self._queue.done([self._current(job) for job in jobs])
            for job in jobs:
                self._release(job)

    async def _prepare(self, part: Sequence[Waiting], around: Around) -> list[Ready]:
        there: list[tuple[Job, Arrival]] = []
        lost: list[Job] = []
        for one, arrival in zip(part, await self._intake.read(part), strict=True):
            if arrival is None:
                lost.append(one.job)
            else:
                there.append((one.job, arrival))
        await self._set_aside(lost)
        examined = await self._examine([Given(one, _owners(one, around.accounts)) for _, one in there])
        settings = {number: account.settings for number, account in around.accounts.items()}
        seen = [(arrival, one.look) for (_, arrival), one in zip(there, examined, strict=True)]
        judged = await self._judge.judge(seen, settings)
        ready: list[Ready] = []
        for n, ((job, arrival), one, verdict) in enumerate(zip(there, examined, judged, strict=True)):
            if n and n % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if one.fault:
                log.error("examine_failed", inbound_id=arrival.id, detail=one.fault)
            ready.append(self._plan(job, arrival, one, verdict, around.accounts, around.folders))
        return await self._packed(ready)

    async def _packed(self, ready: list[Ready]) -> list[Ready]:
        """With what is to be sent made, before the transaction. :raises Unavailable:"""
        orders = [order for one in ready for task in one.tasks for order in task.orders]
        if not orders or self._sender is None:
            return ready
        made = iter(await self._sender.prepare(orders))
        replace = msgspec.structs.replace
        return [
            replace(
                one, tasks=tuple(replace(task, parcels=tuple(next(made) for _ in task.orders)) for task in one.tasks)
            )
            for one in ready
        ]

    async def _set_aside(self, lost: Sequence[Job]) -> None:
        """People must look: an acknowledged message whose octets are gone."""
        if not lost:
            return
        async with self._leases:
            await self._queue.bury([(self._current(job), "the message's octets are not there") for job in lost])
            for job in lost:
                log.error("content_lost", inbound_id=job.id)
                self._release(job)

    # -- the transaction -----------------------------------------------------------------------

    async def _write(self, ready: Sequence[Ready]) -> None:
        """All of them, or when a lease was lost, each message by itself.

        :raises Unavailable: nothing of it is stored.
        """
        async with self._leases:
            try:
                await self._step(ready)
            except _LeaseLostError:
                for one in ready:
                    await self._write_alone(one)
            for one in ready:
                self._release(one.job)

    async def _write_alone(self, one: Ready) -> None:
        try:
            await self._step([one])
        except _LeaseLostError:
            log.warning("lease_lost", inbound_id=one.arrival.id)

    async def _step(self, ready: Sequence[Ready]) -> None:
        jobs = [self._current(one.job) for one in ready]
        tasks = [(one, task) for one in ready for task in one.tasks]
        deliveries = [task.delivery for _, task in tasks if task.delivery is not None]
        verdicts: list[Row] = [(one.arrival.id, one.verdict) for one in ready]

        async def work(tx: Tx) -> tuple[list[Touched], list[Outcome]]:
            # The jobs go first: a lost lease undoes all of it.
            if await self._queue.done(jobs, tx=tx) != len(jobs):
                raise _LeaseLostError
            books = await open_books(tx, {one.account for one in deliveries})
            found = await deliver(tx, books, deliveries)
            _let_go(books, ready)
            touched = await write(books, tx, self._contents)
            outcomes = _outcomes(tasks, found)
            if self._sender is not None:
                await _send(tx, self._sender, tasks, outcomes)
            now = self._clock()
            rows: list[Row] = [
                (one.arrival.id, task.recipient.n, outcome.state.value, now, _json.encode(outcome).decode())
                for (one, task), outcome in zip(tasks, outcomes, strict=True)
            ]
            await tx.run_each(_OUTCOMES, rows)
            await tx.run_each(_VERDICTS, verdicts)
            await self._indexing(tx, [(one.account, one.email) for one in found if one is not None], ())
            return touched, outcomes

        touched, outcomes = await self._records.write(work)
        self._tell(touched)
        self._wake_index()
        if self._sender is not None:
            self._sender.wake()
        _count(self._clock(), tasks, outcomes)


def _owners(arrival: Arrival, accounts: Mapping[int, Account]) -> tuple[str, ...]:
    """The address of each recipient's account; '' where there is none."""
    return tuple([found.address if (found := accounts.get(one.account)) else "" for one in arrival.recipients])


def _let_go(books: Books, ready: Sequence[Ready]) -> None:
    """An arrival that is done refers to its content no more; its emails do."""
    for one in ready:
        books.contents[one.arrival.content] = books.contents.get(one.arrival.content, 0) - 1


def _outcomes(tasks: Sequence[tuple[Ready, Task]], found: Sequence[Delivered | None]) -> list[Outcome]:
    stored = iter(found)
    return [concluded(task, next(stored) if task.delivery is not None else None) for _, task in tasks]


async def _send(tx: Tx, sender: Sender, tasks: Sequence[tuple[Ready, Task]], outcomes: list[Outcome]) -> None:
    """What the messages set off, and whom it tells of what failed; each with its sentence."""
    sent = [
        (place, parcel)
        for place, (_, task) in enumerate(tasks)
        if outcomes[place].state is not State.FAILED
        for parcel in task.parcels
    ]
    lost = [
        (place, Failed(one.arrival, one.parsed, task.recipient, outcomes[place].reasons[0]))
        for place, (one, task) in enumerate(tasks)
        if outcomes[place].state is State.FAILED
    ]
    said = await sender.send(tx, [parcel for _, parcel in sent]) if sent else []
    said += await sender.tell(tx, [failed for _, failed in lost]) if lost else []
    for place, sentence in zip([place for place, _ in (*sent, *lost)], said, strict=True):
        outcomes[place] = with_reason(outcomes[place], sentence)


def _count(now: int, tasks: Sequence[tuple[Ready, Task]], outcomes: Sequence[Outcome]) -> None:
    for (one, _), outcome in zip(tasks, outcomes, strict=True):
        _STATES[outcome.state].inc()
        LATENCY.observe((now - one.arrival.received_at) / SECOND)


_STATES = {state: OUTCOMES.labels(state.value) for state in State}
