"""What the sessions of one sink share."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import OrderedDict
from typing import Protocol

from posthouse.smtp.reply import Reply
from posthouse.smtpd.sink.behaviour import Behaviours
from posthouse.smtpd.sink.certificate import Certificate
from posthouse.smtpd.sink.counts import Counts
from posthouse.smtpd.sink.journal import Entry, Journal
from posthouse.smtpd.sink.keep import Memory, keeper
from posthouse.smtpd.sink.options import Options

_REMEMBERED = 100_000
"""Envelopes of `defer-N@` and `greylist@` remembered; the oldest are forgotten."""
FAST_SIZE = 10_000_000
"""Octets under which a message may take the fast path of a session; seven digits of SIZE."""


class Peer(Protocol):
    """What the sink needs of a session."""

    active: bool

    def stop(self, reply: Reply) -> None: ...


class State:
    """Counts, journal, kept messages, and the memory of `defer-N@` and `greylist@`.

    :raises ValueError: an option is wrong.
    :raises OSError: the log or the place to keep cannot be opened.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.offer = options.offer()
        self.behaviours = Behaviours(options.mix, options.seed)
        self.mixed = self.behaviours.mixed
        self.counts = Counts()
        self.memory = Memory(options.memory, options.memory_octets)
        self.keeper = keeper(options.keep, options.keep_as, options.keep_every) if options.keep else None
        self.journal = Journal(options.log) if options.log else None
        self.keeps = self.keeper is not None or options.memory > 0
        self.records = self.keeps or self.journal is not None
        self.sessions: set[Peer] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.certificate: Certificate | None = None
        self.fast = not (options.off or options.lmtp or options.latency or options.limits.transactions) and (
            options.limits.size >= FAST_SIZE and options.limits.text_line == 1000
        )
        self.check = options.check
        self.counting = False
        self.waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._tries: OrderedDict[object, int] = OrderedDict()
        self._seen: OrderedDict[object, float] = OrderedDict()

    def opened(self, session: Peer) -> None:
        self.sessions.add(session)
        self.empty.clear()
        self.counts.connections += 1
        self.counts.open += 1

    def closed(self, session: Peer) -> None:
        self.sessions.discard(session)
        if not self.sessions:
            self.empty.set()
        self.counts.open -= 1

    def context(self) -> ssl.SSLContext:
        """:raises ssl.SSLError: there is no certificate."""
        if self.certificate is None:
            raise ssl.SSLError("no certificate")
        return self.certificate.context

    def tried(self, envelope: object) -> int:
        """How often this envelope came, this time counted."""
        count = self._tries.pop(envelope, 0) + 1
        self._tries[envelope] = count
        if len(self._tries) > _REMEMBERED:
            self._tries.popitem(last=False)
        return count

    def greylisted(self, envelope: object, seconds: float) -> bool:
        """Whether `seconds` have not yet passed since this envelope first came."""
        now = time.monotonic()
        first = self._seen.setdefault(envelope, now)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return first == now or now - first < seconds

    def record(self, entry: Entry, body: bytes) -> None:
        """A message accepted: into the journal first, then where it is kept."""
        if self.journal is not None:
            self.journal.add(entry)
        if self.keeper is not None:
            self.keeper.add(entry, body)
        if self.options.memory:
            self.memory.add(entry, body)

    def count(self) -> None:
        """Wake those who wait for a number of messages."""
        accepted = self.counts.accepted
        for wanted, future in self.waiters:
            if accepted >= wanted and not future.done():
                future.set_result(None)
        self.waiters = [waiter for waiter in self.waiters if not waiter[1].done()]
        self.counting = bool(self.waiters)
