"""What a gateway is told at its start. Times in seconds, sizes in octets."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from posthouse.smtp.offer import Limits, Offer

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Kind = Literal["mx", "lmtp"]

COMMAND_MIN = 300.0
"""RFC 5321 §4.5.3.2.7: a server waits at least as long for the next command."""
LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Listener:
    """`proxies`: from these addresses, and from no others, a PROXY v2 header is taken; from
    them it has to come. `fronts` (LMTP): the site's own front servers, whose sessions are
    `Peer.trusted` and not counted by address."""

    kind: Kind
    host: str = "127.0.0.1"
    port: int = 0
    proxies: tuple[Network, ...] = ()
    fronts: tuple[Network, ...] = LOOPBACK


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`command`: until the next whole command, however its octets dribble. `data`: without an
    octet of a body. `proxy`: until the PROXY header is whole. `tls`: of the handshake. `linger`:
    in which a peer that was refused may read why. `life`: of a session, ended between two
    transactions, and at twice this in any case."""

    command: float = COMMAND_MIN
    data: float = COMMAND_MIN
    proxy: float = 5.0
    tls: float = 60.0
    linger: float = 5.0
    life: float = 3600.0


@dataclass(frozen=True, slots=True)
class Pace:
    """A body has to come with `octets` a second, looked at once a `window`. Time in which it
    is we who keep the peer waiting is not counted."""

    octets: float = 50.0
    window: float = 300.0


@dataclass(frozen=True, slots=True)
class Spooling:
    """Where bodies are collected. `in_memory`: of one body, what is above goes to a file in
    `directory`. `memory`: of all bodies together; above it no transaction begins and bodies
    go to files at once. `least_free`: of the directory's file system."""

    directory: Path
    in_memory: int = 256 * 1024
    memory: int = 64 * 1024 * 1024
    least_free: int = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """`certificate` and `key` are PEM files, read again when they change; without them there is
    no STARTTLS. `per_address` counts an IPv4 address or an IPv6 /64. `banner_delay`: octets
    that come in this time before the greeting are answered 554; with 0 they are only told."""

    hostname: str
    listeners: Sequence[Listener]
    spooling: Spooling
    certificate: Path | None = None
    key: Path | None = None
    connections: int = 1000
    per_address: int = 20
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    pace: Pace = field(default_factory=Pace)
    banner_delay: float = 0.0
    backlog: int = 1024

    def offer(self, kind: Kind) -> Offer:
        return Offer(self.hostname, starttls=self.certificate is not None, lmtp=kind == "lmtp")
