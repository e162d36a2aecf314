"""What becomes of a message in one account, before it is stored. Rules of people come in here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from posthouse.directory.model import Account
from posthouse.inbound.model import Arrival, Recipient, Verdict
from posthouse.mail.parsed import Parsed
from posthouse.mailbox.model import Role


class Decision(msgspec.Struct, frozen=True, gc=False):
    """`mailboxes`: numbers or roles; none: it is not kept. `forwards`: addresses that get a copy.
    `answer`: a vacation reply is due. `reasons`: sentences, for explain."""

    mailboxes: tuple[int | str, ...] = (Role.INBOX.value,)
    keywords: tuple[str, ...] = ()
    forwards: tuple[str, ...] = ()
    answer: bool = False
    reasons: tuple[str, ...] = ()


Decide = Callable[[Arrival, Parsed, Recipient, Account, Verdict], Decision]
"""Pure and quick: it runs on the loop for every recipient."""


class Order(msgspec.Struct, frozen=True):
    """Something to send because of a message. `account` None: the recipient has none here."""

    kind: Literal["forward", "answer"]
    arrival: Arrival
    parsed: Parsed
    recipient: Recipient
    account: Account | None
    to: str


_INBOX = Decision()
_JUNK = Decision((Role.JUNK.value,), ("$junk",))


def by_verdict(
    _arrival: Arrival, _parsed: Parsed, _recipient: Recipient, _account: Account, verdict: Verdict
) -> Decision:
    """Junk or Inbox, and nothing else."""
    return _JUNK if verdict.junk else _INBOX
