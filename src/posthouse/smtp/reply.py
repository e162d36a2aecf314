"""SMTP replies: read from a peer (RFC 5321 §4.2), written by us, and made from our errors.

A peer's text is shown to people, so it is decoded without ever failing and every character
that is not printable is escaped: a reply can neither break a log line nor colour a terminal.
"""

from __future__ import annotations

import re

import msgspec

from posthouse.errors import Error

MAX_LINE = 4096
"""Octets of one line. RFC 5321 §4.5.3.1.5 allows 512; longer ones exist."""
MAX_LINES = 128
MAX_REPLY = 65_536
"""Octets of one reply, all its lines together."""
_WRITTEN_LINE = 510  # RFC 5321 §4.5.3.1.5, without CR LF

_ENHANCED = re.compile(r"([245]\.(?:0|[1-9][0-9]{0,2})\.(?:0|[1-9][0-9]{0,2}))(?: +|$)")  # RFC 3463 §2


class ProtocolViolation(Error):
    """The peer does not speak SMTP: its bytes are not a reply, or are over a bound."""

    code = "protocol_violation"
    status = 502
    enhanced = "4.5.0"
    temporary = True
    title = "The peer's answer is not SMTP"


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One reply, of one line or many.

    `enhanced` is an RFC 3463 code of the same class as `code`; `lines` are the texts without
    both. What the peer sent is `lines`; `text` is for one line of a log.
    """

    code: int
    enhanced: str | None = None
    lines: tuple[str, ...] = ("",)

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    @property
    def temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    @property
    def text(self) -> str:
        """All lines in one, joined by a space."""
        return self.lines[0] if len(self.lines) == 1 else " ".join(self.lines)

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced or "", self.text) if part)

    def encode(self, *, utf8: bool = False) -> bytes:
        """On the wire, each line at most 512 octets (longer texts are folded at a space).

        :param utf8: the client asked for SMTPUTF8 (RFC 6531 §3.7.4.2); otherwise what is
            not ASCII is escaped.
        """
        prefix = f"{self.enhanced} " if self.enhanced else ""
        charset = "utf-8" if utf8 else "ascii"
        room = _WRITTEN_LINE - 4 - len(prefix)
        texts = [
            piece for line in self.lines for piece in _fold(printable(line).encode(charset, "backslashreplace"), room)
        ] or [b""]
        head = prefix.encode()
        last = len(texts) - 1
        return b"".join(
            b"%d%s%s%s\r\n" % (self.code, b" " if index == last else b"-", head, text)
            for index, text in enumerate(texts)
        )


def printable(text: str) -> str:
    """`text` with every control, format and separator character but the space escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else " " if character == "\t" else _escape(character) for character in text
    )


def _escape(character: str) -> str:
    point = ord(character)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _fold(text: bytes, room: int) -> list[bytes]:
    pieces: list[bytes] = []
    while len(text) > room:
        cut = text.rfind(b" ", room // 2, room + 1)
        if cut < 0:
            cut = room
            while text[cut] & 0xC0 == 0x80:  # never inside a UTF-8 character
                cut -= 1
        pieces.append(text[:cut])
        text = text[cut:].lstrip(b" ")
    pieces.append(text)
    return pieces


_recent: dict[bytes, Reply] = {}
_RECENT_MAX = 256
_RECENT_LINE = 64


class ReplyParser:
    """Replies out of a byte stream that may be cut anywhere: `feed`, then `next` until None.

    Lines end in CR LF; a bare LF is tolerated. The second digit of a code may be any, the
    first 2 to 5. Lines of one reply may differ in their codes within a class; the last counts.
    """

    __slots__ = ("_buffer", "_at", "_code", "_lines", "_size")  # noqa: RUF023 - reading order

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._code = 0
        self._lines: list[str] = []
        self._size = 0

    @property
    def pending(self) -> bool:
        """Bytes were received that are not yet part of a reply given out."""
        return self._at < len(self._buffer) or bool(self._lines)

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0

    def next(self) -> Reply | None:
        """:raises ProtocolViolation: the bytes are not a reply, or one is too large."""
        buffer = self._buffer
        if self._at == len(buffer):
            return None
        while True:
            end = buffer.find(b"\n", self._at)
            if end < 0:
                if len(buffer) - self._at > MAX_LINE:
                    raise ProtocolViolation("The peer's reply has a line that is too long")
                return None
            line = buffer[self._at : end]
            self._at = end + 1
            if not self._lines:
                known = _recent.get(line)
                if known is not None:
                    return known
            reply = self._line(line)
            if reply is not None:
                return reply

    def _line(self, line: bytes) -> Reply | None:
        self._size += len(line) + 1
        if len(line) > MAX_LINE:
            raise ProtocolViolation("The peer's reply has a line that is too long")
        if self._size > MAX_REPLY or len(self._lines) == MAX_LINES:
            raise ProtocolViolation("The peer's reply is too large")
        code = _code(line)
        if self._lines and code // 100 != self._code // 100:
            raise ProtocolViolation(
                "The lines of the peer's reply contradict each other", detail=f"{self._code} and {code}"
            )
        self._code = code
        more = line[3:4] == b"-"
        first = not self._lines
        self._lines.append(printable(line[4:].rstrip(b"\r").decode("utf-8", "backslashreplace")))
        if more:
            return None
        reply = _assemble(code, self._lines)
        self._lines = []
        self._size = 0
        if first and len(line) <= _RECENT_LINE:
            _remember(line, reply)
        return reply


def _remember(line: bytes, reply: Reply) -> None:
    # A peer says the same short lines all day; only final replies differ, so start over when full.
    if len(_recent) >= _RECENT_MAX:
        _recent.clear()
    _recent[line] = reply


def _code(line: bytes) -> int:
    digits = line[:3]
    if len(digits) == 3 and digits.isdigit() and 50 <= digits[0] <= 53 and line[3:4] in {b" ", b"-", b"", b"\r"}:
        return int(digits)
    shown = printable(line[:80].decode("utf-8", "backslashreplace"))
    raise ProtocolViolation("The peer's answer is not an SMTP reply", detail=shown)


def _assemble(code: int, lines: list[str]) -> Reply:
    match = _ENHANCED.match(lines[0])
    if match is None or match[1][0] != str(code)[0]:  # RFC 2034 §4: same class
        return Reply(code, None, tuple(lines))
    enhanced = match[1]
    texts: list[str] = []
    for line in lines:
        again = _ENHANCED.match(line)
        texts.append(line[again.end() :] if again is not None and again[1] == enhanced else line)
    return Reply(code, enhanced, tuple(texts))


_CODES = {
    "4.3.1": 452,
    "4.7.1": 450,
    "5.1.1": 550,
    "5.3.4": 552,
    "5.5.1": 503,
    "5.5.2": 500,
    "5.5.4": 501,
    "5.7.1": 550,
    "5.7.8": 535,
}


def to_reply(error: Error) -> Reply:
    """What an SMTP client is told of `error`: the public text and the faults, never the detail."""
    code = _CODES.get(error.enhanced, 451 if error.enhanced.startswith("4") else 554)
    faults = tuple(fault.message for fault in error.faults[:8])
    return Reply(code, error.enhanced, (error.public, *faults))
