"""Body hashes (RFC 6376 §3.4, §3.7) of bodies of any size, in pieces, none held whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import sha256
from mmap import mmap
from typing import TYPE_CHECKING

from posthouse.mailauth.dkim import Canon, canonical_body, collapse_blanks, empty_lines

if TYPE_CHECKING:
    from hashlib import _Hash  # pyright: ignore[reportPrivateUsage] - hashlib names its type nowhere else

SMALL = 65_536  # octets; a body up to here is worked on at once, and not in a thread
_PIECE = 65_536  # even: CR LF pairs are counted from a piece's end

Raw = bytes | mmap


def body_hashes(
    raw: Raw, start: int, canon: Canon, lengths: Collection[int | None]
) -> tuple[dict[int | None, bytes], int]:
    """SHA-256 over the canonical body, whole (None) and cut to so many octets, and the octets of
    the whole.

    :param start: where the body begins in `raw`.
    """
    if len(raw) - start <= SMALL:
        view = memoryview(raw)[start:] if isinstance(raw, bytes) else memoryview(raw[start:])
        data = canonical_body(view, canon)
        return {length: sha256(data[:length]).digest() for length in lengths}, len(data)
    sink = _Sink(lengths)
    if canon == "simple":
        end = _content_end(raw, start)
        for at in range(start, end, _PIECE):
            sink.feed(raw[at : min(at + _PIECE, end)])
        sink.feed(b"\r\n")
    else:
        for piece in _relaxed(raw, start):
            sink.feed(piece)
    return {length: hasher.digest() for length, hasher in sink.hashers.items()}, sink.total


class _Sink:
    def __init__(self, lengths: Collection[int | None]) -> None:
        self.hashers: dict[int | None, _Hash] = {length: sha256() for length in lengths}
        self.total = 0

    def feed(self, piece: bytes) -> None:
        for length, hasher in self.hashers.items():
            if length is None:
                hasher.update(piece)
            elif length > self.total:
                hasher.update(piece[: length - self.total])
        self.total += len(piece)


def _content_end(raw: Raw, start: int) -> int:
    """Where the last line ends that is not empty, before its line end."""
    end = len(raw)
    while end > start:
        piece = raw[max(start, end - _PIECE) : end]
        empty = empty_lines(piece)
        end -= empty
        if empty < len(piece):
            break
    return end


def _relaxed(raw: Raw, start: int) -> Iterator[bytes]:
    """RFC 6376 §3.4.4, piece by piece; empty lines wait until something follows them."""
    carry = b""
    waiting = 0
    is_empty = True
    for at in range(start, len(raw), _PIECE):
        text = carry + raw[at : at + _PIECE]
        if b"\t" in text or b"  " in text or b" \r" in text:
            text = collapse_blanks(text).replace(b" \r\n", b"\r\n")
        # What comes next may end this line, or lengthen these blanks.
        carry = b" \r" if text.endswith(b" \r") else text[-1:] if text.endswith((b" ", b"\r")) else b""
        text = text[: len(text) - len(carry)]
        empty = empty_lines(text)
        if empty < len(text):
            yield from _line_ends(waiting)
            yield text[: len(text) - empty]
            waiting, is_empty = empty, False
        else:
            waiting += empty
    if carry not in {b"", b" "}:
        yield from _line_ends(waiting)
        yield carry
        is_empty = False
    if not is_empty:
        yield b"\r\n"


def _line_ends(octets: int) -> Iterator[bytes]:
    for done in range(0, octets, _PIECE):
        yield b"\r\n" * (min(_PIECE, octets - done) // 2)
