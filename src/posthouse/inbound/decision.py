"""What becomes of a message in one account, before it is stored. Rules of people come in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from posthouse.directory.model import Account
from posthouse.events.handover import Handover
from posthouse.inbound.model import Arrival, Recipient, Verdict
from posthouse.mail.parsed import Parsed
from posthouse.mailbox.model import Role
from posthouse.storage.contents import Content
from posthouse.storage.records.base import Tx


class Decision(msgspec.Struct, frozen=True, gc=False):
    """`mailboxes`: numbers or roles; none: it is not kept. `forwards`: addresses that get a copy.
    `answer`: a vacation reply is due. `reasons`: sentences, for explain."""

    mailboxes: tuple[int | str, ...] = (Role.INBOX.value,)
    keywords: tuple[str, ...] = ()
    forwards: tuple[str, ...] = ()
    answer: bool = False
    reasons: tuple[str, ...] = ()


Folders = Mapping[str, int]
"""An account's mailboxes: full name (`Archive/Bills`) → number."""

Decide = Callable[[Arrival, Parsed, Recipient, Account, Verdict, Folders], Decision]
"""Pure and quick: it runs on the loop for every recipient."""


class Order(msgspec.Struct, frozen=True):
    """Something to send because of a message. `account` None: the recipient has none here."""

    kind: Literal["forward", "answer"]
    arrival: Arrival
    parsed: Parsed
    recipient: Recipient
    account: Account | None
    to: tuple[str, ...]


class Parcel(msgspec.Struct, frozen=True):
    """What was made of an order, for the sending flow. `answered`: (account, who was answered,
    when, the days until the next) of an answer. Without a handover nothing is sent, and `said`
    is why."""

    said: str
    content: Content | None = None
    handover: Handover | None = None
    answered: tuple[int, str, int, int] | None = None


class Failed(msgspec.Struct, frozen=True):
    """A recipient whose message can be neither stored nor sent on. `reason`: a sentence."""

    arrival: Arrival
    parsed: Parsed
    recipient: Recipient
    reason: str


class Sender(Protocol):
    """`inbound.dispatch`."""

    async def prepare(self, orders: Sequence[Order]) -> list[Parcel]:
        """One for each, in order, before the transaction. :raises Unavailable:"""
        ...

    async def send(self, tx: Tx, parcels: Sequence[Parcel]) -> list[str]:
        """In the transaction; a sentence about each. :raises Unavailable:"""
        ...

    async def tell(self, tx: Tx, failed: Sequence[Failed]) -> list[str]:
        """Those senders that may know it; in the transaction, a sentence about each."""
        ...

    def wake(self) -> None:
        """After the commit: there is something to send."""
        ...


_INBOX = Decision()
_JUNK = Decision((Role.JUNK.value,), ("$junk",))


def by_verdict(
    _arrival: Arrival, _parsed: Parsed, _recipient: Recipient, _account: Account, verdict: Verdict, _folders: Folders
) -> Decision:
    """Junk or Inbox, and nothing else."""
    return _JUNK if verdict.junk else _INBOX
