"""The SMTP server's session: however a conversation is cut, it is the same one.

The first octet says how the shell answers, the rest is what a client writes. Bodies are compared
with a reading of the same octets that knows nothing of pieces, so none can be smuggled in another.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from posthouse.smtp.answers import FLAWS
from posthouse.smtp.command import MAX_AUTH, Auth, BadCommand, Bdat, Body, Mail, Rcpt, parse
from posthouse.smtp.events import AuthData, DataChunk, DataEnd, DataStart, Event, Reset, StartTls
from posthouse.smtp.offer import Limits, Offer
from posthouse.smtp.reply import Reply
from posthouse.smtp.server import Server
from tests.fuzz.cutting import cuts

_OPEN = b"EHLO client.example\r\nMAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.org>\r\n"
_CONVERSATIONS: tuple[bytes, ...] = (
    b"",
    b"QUIT\r\n",
    _OPEN + b"DATA\r\nSubject: x\r\n\r\n..dots\r\n.\r\nQUIT\r\n",
    _OPEN + b"DATA\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example> NOTIFY=NEVER\r\nDATA\r\nx\r\n.\r\n",
    _OPEN + b"DATA\r\nx\n.\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<v@example.org>\r\nDATA\r\ny\r\n.\r\n",
    _OPEN + b"DATA\r\nx\r\n.\rMAIL FROM:<e@f>\r.\r\r\n.\r\nNOOP\r\n",
    _OPEN + b"BDAT 6\r\nabcde\rBDAT 3 LAST\r\n\nfgRSET\r\nVRFY ann\r\nHELP\r\n",
    _OPEN + b"BDAT 4\r\n\r\n.\rNOOP\r\nBDAT 2 LAST\r\n\n.QUIT\r\n",
    _OPEN + b"BDAT 400\r\n" + b"a" * 398 + b"\r\nBDAT 5000 LAST\r\n" + b"b" * 5000 + b"NOOP\r\n",
    b"EHLO c\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<c@d>\r\nBDAT 5 LAST\r\n\0\n\r\n\xffDATA\r\n",
    b"EHLO c\r\nMAIL FROM:<a@b>\r\nBDAT 3 LAST\r\nxyzBDAT 99999999999999999999\r\nNOOP\r\n",
    b"EHLO c\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\nAUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\n*\r\nMAIL FROM:<a@b>\r\n",
    b"EHLO c\r\nAUTH LOGIN\r\n*\r\nAUTH LOGIN\r\n!!\r\nAUTH X\r\n" + b"A" * 13_000 + b"\r\nNOOP\r\n",
    b"EHLO c\r\nSTARTTLS\r\nMAIL FROM:<injected@example.com>\r\n",
    "EHLO c\r\nMAIL FROM:<dö@b.example> SMTPUTF8\r\nRCPT TO:<bö@b.example>\r\nDATA\r\nö\r\n.\r\n".encode(),
    b"HELO c\r\nEHLO d\r\nLHLO e\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"NOOP\r\n" * 30,
    _OPEN + b"RCPT TO:<x@y>\r\n" * 12 + b"DATA\r\n" + b"line\r\n" * 800 + b".\r\n",
)
CORPUS: tuple[bytes, ...] = tuple(
    bytes((index * 17 % 64,)) + text for index, text in enumerate(_CONVERSATIONS)
) + tuple(b"\0" + text for text in _CONVERSATIONS)
_LIMITS = Limits(size=4096, recipients=10, refusals=6, errors=6, idle=20, transactions=4)
_REPLY = re.compile(rb"(?:([2-5][0-9]{2})-[^\r\n\0]{0,506}\r\n)*([2-5][0-9]{2})(?: [^\r\n\0]{0,506})?\r\n")
_FLAWED = frozenset(reply.encode() for reply in FLAWS.values())
_FLAW = Reset(Reply(550))


def check(data: bytes) -> None:
    """Whole, in pieces, and octet by octet when there are few."""
    how, talk = (data[0], data[1:]) if data else (0, b"")
    whole = _Shell(how, talk)
    whole.run([talk])
    pieces = _Shell(how, talk)
    pieces.run(cuts(talk))
    pieces.compare(whole)
    if len(talk) <= 600:
        octets = _Shell(how, talk)
        octets.run(talk[index : index + 1] for index in range(len(talk)))
        octets.compare(whole)


class _Shell:
    """Answers by the number of the question, so that every run answers alike."""

    def __init__(self, how: int, talk: bytes) -> None:
        offer = Offer(
            "mx.example", starttls=True, auth=("PLAIN", "LOGIN"), auth_in_clear=bool(how & 1), lmtp=how & 6 == 6
        )
        self.server = Server(offer, _LIMITS)
        self.events: list[Event] = []
        self.replies: list[bytes] = []
        self._talk = talk
        self._refuse_each = (how >> 3) + 2 if how >= 8 else 0
        self._asked = itertools.count(1)
        self._fed = 0
        self._accepted = 0
        self._body: list[bytes] | None = None
        self._begins = 0
        self._binary = False

    def run(self, pieces: Iterable[bytes]) -> None:
        self._drain()
        for piece in pieces:
            self._fed += len(piece)
            self.server.receive(piece)
            self._drain()
            if self.server.closed or any(isinstance(event, StartTls) for event in self.events[-1:]):
                break
        self._drain()

    def compare(self, other: _Shell) -> None:
        assert self.events == other.events
        # A body with two flaws is refused for the one that its first piece shows.
        assert [one in _FLAWED or one for one in self.replies] == [one in _FLAWED or one for one in other.replies]
        assert self.server.closed is other.server.closed

    def _drain(self) -> None:
        server = self.server
        while (event := server.next_event()) is not None:
            self._heard(event)
            if server.waiting:
                self._answer(event)
            self._keep_replies()
        self._keep_replies()
        assert server.closed or server.buffered <= MAX_AUTH + 1
        assert not server.waiting

    def _keep_replies(self) -> None:
        out = self.server.take()
        at = 0
        while at < len(out):
            found = _REPLY.match(out, at)
            assert found is not None, out[at:]
            self.replies.append(found[0])
            at = found.end()

    def _answer(self, event: Event) -> None:
        server, number = self.server, next(self._asked)
        if isinstance(event, StartTls):
            server.accept()
            assert server.buffered == 0
        elif isinstance(event, Auth | AuthData) and number % 3:
            server.challenge(b"more")
        elif self._refuse_each and number % self._refuse_each == 0:
            server.reject(Reply(550 if number % 5 else 421, "5.7.1" if number % 5 else "4.3.2", ("No\r\n250 fine",)))
        elif isinstance(event, DataEnd) and server.offer.lmtp and number % 2:
            server.answer_each([Reply(250 if n % 2 else 450) for n in range(self._accepted)])
        else:
            server.accept()
            self._accepted = (
                self._accepted + 1 if isinstance(event, Rcpt) else 0 if isinstance(event, Mail) else self._accepted
            )

    def _heard(self, event: Event) -> None:
        match event:
            case DataChunk(data):
                assert self._body is not None
                assert data
                self._body.append(data)
            case Reset(refused):
                self._body = None
                self.events.append(event if refused is None else _FLAW)
            case DataStart(chunked):
                self._body = []
                self._begins = self._fed - self.server.buffered
                self.events.append(event)
                assert chunked is (self._line_before(self._begins)[:4].upper() == b"BDAT")
            case DataEnd(size):
                self._check_body(size)
                self.events.append(event)
            case Mail():
                self._binary = event.body is Body.BINARY
                self.events.append(event)
            case _:
                self.events.append(event)

    def _check_body(self, size: int) -> None:
        assert self._body is not None
        assert not any(one.endswith(b"\r") and two.startswith(b"\n") for one, two in itertools.pairwise(self._body))
        body = b"".join(self._body)
        self._body = None
        assert len(body) == size <= _LIMITS.size
        chunked = next(event.chunked for event in reversed(self.events) if isinstance(event, DataStart))
        expected, end = self._chunks() if chunked else self._dotted()
        assert body == expected
        assert end == self._fed - self.server.buffered
        if not self._binary:
            assert not set(body.replace(b"\r\n", b"")) & set(b"\r\n\0")

    def _dotted(self) -> tuple[bytes, int]:
        """RFC 5321 §4.5.2, of the whole octets: the body, and where it is over."""
        lines: list[bytes] = []
        at = self._begins
        while True:
            end = self._talk.index(b"\r\n", at) + 2
            line = self._talk[at:end]
            at = end
            if line == b".\r\n":
                return b"".join(lines), at
            lines.append(line.removeprefix(b"."))

    def _chunks(self) -> tuple[bytes, int]:
        """RFC 3030 §2, likewise."""
        body, at = b"", self._begins
        line = self._line_before(at)
        while True:
            try:
                command = parse(line)
            except BadCommand:
                command = None
            if isinstance(command, Bdat):
                body += self._talk[at : at + command.size]
                at += command.size
                if command.last:
                    return body, at
            end = self._talk.index(b"\r\n", at)
            line, at = self._talk[at:end], end + 2

    def _line_before(self, at: int) -> bytes:
        return self._talk[:at].removesuffix(b"\r\n").rpartition(b"\n")[2]
