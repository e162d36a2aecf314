"""The stage `store`: what was acknowledged becomes emails.

1. The claimed jobs' log rows, recipients and octets are read, in parts that fit in memory.
2. Each message is parsed, judged, and decided about for each recipient.
3. One transaction for the part: the jobs (a lost lease undoes all of it), the emails with their
   threads and counts, the outcome of each recipient, the verdicts, one job for the index.
4. After the commit the accounts' changes are announced.

While a part is in the database the next batch is parsed, and what is ready by then shares the next
transaction. Parts are written in the order in which they were claimed, so the emails of an account
come in the order in which they were accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog
from prometheus_client import Counter, Histogram

from posthouse.clock import SECOND, Clock
from posthouse.directory.model import Account, AccountSettings
from posthouse.errors import Unavailable
from posthouse.inbound.decision import Decide, Decision, Order, by_verdict
from posthouse.inbound.filter.weigh import Judged
from posthouse.inbound.intake import Intake, Waiting, in_parts
from posthouse.inbound.model import Arrival, Outcome, Recipient, State, Verdict
from posthouse.mail.parse import parse, text
from posthouse.mail.parsed import Parsed, part_of
from posthouse.mail.threads import thread_keys
from posthouse.mailbox.books import Books, open_books
from posthouse.mailbox.deliver import deliver
from posthouse.mailbox.model import Delivered, Delivery, Record, Touched
from posthouse.mailbox.record import record
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
_LARGE = 256 * 1024
"""Octets from which a message is parsed in a thread."""
_AT_ONCE = 16
"""Messages parsed before other tasks get their turn: about 2 ms."""
_QUOTES = 2000
"""Characters in which threads look for quotations."""

_json = msgspec.json.Encoder()
_OUTCOMES = """
UPDATE inbound_rcpt SET state = v.state, done_at = v.done_at, outcome = v.outcome
FROM {v(inbound_id text, n int, state text, done_at int, outcome text)}
WHERE inbound_rcpt.inbound_id = v.inbound_id AND inbound_rcpt.n = v.n"""
_VERDICTS = "UPDATE inbound SET verdict = v.verdict FROM {v(id text, verdict text)} WHERE inbound.id = v.id"


class Judge(Protocol):
    """`inbound.filter`."""

    async def judge(
        self, batch: Sequence[tuple[Arrival, Parsed]], accounts: Mapping[int, AccountSettings]
    ) -> Sequence[Judged]: ...


Send = Callable[[Tx, Sequence[Order]], Awaitable[None]]
"""Hands messages to the sending flow, in this transaction."""


class _LeaseLostError(Exception):
    """Somebody else holds a job now: nothing of the part may be written."""


class _Task(msgspec.Struct, frozen=True):
    """One recipient: what to do, or with neither, why nothing can be done."""

    recipient: Recipient
    outcome: Outcome
    delivery: Delivery | None = None
    orders: tuple[Order, ...] = ()


class _Ready(msgspec.Struct, frozen=True):
    """One message. `job` as it was claimed."""

    job: Job
    arrival: Arrival
    verdict: str
    tasks: tuple[_Task, ...]


_Handed = tuple[Sequence[_Ready], asyncio.Future[None]]


class _Turn:
    """A batch's place in the order of claims: its parts are handed over when it comes."""

    def __init__(self, before: asyncio.Future[None] | None) -> None:
        self._before = before
        self.passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def comes(self) -> None:
        if self._before is not None:
            await asyncio.shield(self._before)
            self._before = None

    def pass_on(self, _: object = None) -> None:
        """To the batch behind, at once or when the turn comes. Again is fine."""
        if self._before is not None and not self._before.done():
            self._before.add_done_callback(self.pass_on)
        elif not self.passed.done():
            self.passed.set_result(None)


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
        decide: Decide = by_verdict,
        send: Send | None = None,
        indexing: Indexing = index_nothing,
        tell: Tell = tell_nobody,
        wake_index: Callable[[], None] = lambda: None,
    ) -> None:
        """
        :param current: the worker's; with `release` and `leases`.
        :param send: None: nothing can be forwarded or answered.
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
        self._decide = decide
        self._send = send
        self._indexing = indexing
        self._tell = tell
        self._wake_index = wake_index
        self._intake = Intake(records, contents)
        self._last: asyncio.Future[None] | None = None
        self._waiting: list[_Handed] = []
        self._writer: asyncio.Task[None] | None = None

    async def __call__(self, jobs: Sequence[Job]) -> None:
        """:raises Unavailable: storage or a scanner is away; what is not stored yet comes again."""
        turn = _Turn(self._last)
        self._last = turn.passed
        try:
            waiting, accounts = await self._intake.look(jobs)
            known = {one.job.id for one in waiting}
            await self._forget([job for job in jobs if job.id not in known])
            parts = list(in_parts(waiting, OCTETS_AT_ONCE))
            for n, part in enumerate(parts, 1):
                ready = await self._prepare(part, accounts)
                await turn.comes()
                written = self._hand_over(ready)
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

    async def _prepare(self, part: Sequence[Waiting], accounts: Mapping[int, Account]) -> list[_Ready]:
        there: list[tuple[Job, Arrival, Parsed]] = []
        lost: list[Job] = []
        for n, (one, arrival) in enumerate(zip(part, await self._intake.read(part), strict=True)):
            if arrival is None:
                lost.append(one.job)
                continue
            if n and n % _AT_ONCE == 0:
                await asyncio.sleep(0)
            large = arrival.size > _LARGE
            parsed = await asyncio.to_thread(parse, arrival.raw) if large else parse(arrival.raw)
            there.append((one.job, arrival, parsed))
        await self._set_aside(lost)
        settings = {number: account.settings for number, account in accounts.items()}
        judged = await self._judge.judge([(arrival, parsed) for _, arrival, parsed in there], settings)
        ready: list[_Ready] = []
        for n, ((job, arrival, parsed), verdict) in enumerate(zip(there, judged, strict=True)):
            if n and n % _AT_ONCE == 0:
                await asyncio.sleep(0)
            ready.append(self._ready(job, arrival, parsed, verdict, accounts))
        return ready

    async def _set_aside(self, lost: Sequence[Job]) -> None:
        """People must look: an acknowledged message whose octets are gone."""
        if not lost:
            return
        async with self._leases:
            await self._queue.bury([(self._current(job), "the message's octets are not there") for job in lost])
            for job in lost:
                log.error("content_lost", inbound_id=job.id)
                self._release(job)

    def _ready(
        self, job: Job, arrival: Arrival, parsed: Parsed, judged: Judged, accounts: Mapping[int, Account]
    ) -> _Ready:
        row = record(parsed)
        quotes = _start(arrival.raw, parsed)
        tasks: list[_Task] = []
        for recipient, verdict in zip(arrival.recipients, judged.recipients, strict=True):
            account = accounts.get(recipient.account)
            if account is None:
                tasks.append(self._elsewhere(arrival, parsed, recipient))
                continue
            decision = self._decide(arrival, parsed, recipient, account, verdict)
            orders = self._orders(arrival, parsed, recipient, account, decision)
            if decision.mailboxes:
                delivery = _delivery(arrival, parsed, row, quotes, (recipient, account, decision, verdict))
                outcome = Outcome(State.STORED, keywords=decision.keywords, reasons=decision.reasons)
                tasks.append(_Task(recipient, outcome, delivery, orders))
            else:
                state = State.FORWARDED if any(one.kind == "forward" for one in orders) else State.DISCARDED
                tasks.append(_Task(recipient, Outcome(state, reasons=decision.reasons), None, orders))
        return _Ready(job, arrival, _json.encode(judged.common).decode(), tuple(tasks))

    def _elsewhere(self, arrival: Arrival, parsed: Parsed, recipient: Recipient) -> _Task:
        """A recipient without a mailbox here."""
        if recipient.account:
            return _Task(recipient, _failed("The account was removed before the message could be stored."))
        if self._send is None or not recipient.via.forward:
            return _Task(recipient, _failed("Nothing is set up to forward messages with."))
        order = Order("forward", arrival, parsed, recipient, None, recipient.via.forward)
        said = f"Handed on to {recipient.via.forward}."
        return _Task(recipient, Outcome(State.FORWARDED, reasons=(said,)), None, (order,))

    def _orders(
        self, arrival: Arrival, parsed: Parsed, recipient: Recipient, account: Account, decision: Decision
    ) -> tuple[Order, ...]:
        if self._send is None or not (decision.forwards or decision.answer):
            return ()
        orders = [Order("forward", arrival, parsed, recipient, account, to) for to in decision.forwards]
        if decision.answer:
            orders.append(Order("answer", arrival, parsed, recipient, account, arrival.reverse_path))
        return tuple(orders)

    # -- the transaction -----------------------------------------------------------------------

    def _hand_over(self, ready: Sequence[_Ready]) -> asyncio.Future[None]:
        """Resolves when these are stored. What is handed over while others are written goes into
        the next transaction together, since a transaction costs more than a message."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        if ready:
            self._waiting.append((ready, written))
        else:
            written.set_result(None)
        if self._waiting and (self._writer is None or self._writer.done()):
            self._writer = loop.create_task(self._write_all())
        return written

    async def _write_all(self) -> None:
        while self._waiting:
            batch = self._waiting[:1]
            for one in self._waiting[1:]:
                if sum(len(ready) for ready, _ in batch) + len(one[0]) > MESSAGES_AT_ONCE:
                    break
                batch.append(one)
            del self._waiting[: len(batch)]
            await self._write_batch(batch)

    async def _write_batch(self, batch: Sequence[_Handed]) -> None:
        """What one of them cannot help is not the others' fault: then each by itself."""
        error: BaseException | None = None
        try:
            await self._write([one for ready, _ in batch for one in ready])
        except Exception as raised:
            if len(batch) > 1 and not isinstance(raised, Unavailable):
                for one in batch:
                    await self._write_batch([one])
                return
            error = raised
        for _, written in batch:
            if written.done():  # nobody waits any more
                continue
            if error is None:
                written.set_result(None)
            else:
                written.set_exception(error)

    async def _write(self, ready: Sequence[_Ready]) -> None:
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

    async def _write_alone(self, one: _Ready) -> None:
        try:
            await self._step([one])
        except _LeaseLostError:
            log.warning("lease_lost", inbound_id=one.arrival.id)

    async def _step(self, ready: Sequence[_Ready]) -> None:
        jobs = [self._current(one.job) for one in ready]
        tasks = [(one.arrival, task) for one in ready for task in one.tasks]
        deliveries = [task.delivery for _, task in tasks if task.delivery is not None]
        orders = [order for _, task in tasks for order in task.orders]
        verdicts: list[Row] = [(one.arrival.id, one.verdict) for one in ready]

        async def work(tx: Tx) -> tuple[list[Touched], list[Outcome]]:
            # The jobs go first: a lost lease undoes all of it.
            if await self._queue.done(jobs, tx=tx) != len(jobs):
                raise _LeaseLostError
            books = await open_books(tx, {one.account for one in deliveries})
            found = await deliver(tx, books, deliveries)
            _let_go(books, ready)
            touched = await write(books, tx, self._contents)
            if orders and self._send is not None:
                await self._send(tx, orders)
            outcomes = _outcomes(tasks, found)
            now = self._clock()
            rows: list[Row] = [
                (arrival.id, task.recipient.n, outcome.state.value, now, _json.encode(outcome).decode())
                for (arrival, task), outcome in zip(tasks, outcomes, strict=True)
            ]
            await tx.run_each(_OUTCOMES, rows)
            await tx.run_each(_VERDICTS, verdicts)
            await self._indexing(tx, [(one.account, one.email) for one in found if one is not None], ())
            return touched, outcomes

        touched, outcomes = await self._records.write(work)
        self._tell(touched)
        self._wake_index()
        _count(self._clock(), tasks, outcomes)


