"""What a server session remembers: its phase, its buffer, its counts and the open transaction."""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from posthouse.smtp import answers as say
from posthouse.smtp.body import BodyCheck, ChunkDecoder, DotDecoder
from posthouse.smtp.command import Hello, Mail
from posthouse.smtp.events import Connected, DataChunk, DataEnd, Event, Reset
from posthouse.smtp.offer import Limits, Offer
from posthouse.smtp.reply import Reply

_BUFFER = 32_768
"""Octets fed and not yet looked at above which `wants_data` is false: pipelined behind an answer that is due."""


_POLITE = 1_048_576
"""Octets of a refused body that are read in any case; beyond it as many as a message may have."""


class Phase:
    """In order. Plain numbers: a member of an Enum costs 0.1 µs to look up in Python 3.11."""

    NEW = 0  # the greeting is not out
    COMMAND = 1
    AUTH = 2  # a response to a challenge is due
    DATA = 3
    CHUNK = 4
    END = 5  # the body is whole, its end not yet told
    TLS = 6  # the handshake is on
    CLOSED = 7


@lru_cache(maxsize=512)
def encode(reply: Reply, utf8: bool) -> bytes:
    return reply.encode(utf8=utf8)


class Session:
    """The state under `Server`, and the part of its interface that only reads or ends it.

    :param tls: the transport is TLS already (implicit TLS).
    """

    def __init__(self, offer: Offer, limits: Limits | None = None, *, tls: bool = False) -> None:
        self.offer = offer
        self.limits = limits or Limits()
        self.tls = tls
        self.authenticated = False
        self.hello: Hello | None = None
        self._phase = Phase.NEW
        self._refused = False  # the greeting was 554
        self._buffer = b""
        self._at = 0  # what stands before it in the buffer has been looked at
        self._skipping = False  # the rest of a line that is too long
        self._out: list[bytes] = []
        self._events: deque[Event] = deque((Connected(),))
        self._waiting: Event | None = None
        self._errors = self._refusals = self._idle = self._transactions = 0
        self._mail: Mail | None = None
        self._check = BodyCheck(self.limits.size)
        self._dots = DotDecoder()
        self._forget()

    @property
    def closed(self) -> bool:
        """Write what `take` gives, then close the connection."""
        return self._phase is Phase.CLOSED

    @property
    def wants_data(self) -> bool:
        return self.buffered < _BUFFER and self._phase is not Phase.CLOSED

    @property
    def buffered(self) -> int:
        """Octets fed and not yet looked at; before the greeting they mean an early talker."""
        return len(self._buffer) - self._at

    @property
    def waiting(self) -> bool:
        """An event has been given out whose answer is due."""
        return self._waiting is not None

    @property
    def idle(self) -> bool:
        """Greeted, no transaction open, nothing buffered, nothing to say: the next octet begins a command."""
        return (
            self._phase is Phase.COMMAND
            and self.hello is not None
            and self._mail is None
            and not (self.buffered or self._waiting or self._out or self._events or self._skipping)
        )

    @property
    def in_body(self) -> bool:
        """Octets of a message are due, so the longer time-out counts (RFC 5321 §4.5.3.2.5)."""
        return self._phase in {Phase.DATA, Phase.CHUNK}

    def receive(self, data: bytes) -> None:
        """Feed octets in order. Those that come in the clear after STARTTLS are dropped."""
        if self._phase < Phase.TLS:
            self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
            self._at = 0

    def take(self) -> bytes:
        """The replies since the last call, to be written at once."""
        if not self._out:
            return b""
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return out

    def tls_started(self) -> None:
        """The handshake is done: everything learnt before it is forgotten (RFC 3207 §4.2)."""
        if self._phase is not Phase.TLS:
            raise ValueError("no handshake was due")
        self.tls = True
        self.authenticated = False
        self.hello = None
        self._phase = Phase.COMMAND

    def close(self, reply: Reply = say.SHUTDOWN) -> None:
        """Say 421 (or `reply`) and close, whatever is going on. An open transaction is `Reset`."""
        if self._phase is Phase.CLOSED:
            return
        if self._phase is not Phase.TLS:
            self._say(reply)
        self.lost()

    def lost(self) -> None:
        """The connection is gone; what is open is `Reset`."""
        self._phase = Phase.CLOSED
        self._waiting = None
        self._buffer, self._at = b"", 0
        self._events = deque(event for event in self._events if isinstance(event, DataChunk | Reset))
        self._abandon()

    def forgive(self) -> None:
        """Start counting errors, refusals and idle commands anew, as after a message accepted."""
        self._errors = self._refusals = self._idle = 0

    # -- state --------------------------------------------------------------------------

    def _say(self, reply: Reply) -> None:
        if not self.offer.enhanced and reply.enhanced:
            reply = Reply(reply.code, None, reply.lines)
        self._out.append(encode(reply, self._mail is not None and self._mail.smtputf8))

    def _say_each(self, reply: Reply) -> None:
        for _ in range(self._accepted if self.offer.lmtp else 1):  # RFC 2033 §4.2
            self._say(reply)

    def _fail(self, reply: Reply) -> None:
        """Answer a command that is wrong, and count it."""
        self._say(reply)
        self._errors += 1
        if self._errors > self.limits.errors:
            self.close(say.TOO_MANY_ERRORS)

    def _count_refusal(self) -> None:
        self._refusals += 1
        if self._refusals > self.limits.refusals:
            self.close(say.TOO_MANY_REFUSED)

    def _count_idle(self) -> bool:
        self._idle += 1
        if self._idle > self.limits.idle:
            self.close(say.TOO_MANY_IDLE)
        return not self.closed

    def _finished(self, *, good: bool) -> None:
        self._phase = Phase.COMMAND
        self._transactions += 1
        if good:
            self.forgive()
        self._forget()

    def _abandon(self) -> None:
        if self._mail is not None and self._flaw is None:
            self._events.append(Reset())
        self._forget()

    def _forget(self) -> None:
        self._mail = None
        self._accepted = 0
        self._attempted = False
        self._flaw: Reply | None = None
        self._dropped = 0
        self._left = 0
        self._last = False
        self._chunked = False  # the body comes by BDAT
        self._chunk_failed = False
        self._chunk_reply: Reply | None = None
        self._chunks = ChunkDecoder()

    # -- the body -------------------------------------------------------------------------

    def _read_data(self) -> bool:
        data = self._rest()
        if not data:
            return False
        piece, rest = self._dots.feed(data)
        self._give(piece)
        if rest is not None and not self.closed:
            self._buffer = rest
            self._phase = Phase.END
        return True

    def _rest(self) -> bytes:
        data = self._buffer[self._at :] if self._at else self._buffer
        self._buffer, self._at = b"", 0
        return data

    def _read_chunk(self) -> bool:
        if self._left and not self.buffered:
            return False
        data = self._buffer[self._at : self._at + self._left]
        self._at += len(data)
        self._left -= len(data)
        done = self._left == 0
        if self._chunk_reply is not None:
            self._discard(len(data))
        else:
            self._give(self._chunks.feed(data, last=done and self._last))
        if done and not self.closed:
            self._end_chunk()
        return True

    def _give(self, piece: bytes) -> None:
        """Hand out a piece of the body, or drop it when the body is refused."""
        if self._flaw is not None:
            self._discard(len(piece))
        elif not piece:
            return
        elif self._check.look(piece):
            self._events.append(DataChunk(piece))
        else:
            assert self._check.flaw is not None
            self._spoil(say.FLAWS[self._check.flaw])

    def _spoil(self, reply: Reply) -> None:
        self._flaw = reply
        self._events.append(Reset(reply))

    def _discard(self, size: int) -> None:
        # What nobody wants is read politely, but not for ever.
        self._dropped += size
        if self._dropped > max(self.limits.size, _POLITE):
            self.close(say.TOO_MANY_OCTETS)

    def _end_chunk(self) -> None:
        self._phase = Phase.COMMAND
        if self._chunk_reply is not None:
            failed = self._chunk_failed
            self._fail(self._chunk_reply)
            if failed and self._last:
                self._forget()
        elif self._last:
            self._phase = Phase.END
        elif self._flaw is not None:
            self._say(self._flaw)
            self._chunk_failed = True
        else:
            self._say(say.OK)

    def _read_end(self) -> bool:
        if self._flaw is None:
            self._events.append(DataEnd(self._check.size))
        else:
            self._say_each(self._flaw)
            self._finished(good=False)
        return True
