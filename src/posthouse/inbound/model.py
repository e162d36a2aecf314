"""What the stages of receiving hand on; each is frozen, and JSON in the records."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from posthouse.mailauth.evidence import Authentication

ACCEPT = "accept"
STORE = "store"
INDEX = "index"
"""The stages' names; `store` and `index` are queues too."""


UNASKED = "It came from our own front server, which knows the client and has checked it."
"""The reason of results that nobody asked for."""


class State(StrEnum):
    """Of one recipient of an acknowledged message. All but the first are final."""

    ACCEPTED = "accepted"
    STORED = "stored"
    DISCARDED = "discarded"
    """By the account's own rule."""
    FORWARDED = "forwarded"
    """Handed to the sending flow, and not kept here."""
    FAILED = "failed"
    """Could not be stored or forwarded for good; the outcome says why and who was told."""


class Listing(msgspec.Struct, frozen=True, gc=False):
    """A hit in a DNS list. `weight` > 0 speaks against the sender."""

    zone: str
    value: str
    weight: float
    text: str = ""


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was known about a message when it was acknowledged.

    `host`: the peer's name by reverse DNS, confirmed forward, or None. `flaws`: what was odd
    in the session, by code: `helo_ip` (an address for a name), `helo_ours` (our own name),
    `helo_unqualified`, `helo_unresolvable`, `rdns_none`, `rdns_unconfirmed`, `sender_null_mx`,
    `sender_unresolvable`, `early_talker`, … `greylisted`: it had to wait before it was taken.
    """

    peer: str
    helo: str
    host: str | None
    auth: Authentication
    tls: str | None = None
    listener: str = "mx"
    listings: tuple[Listing, ...] = ()
    flaws: tuple[str, ...] = ()
    greylisted: bool = False
    dmarc_override: str | None = None
    """Why mail that fails DMARC was not treated as its domain asks."""
    junk: str | None = None
    """Policy sends it to Junk whatever the filter says: why."""


class Via(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a recipient led to an account: aliases passed, the tag, or the address elsewhere.
    `junk`: as `Evidence.junk`, when it is so for this recipient and not for all."""

    aliases: tuple[str, ...] = ()
    tag: str = ""
    forward: str = ""
    junk: str | None = None


class Recipient(msgspec.Struct, frozen=True):
    n: int
    tenant_id: str
    address: str
    account: int
    via: Via


class Arrival(msgspec.Struct, frozen=True):
    """An acknowledged message with those of its recipients that are not done. `raw`: its bytes."""

    id: str
    received_at: int
    content: str
    size: int
    reverse_path: str
    evidence: Evidence
    trace: bytes
    recipients: tuple[Recipient, ...]
    raw: bytes


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """`rule`: its code in the table of rules; `text`: the sentence, with its facts filled in."""

    rule: str
    score: float
    text: str


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """`score`: the sum of the reasons'. `junk`: it reached the bound, or policy or a scanner
    says so. `probability`: the learned classifier's, when there is one. `virus`: what a scanner
    found. `scanner`: why it could not be asked."""

    score: float
    junk: bool
    reasons: tuple[Reason, ...] = ()
    probability: float | None = None
    virus: str | None = None
    scanner: str | None = None


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one recipient, for `inbound_rcpt.outcome` and for explain."""

    state: State
    email: int = 0
    thread: int = 0
    mailboxes: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    """Sentences: the rules that fired, why this thread, who was told."""