def _start(raw: bytes, parsed: Parsed) -> str:
    """The first of what is shown as text, where quotations are looked for."""
    part = part_of(parsed.structure, parsed.text[0]) if parsed.text else None
    if part is None or part.type != "text/plain":
        return ""
    return text(raw, part, _QUOTES)


def _delivery(
    arrival: Arrival,
    parsed: Parsed,
    row: Record,
    quotes: str,
    where: tuple[Recipient, Account, Decision, Verdict],
) -> Delivery:
    recipient, account, decision, verdict = where
    own = {account.address, recipient.address.lower()}
    return Delivery(
        account.number,
        arrival.content,
        arrival.received_at,
        row,
        thread_keys(parsed, received_at=arrival.received_at, text=quotes, own=own),
        decision.mailboxes,
        decision.keywords,
        arrival.id,
        arrival.trace,
        _json.encode(verdict).decode(),
    )


def _failed(reason: str) -> Outcome:
    return Outcome(State.FAILED, reasons=(reason,))


def _let_go(books: Books, ready: Sequence[_Ready]) -> None:
    """An arrival that is done refers to its content no more; its emails do."""
    for one in ready:
        books.contents[one.arrival.content] = books.contents.get(one.arrival.content, 0) - 1


def _outcomes(tasks: Sequence[tuple[Arrival, _Task]], found: Sequence[Delivered | None]) -> list[Outcome]:
    """With where each email went; an account may have gone since it was read."""
    stored = iter(found)
    outcomes: list[Outcome] = []
    for _, task in tasks:
        if task.delivery is None:
            outcomes.append(task.outcome)
            continue
        one = next(stored)
        if one is None:
            outcomes.append(_failed("The account was removed before the message could be stored."))
            continue
        was = task.outcome
        reasons = (*was.reasons, one.why)
        outcomes.append(Outcome(State.STORED, one.email, one.thread, one.names, was.keywords, reasons))
    return outcomes


def _count(now: int, tasks: Sequence[tuple[Arrival, _Task]], outcomes: Sequence[Outcome]) -> None:
    for (arrival, _), outcome in zip(tasks, outcomes, strict=True):
        _STATES[outcome.state].inc()
        LATENCY.observe((now - arrival.received_at) / SECOND)


_STATES = {state: OUTCOMES.labels(state.value) for state in State}
