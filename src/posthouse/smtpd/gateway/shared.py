"""What the connections of one gateway share."""

from __future__ import annotations

import asyncio
from typing import Protocol

from posthouse.smtpd.conversation import Begin
from posthouse.smtpd.gateway.admission import Admission
from posthouse.smtpd.gateway.certificates import Certificates
from posthouse.smtpd.gateway.metrics import Meters
from posthouse.smtpd.gateway.options import Kind, Options
from posthouse.smtpd.gateway.spool import Spool


class Open(Protocol):
    """What the gateway needs of a connection."""

    def look(self, now: float) -> None:
        """Once a tick: end what is overdue. :param now: of the loop's clock."""
        ...

    def drain(self) -> None:
        """End it as soon as no transaction is open."""
        ...

    def cut(self) -> None:
        """End it now."""
        ...


class Shared:
    """:raises Misconfigured: the certificate cannot be used.
    :raises OSError: the spool directory cannot be used.
    """

    def __init__(self, begin: Begin, options: Options) -> None:
        self.begin = begin
        self.options = options
        kinds: set[Kind] = {listener.kind for listener in options.listeners}
        self.offers = {kind: options.offer(kind) for kind in kinds}
        self.meters = {kind: Meters.of(kind) for kind in kinds}
        self.certificates = Certificates(options.certificate, options.key) if options.certificate else None
        self.admission = Admission(options.connections, options.per_address)
        self.spool = Spool(options.spooling)
        self.connections: set[Open] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.stopping = False

    def opened(self, connection: Open) -> None:
        self.connections.add(connection)
        self.empty.clear()

    def closed(self, connection: Open) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()
