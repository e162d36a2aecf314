"""What the sessions of a gateway share: the parts of accept and its rules."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol

import msgspec

from posthouse.clock import Clock
from posthouse.directory.resolve import Resolver
from posthouse.inbound.checks import Checks
from posthouse.inbound.durable import Durable
from posthouse.inbound.greylist import Greylist
from posthouse.inbound.refusals import Refusals
from posthouse.inbound.screen import Screen
from posthouse.mail.srs import Srs
from posthouse.mailauth.evidence import Authentication
from posthouse.smtp.peer import Tls


class Authenticate(Protocol):
    """SPF, DKIM, ARC and DMARC of a message, bounded in time. What DNS cannot say is `temperror`."""

    def __call__(
        self, message: bytes | mmap, *, peer: str, helo: str, reverse_path: str, now: int
    ) -> Awaitable[Authentication]: ...


class Hop(msgspec.Struct, frozen=True, gc=False):
    """How a message came to us, for the fields that are put before it (RFC 5321 §4.4).

    `verb`: EHLO, HELO or LHLO. `host`: by reverse DNS, confirmed. `recipient`: when there is
    only one, else ''. `at`: µs.
    """

    id: str
    at: int
    peer: str
    host: str | None
    helo: str
    verb: str
    tls: Tls | None
    utf8: bool
    reverse_path: str
    recipient: str
    auth: Authentication


class Trace(Protocol):
    """Return-Path, Received and Authentication-Results, each ending in CR LF."""

    def __call__(self, hop: Hop) -> bytes: ...


class Rules(msgspec.Struct, frozen=True):
    """:ivar trusted: domains whose forwarding (ARC, a list's own signature) excuses mail that fails DMARC.
    :ivar unknown_senders: refuse mail whose sender's domain takes no mail (550 5.1.8).
    :ivar patience: seconds from the connection, the greeting or MAIL that their DNS answers have.
    :ivar hops: Received fields of a message; with more it goes in circles (RFC 5321 §6.3).
    :ivar targets: accounts and addresses that one message may go to, groups resolved."""

    trusted: frozenset[str] = frozenset()
    unknown_senders: bool = False
    patience: float = 5.0
    hops: int = 100
    targets: int = 5000


@dataclass(frozen=True, slots=True)
class House:
    resolver: Resolver
    checks: Checks
    greylist: Greylist
    refusals: Refusals
    durable: Durable
    authenticate: Authenticate
    trace: Trace
    rules: Rules
    clock: Clock
    srs: Srs | None
    """Takes back what bounces of what was sent on; None: nothing is sent on."""
    screen: Screen | None
    """For domains that refuse spam; None: none is refused."""
    refusing: bool
    """Some list refuses, so a recipient waits for what the lists say."""
