"""From a judged message to what is to be done for each of its recipients. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from posthouse.directory.model import Account
from posthouse.inbound.decide import elsewhere
from posthouse.inbound.decision import Decide, Decision, Folders, Order, Parcel
from posthouse.inbound.examine import Examined
from posthouse.inbound.filter.weigh import Judged
from posthouse.inbound.model import Arrival, Outcome, Recipient, State, Verdict
from posthouse.mail.parsed import Parsed
from posthouse.mail.threads import Keys
from posthouse.mailbox.model import Delivered, Delivery, Record
from posthouse.storage.queue.base import Job

GONE = "The account was removed before the message could be stored."
_NO_WAY = "Nothing is set up to send messages on with."
_NO_FOLDERS: Folders = {}

_json = msgspec.json.Encoder()


class Task(msgspec.Struct, frozen=True):
    """One recipient: what to do, or with neither, why nothing can be done."""

    recipient: Recipient
    outcome: Outcome
    delivery: Delivery | None = None
    orders: tuple[Order, ...] = ()
    parcels: tuple[Parcel, ...] = ()
    """What the orders came to."""
    folders: Folders = _NO_FOLDERS
    """The account's mailboxes by their full names, when one was asked for by name."""


class Ready(msgspec.Struct, frozen=True):
    """One message. `job` as it was claimed."""

    job: Job
    arrival: Arrival
    parsed: Parsed
    verdict: str
    tasks: tuple[Task, ...]


class Plan:
    """:param sends: whether anything can be forwarded or answered."""

    def __init__(self, decide: Decide, *, sends: bool) -> None:
        self._decide = decide
        self._sends = sends

    def __call__(
        self,
        job: Job,
        arrival: Arrival,
        examined: Examined,
        judged: Judged,
        accounts: Mapping[int, Account],
        folders: Mapping[int, Folders],
    ) -> Ready:
        parsed = examined.parsed
        common = _json.encode(judged.common).decode()
        tasks: list[Task] = []
        for recipient, verdict, keys in zip(arrival.recipients, judged.recipients, examined.keys, strict=True):
            account = accounts.get(recipient.account)
            if account is None or keys is None:
                tasks.append(self._elsewhere(arrival, parsed, recipient, verdict))
                continue
            there = folders.get(account.number, _NO_FOLDERS)
            decision = self._decide(arrival, parsed, recipient, account, verdict, there)
            orders = _orders(arrival, parsed, recipient, account, decision) if self._sends else ()
            if decision.mailboxes or (decision.forwards and not orders):
                said = common if verdict is judged.common else _json.encode(verdict).decode()
                delivery = _delivery(arrival, examined.record, keys, account, decision, said)
                outcome = Outcome(State.STORED, keywords=decision.keywords, reasons=decision.reasons)
                tasks.append(Task(recipient, outcome, delivery, orders, folders=there))
            else:
                state = State.FORWARDED if decision.forwards else State.DISCARDED
                tasks.append(Task(recipient, Outcome(state, reasons=decision.reasons), None, orders))
        return Ready(job, arrival, parsed, common, tuple(tasks))

    def _elsewhere(self, arrival: Arrival, parsed: Parsed, recipient: Recipient, verdict: Verdict) -> Task:
        """A recipient without a mailbox here."""
        if recipient.account:
            return Task(recipient, failed(GONE))
        if not self._sends or not recipient.via.forward:
            return Task(recipient, failed(_NO_WAY))
        decision = elsewhere(arrival, recipient, verdict)
        if not decision.forwards:
            return Task(recipient, Outcome(State.FAILED, reasons=decision.reasons))
        order = Order("forward", arrival, parsed, recipient, None, decision.forwards)
        said = f"Handed on to {recipient.via.forward}."
        return Task(recipient, Outcome(State.FORWARDED, reasons=(said,)), None, (order,))


def failed(reason: str) -> Outcome:
    return Outcome(State.FAILED, reasons=(reason,))


def concluded(task: Task, delivered: Delivered | None) -> Outcome:
    """With where the email went; its account may have gone since it was read."""
    if task.delivery is None:
        return task.outcome
    if delivered is None:
        return failed(GONE)
    was = task.outcome
    full = {number: path for path, number in task.folders.items()}
    places = tuple(full.get(box, name) for box, name in zip(delivered.mailboxes, delivered.names, strict=True))
    reasons = (*was.reasons, delivered.why)
    return Outcome(State.STORED, delivered.email, delivered.thread, places, was.keywords, reasons)


def with_reason(outcome: Outcome, reason: str) -> Outcome:
    return msgspec.structs.replace(outcome, reasons=(*outcome.reasons, reason))


def _orders(
    arrival: Arrival, parsed: Parsed, recipient: Recipient, account: Account, decision: Decision
) -> tuple[Order, ...]:
    if not (decision.forwards or decision.answer):
        return ()
    orders: list[Order] = []
    if decision.forwards:
        orders.append(Order("forward", arrival, parsed, recipient, account, decision.forwards))
    if decision.answer:
        orders.append(Order("answer", arrival, parsed, recipient, account, (arrival.reverse_path,)))
    return tuple(orders)


def _delivery(
    arrival: Arrival, row: Record, keys: Keys, account: Account, decision: Decision, verdict: str
) -> Delivery:
    return Delivery(
        account.number,
        arrival.content,
        arrival.received_at,
        row,
        keys,
        decision.mailboxes,
        decision.keywords,
        arrival.id,
        arrival.trace,
        verdict,
    )
