"""The SMTP client and its reply parser: whatever a server answers, nothing is said that was not meant.

The first octet says how the session is set up, the rest is what the server writes. A line comes
when the client has written everything, as a server that follows the rules would; once more all at once.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

from posthouse.smtp.capabilities import parse_capabilities
from posthouse.smtp.client import Client
from posthouse.smtp.command import parse
from posthouse.smtp.outcome import Closed, Delivery, Envelope, Event, Failure, Peer, Ready, StartTls, UseTls
from posthouse.smtp.reply import MAX_LINES, MAX_REPLY, ProtocolViolation, Reply, ReplyParser
from posthouse.smtp.sasl import Credentials
from tests.fuzz.cutting import cuts

_EHLO = (
    b"220 mx.example ESMTP\r\n250-mx.example at your service\r\n250-PIPELINING\r\n250-SIZE 10000\r\n250-8BITMIME\r\n"
    b"250-STARTTLS\r\n250-AUTH PLAIN LOGIN CRAM-MD5\r\n250-CHUNKING\r\n250-DSN\r\n250-SMTPUTF8\r\n"
    b"250-LIMITS RCPTMAX=2 MAILMAX=5\r\n250 ENHANCEDSTATUSCODES\r\n"
)
_PLAIN = b"220 mx.example\n250-mx.example\n250 PIPELINING\n"
_TALKS: tuple[bytes, ...] = (
    b"",
    b"220 x\r\n500 what\r\n250 x\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 q\r\n221 bye\r\n",
    _EHLO
    + b"220 go\r\n"
    + _EHLO[22:]
    + b"235 ok\r\n250 2.1.0 ok\r\n250 2.1.5 ok\r\n450 4.7.1 later\r\n250 2.0.0 ok\r\n",
    _EHLO
    + b"454 4.7.0 no TLS\r\n235 2.7.0 in\r\n250 ok\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n550 x\r\n554 no one\r\n",
    _PLAIN + b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n" * 3 + b"221 bye\r\n",
    _PLAIN + b"250 ok\r\n250 ok\r\n550 no\r\n354-go\r\n354 on\r\n452 4.3.1 full\r\n421 4.3.2 bye\r\n",
    _PLAIN + b"250 ok\r\n550 a\r\n550 b\r\n354 then\r\n250 taken, by nobody\r\n250 reset\r\n",
    _PLAIN + b"552 5.3.4 too big\r\n503 a\r\n503 b\r\n503 c\r\n250 ok\r\n250 ok\r\n",
    _EHLO.replace(b"250-STARTTLS\r\n", b"") + b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 in\r\n250 ok\r\n250 ok\r\n",
    _EHLO.replace(b"250-STARTTLS\r\n", b"") + b"334 PDE4OTYuNjk3QHg+\r\n504 no\r\n334\r\n501 cancelled\r\n",
    b"554 5.7.1 go away\r\n",
    b"421 busy\r\n",
    b"220-a\r\n220-b\r\n" * 60 + b"220 c\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"220 \x1b[31mred\xff\xfe\t" + "\u202e\u2028".encode() + b"\r\n250-x\r\n251 y\r\n250 z\r\n",
    b"220 " + b"x" * 5000 + b"\r\n",
    b"250-5.1.1 a\r\n250 2.1.1 b\r\n",
)
CORPUS: tuple[bytes, ...] = tuple(bytes((index * 29 % 256,)) + talk for index, talk in enumerate(_TALKS)) + tuple(
    bytes((how,)) + talk for how in (0, 0x15) for talk in _TALKS
)
_SECRET = "open sesame"
_SECRETS = (_SECRET.encode(), base64.b64encode(_SECRET.encode()), base64.b64encode(f"\0ann\0{_SECRET}".encode()))
_SMALL = b"Subject: x\r\n\r\n.dot\r\nend"
_LARGE = b"Subject: large\r\n\r\n" + b"..line of text, and more of it\r\n" * 5000
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")
_RESPONSE = re.compile(rb"[A-Za-z0-9+/]*=*|\*|\.")
"""To a challenge of AUTH; or the end of a body that nobody gets."""


def check(data: bytes) -> None:
    """The replies alone, then sessions: line by line, each line in pieces, all at once."""
    how, talk = (data[0], data[1:]) if data else (0, b"")
    _check_replies(talk)
    lines = _LINES.findall(talk)
    whole, pieces = _Session(how), _Session(how)
    whole.run([line] for line in lines)
    pieces.run(cuts(line, 3) for line in lines)
    assert pieces.events == whole.events
    assert pieces.written == whole.written
    _Session(how).run([[talk]])


def _check_replies(talk: bytes) -> None:
    whole, pieces = _replies([talk]), _replies(cuts(talk))
    assert whole == pieces
    for reply in whole:
        if reply is None:
            continue
        assert 200 <= reply.code < 600
        assert 1 <= len(reply.lines) <= MAX_LINES
        assert all(line.isprintable() for line in reply.lines)
        assert reply.enhanced is None or reply.enhanced[0] == str(reply.code)[0]
        _check_written(reply)
        found = parse_capabilities(reply)
        assert found.size is None or found.size > 0
        assert found.recipients_max is None or found.recipients_max > 0
        assert all(keyword.isascii() for keyword in found.keywords)


def _check_written(reply: Reply) -> None:
    for utf8 in (False, True):
        wire = reply.encode(utf8=utf8)
        assert all(len(line) <= 510 for line in wire.split(b"\r\n"))
        if utf8 and all(len(line.encode()) < 480 for line in reply.lines):
            (again,) = _replies([wire])
            assert again is not None
            assert [line.lstrip() for line in again.lines] == [line.lstrip() for line in reply.lines]
            assert again.enhanced == reply.enhanced
        elif len(wire) < MAX_REPLY and wire.count(b"\n") <= MAX_LINES:
            (again,) = _replies([wire])
            assert again is not None
            assert (again.code, again.enhanced) == (reply.code, reply.enhanced)


def _replies(pieces: Iterable[bytes]) -> list[Reply | None]:
    """None stands for the end of all that is SMTP."""
    parser, found = ReplyParser(), list[Reply | None]()
    try:
        for piece in pieces:
            parser.feed(piece)
            while (reply := parser.next()) is not None:
                found.append(reply)
    except ProtocolViolation as violation:
        assert violation.detail is None or violation.detail.isprintable()
        found.append(None)
    return found


class _Session:
    def __init__(self, how: int) -> None:
        self._tls = (UseTls.OFFERED, UseTls.NEVER, UseTls.REQUIRED, UseTls.DONE)[how & 3]
        secret = Credentials("ann", _SECRET, mechanisms=("CRAM-MD5", "PLAIN", "LOGIN")) if how & 4 else None
        self._encrypted = self._tls is UseTls.DONE
        self._handshakes = not how & 8
        self._content = _LARGE if how & 16 else _SMALL
        people = ("bob@example.org", "carl@example.org", "dora@example.org")[: 1 + (how >> 5) % 3]
        self._envelope = Envelope("ann@example.com" if how < 128 else "", people, body_8bit=how >= 128)
        self.client = Client("client.example", Peer("mx.example"), tls=self._tls, credentials=secret)
        self.events: list[Event] = []
        self.written = bytearray()
        self._clear = bytearray()
        self._begun = self._ended = 0
        self._since = 0

    def run(self, lines: Iterable[Iterable[bytes]]) -> None:
        """Each line in its pieces."""
        for line in lines:
            for piece in line:
                self._hear(self.client.receive(piece))
            self._write()
            if self.client.closed:
                break
        self._hear(self.client.lost())
        assert self.client.closed
        assert self.client.lost() == self.client.receive(b"220 late\r\n") == []
        assert not self.client.take()
        assert self._begun == self._ended
        assert not any(secret in self._clear for secret in _SECRETS)
        if self._content is _SMALL:
            self._check_commands()

    def _hear(self, events: list[Event]) -> None:
        for event in events:
            self.events.append(event)
            match event:
                case StartTls():
                    self._write()
                    self._hear(self._handshake())
                case Ready() | Delivery():
                    if isinstance(event, Delivery):
                        self._ended += 1
                        self._check_delivery(event)
                    self._go_on()
                case Failure():
                    assert self.client.closed
                    assert str(event.reply).isprintable()
                    assert event.detail.isprintable()
                case Closed():
                    assert self.client.closed

    def _handshake(self) -> list[Event]:
        if not self._handshakes:
            return self.client.tls_failed("no\nhandshake")
        self._encrypted = True
        return self.client.tls_started(Peer("mx.example", tls="TLSv1.3"))

    def _go_on(self) -> None:
        client = self.client
        if not client.reusable:
            assert client.closed or client.quit()
            return
        if self._begun >= 3:
            assert client.quit()
            return
        self._write()
        self._since = len(self.written)
        refused = client.deliver(self._envelope, self._content)
        if refused is None:
            self._begun += 1
        else:
            assert refused.final is None
            assert refused.ours == frozenset(range(len(self._envelope.recipients)))
            assert client.quit()

    def _check_delivery(self, event: Delivery) -> None:
        assert len(event.replies) == len(self._envelope.recipients)
        assert all(str(reply).isprintable() for reply in event.replies)
        taken = [reply for index, reply in enumerate(event.replies) if reply.ok and index not in event.ours]
        sent = self._sent_whole(bytes(self.written[self._since :]))
        assert sent or not (taken or event.unknown)
        assert not taken or (event.final is not None and event.final.ok)
        assert not any(event.replies[index].ok for index in event.ours)
        assert not event.unknown or event.failure is not None

    def _sent_whole(self, wire: bytes) -> bool:
        lines = self._content if self._content.endswith(b"\r\n") else self._content + b"\r\n"
        stuffed = (b"\r\n" + lines).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
        return stuffed in wire or any(
            b"BDAT %d LAST\r\n%s" % (len(content), content) in wire for content in (self._content, lines)
        )

    def _write(self) -> None:
        client = self.client
        while True:
            wire = client.take()
            block = None if wire else client.next_block()
            if block is None and not wire:
                break
            piece = wire or bytes(block or b"")
            assert piece
            self.written += piece
            if not self._encrypted:
                self._clear += piece
        assert client.timeout is None or client.timeout > 0

    def _check_commands(self) -> None:
        """Each line beside the message is a command that our own server reads."""
        rest = bytes(self.written).replace(_SMALL.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n", b"")
        for line in rest.replace(_SMALL, b"").split(b"\r\n"):
            if not _RESPONSE.fullmatch(line):
                parse(line)
