"""What a transaction holds of an account in memory while it changes it: counters, threads,
emails. Plain and mutable; `Books` loads them and writes them back."""

from __future__ import annotations

from dataclasses import dataclass, field

from posthouse.mailbox.model import DRAFT, SEEN

Spot = tuple[int, int]
"""(received_at, email): the place of an email in every list, newest last."""
NOWHERE: Spot = (0, 0)


@dataclass(slots=True)
class Account:
    """`modseq` is already the new one: what this transaction writes has it."""

    number: int
    tenant_id: str
    domain: str
    quota: int
    modseq: int
    used: int
    emails: int
    next_email: int
    next_thread: int
    next_mailbox: int


@dataclass(slots=True)
class Box:
    """A mailbox that emails enter. `entered`: how many have, in this transaction."""

    id: int
    name: str
    role: str | None
    uidnext: int
    entered: int = 0


@dataclass(slots=True)
class Share:
    """A thread's part in one mailbox. `latest` None: to be looked up before it is written."""

    total: int = 0
    unread: int = 0
    latest: Spot | None = NOWHERE


@dataclass(slots=True)
class Thread:
    """`before`: its mailboxes when it was loaded. `dirty`: those whose share has changed."""

    account: int
    id: int
    new: bool
    emails: int = 0
    unread: int = 0
    latest_at: int | None = 0
    """None: to be looked up."""
    related: int = 0
    shares: dict[int, Share] = field(default_factory=dict[int, Share])
    was_unread: bool = False
    before: frozenset[int] = frozenset()
    dirty: set[int] = field(default_factory=set[int])


@dataclass(slots=True)
class Member:
    """An email in a mailbox."""

    mailbox: int
    uid: int


@dataclass(slots=True)
class Email:
    """An email that is there already. `keywords` as stored."""

    account: int
    id: int
    thread: int
    size: int
    received_at: int
    keywords: str
    content: str
    members: list[Member] = field(default_factory=list[Member])

    @property
    def words(self) -> set[str]:
        return set(self.keywords.split())

    @property
    def seen(self) -> bool:
        return is_seen(self.words)


def is_seen(keywords: set[str] | tuple[str, ...]) -> bool:
    """Not counted as unread: read, or a draft (RFC 8621 §2)."""
    return SEEN in keywords or DRAFT in keywords


def stored_keywords(keywords: set[str] | tuple[str, ...]) -> str:
    """As `email.keywords` holds them."""
    return f" {' '.join(sorted(keywords))} " if keywords else ""


@dataclass(slots=True)
class Totals:
    """What is added to a mailbox's row. `touched` even when all is 0: its list changed."""

    total: int = 0
    unread: int = 0
    threads: int = 0
    unread_threads: int = 0
    entered: int = 0
