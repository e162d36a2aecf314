"""The octets of a message as they come off the wire: cut, unstuffed, checked, never collected.

A line ends in CR LF and in nothing else (RFC 5321 §2.3.8). Two servers that disagree about
that can be made to see two messages where one was sent (SMTP smuggling), so a message with
a bare CR, a bare LF or a NUL is refused whole, and only CR LF . CR LF ends it.
"""

from __future__ import annotations

from io import IncrementalNewlineDecoder
from typing import Literal

TEXT_LINE = 1000
"""RFC 5321 §4.5.3.1.6: octets of a line of text, CR LF counted, the stuffed dot not."""

Flaw = Literal["bare", "nul", "line", "size"]
"""What is wrong with a body: a bare CR or LF, a NUL octet, a line or the whole too long."""

_END = b"\r\n.\r\n"
_DOT = b"\r\n."
_CRLF = b"\r\n"
_NONE: tuple[bytes, bytes | None] = (b"", None)


class BodyCheck:
    """Looks at the pieces of one body in order; `flaw` is the first thing found wrong.

    :param limit: octets of the whole body.
    :param line: octets of one line with its CR LF; 0 for no limit.
    :param binary: BINARYMIME (RFC 3030 §3): any octets, only the size counts.
    """

    __slots__ = ("_binary", "_limit", "_line", "_open", "flaw", "size")

    def __init__(self, limit: int, line: int = TEXT_LINE, *, binary: bool = False) -> None:
        self.size = 0
        self.flaw: Flaw | None = None
        self._limit = limit
        self._line = line
        self._binary = binary
        self._open = 0  # octets of the line that the last piece left unfinished

    def look(self, piece: bytes) -> bool:
        """Whether all is well so far. A piece must not end between CR and LF."""
        self.size += len(piece)
        if self.flaw is not None:
            return False
        if self.size > self._limit:
            self.flaw = "size"
        elif not self._binary:
            if not only_crlf(piece):
                self.flaw = "bare"
            elif b"\0" in piece:
                self.flaw = "nul"
            elif self._line and self._long(piece):
                self.flaw = "line"
        return self.flaw is None

    def _long(self, piece: bytes) -> bool:
        # Hops from the last line end within one limit to the next: a few searches for a whole piece.
        end, line = len(piece), self._line
        start = -self._open
        while end - start > line:
            found = piece.rfind(b"\n", start if start > 0 else 0, start + line)  # noqa: FURB136 - max() costs a call
            if found < 0:
                return True
            start = found + 1
        newest = piece.rfind(b"\n", max(start, 0))
        self._open = end - start if newest < 0 else end - newest - 1
        return False


def only_crlf(piece: bytes) -> bool:
    """Whether every CR and every LF is part of a CR LF. At C speed: 0.4 µs a kilobyte."""
    decoder = IncrementalNewlineDecoder(None, translate=False)
    # `final` makes it count a CR at the very end.
    decoder.decode(piece.decode("latin-1"), final=True)
    return decoder.newlines is None or decoder.newlines == "\r\n"


class DotDecoder:
    """The body after DATA: ends at CR LF . CR LF, dots unstuffed (RFC 5321 §4.5.2)."""

    __slots__ = ("_carry", "_skip")

    def __init__(self) -> None:
        # The line before the body ended in CR LF too: a lone dot may be the first line.
        self._carry = _CRLF
        self._skip = 2

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """A piece of the body, and what follows its end (None while it has not ended)."""
        data = self._carry + data
        last = data.rfind(_DOT)
        stuffed = last >= 0
        if stuffed and last == len(data) - 5 and data.endswith(_END):
            stuffed = data.rfind(_DOT, 0, last + 2) >= 0  # as nearly always: one end, at the very end
            end = data.find(_END) if stuffed else last
        else:
            end = data.find(_END) if stuffed else -1
        if end >= 0:
            piece, rest = data[: end + 2], data[end + 5 :]
        else:
            keep = _held(data)
            piece, rest = data[: len(data) - keep], None
            self._carry = data[len(data) - keep :]
        if not piece:
            return _NONE
        if stuffed:
            piece = piece.replace(_DOT, _CRLF)
        if self._skip:
            piece, self._skip = piece[self._skip :], 0
        return piece, rest


def _held(data: bytes) -> int:
    """How many octets at the end of `data` may be the beginning of the end."""
    for size in (4, 3, 2, 1):
        if data.endswith(_END[:size]):
            return size
    return 0


class ChunkDecoder:
    """The body after BDAT (RFC 3030 §2): counted, so nothing is unstuffed; a CR waits for its LF."""

    __slots__ = ("_carry",)

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """A piece of the body.

        :param last: nothing follows: a CR at the end is given out as it is.
        """
        if self._carry:
            data = self._carry + data
            self._carry = b""
        if data.endswith(b"\r") and not last:
            self._carry = b"\r"
            data = data[:-1]
        return data
