"""Routes, destinations and parcels, as types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from posthouse.net.tls import TlsPolicy
from posthouse.smtp.outcome import Delivery
from posthouse.smtp.sasl import Credentials


class Kind(StrEnum):
    MX = "mx"
    """To the hosts that DNS names for the recipient's domain."""
    RELAY = "relay"
    """To one of our own choice that forwards: the hosts in order, the next when one is away."""
    STATIC = "static"
    """To fixed hosts that are the destination themselves."""


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    kind: Kind
    domains: tuple[str, ...]
    """Patterns: `example.com`, `*.example.com` (what is below it), `*`."""
    tls: TlsPolicy
    hosts: tuple[tuple[str, int], ...] = ()
    port: int = 25
    """Of the MX hosts."""
    credentials: Credentials | None = None
    connections: int = 20
    """At once to one site, all lanes together."""


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a domain's mail goes. `hosts` are (name, port) in order of preference."""

    site: str
    route: Route
    hosts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class NoDestination:
    """Why there is none, as a reply of our own (RFC 3463 code) and a cause for the events."""

    cause: str
    permanent: bool
    code: int
    enhanced: str
    text: str


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """How an attempt at a parcel ended: the peer's answers, or why there are none.

    Without a `delivery` nothing was sent. `site_retry_at` (µs): the site is suspended until
    then, whoever the mail is for.
    """

    started_at: int
    ended_at: int
    delivery: Delivery | None = None
    cause: str = ""
    detail: str = ""
    site_retry_at: int | None = None


@dataclass(slots=True, eq=False)
class Parcel:
    """One transaction to be made: an envelope and its bytes, on its way to one site."""

    lane: int
    reverse_path: str
    recipients: tuple[str, ...]
    data: bytes
    smtputf8: bool
    deadline: int
    """Not attempted after this (µs): the message's age or the job's lease."""
    settle: Callable[[Parcel, Attempt], Awaitable[None]]
    """Awaited by the connection before its next message: on return the outcome is durable."""
    context: Any = field(default=None, repr=False)
    ready_at: int = 0
    """Since when it waits at the site (µs)."""
    met_closed: bool = False
    """It was given to a connection that the peer had closed meanwhile; that is not held against it once."""
