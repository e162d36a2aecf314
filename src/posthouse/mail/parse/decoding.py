"""Content-transfer-encodings undone, chunk by chunk, whatever is wrong with them (RFC 2045 §6).

Base64 forgives other characters, padding in the middle and none at the end, and text that
somebody wrote below it; quoted-printable forgives what is no escape; uuencode forgives everything
around its lines.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, a2b_qp, a2b_uu
from collections.abc import Iterator

from posthouse.mail.parse.fields import Raw

CHUNK = 65_536
"""Octets that are taken at once."""
IDENTITY = frozenset({"7bit", "8bit", "binary"})
UUENCODE = frozenset({"x-uuencode", "x-uue", "uuencode", "uue"})
KNOWN = IDENTITY | UUENCODE | {"base64", "quoted-printable"}

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_OTHER = bytes(set(range(256)) - set(_ALPHABET))
_ALLOWED = _ALPHABET + b" \t\r\n"
_TRAILING = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n)")
_BEGIN = re.compile(rb"begin[ -][0-7]{3,4} ?")
_FOOTER = re.compile(rb"=[ \t\r]*+\n(?=[^=]*[^A-Za-z0-9+/=\s])")
"""What a mailing list wrote below an encoded text."""
_MAX_PADDING = 1000  # in one chunk, beyond which it is no padding
_MAX_UU_LINE = 128  # octets; 45 of content make 61


def decoded(message: Raw, start: int, length: int, encoding: str, chunk: int = CHUNK) -> Iterator[bytes]:
    """The content of `length` octets from `start`, in pieces of about `chunk` octets. An encoding
    that nobody knows is taken for none."""
    pieces = (message[at : min(at + chunk, start + length)] for at in range(start, start + length, chunk))
    if encoding == "base64":
        return _base64(pieces)
    if encoding == "quoted-printable":
        return _quoted_printable(pieces)
    if encoding in UUENCODE:
        return _uuencode(pieces)
    return pieces


def base64_octets(data: bytes) -> bytes:
    """What base64 stands for, as far as it can be read."""
    try:
        if data.find(b"=", 0, -2) < 0:
            return a2b_base64(data)
    except Error:  # padding that lacks, or one character too many
        pass
    return b"".join(_base64(iter((data,))))


def is_base64(data: bytes) -> bool:
    """Whether there are no other characters in it than base64's and white space."""
    return not data.translate(None, _ALLOWED)


def decoded_size(message: Raw, start: int, length: int, encoding: str) -> int:
    """Octets of the content. Exact for base64 in lines of one length and for sound
    quoted-printable, and found without decoding."""
    if encoding == "base64":
        return _base64_size(message, start, start + length)
    if encoding == "quoted-printable":
        escapes = count(message, b"=", start, start + length)
        return max(length - 2 * escapes - count(message, b"=\r\n", start, start + length), 0)
    return length


def count(message: Raw, needle: bytes, start: int, end: int) -> int:
    """How often `needle` stands in `start:end`."""
    if isinstance(message, bytes):
        return message.count(needle, start, end)
    found = 0
    for at in range(start, end, CHUNK):
        found += message[at : min(at + CHUNK + len(needle) - 1, end)].count(needle)
    return found


def _base64_size(message: Raw, start: int, end: int) -> int:
    tail = message[max(end - 8, start) : end].rstrip()
    end -= min(end - start, 8) - len(tail)
    line = message.find(b"\n", start, end) + 1 - start
    length = end - start
    if line > 0:
        length -= length // line * (2 if message[start + line - 2 : start + line] == b"\r\n" else 1)
    return max(length * 3 // 4 - tail.count(b"="), 0)


def _base64(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        footer = _FOOTER.search(piece) if b"=" in piece else None
        if footer is not None:
            yield from _base64(iter((held + piece[: footer.start()],)))
            return
        data = held + piece.translate(None, _OTHER)
        if data.count(b"=") > _MAX_PADDING:
            data = data.translate(None, b"=")
        if b"=" in data:
            *groups, data = data.split(b"=")
            yield b"".join([_group(group) for group in groups if group])
        whole = len(data) // 4 * 4
        held = data[whole:]
        yield a2b_base64(data[:whole])
    if held:
        yield _group(held)


def _group(data: bytes) -> bytes:
    """Base64 characters alone, their padding lacking."""
    if len(data) % 4 == 1:
        data = data[:-1]  # six bits are no octet
    return a2b_base64(data + b"=" * (-len(data) % 4))


def _quoted_printable(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        data = held + piece
        cut = data.rfind(b"\n") + 1
        if cut == 0 and len(data) > 2:
            # One long line: cut where neither an escape nor blanks of a line's end are broken.
            cut = max(data.rfind(b"=", -3), 0) if b"=" in data[-3:] else len(data)
            blanks = len(data[:cut].rstrip(b" \t\r"))
            cut = blanks if cut - blanks < CHUNK // 2 else cut
        held = data[cut:]
        if cut:
            yield _unquoted(data[:cut])
    if held:
        yield _unquoted(held.rstrip(b" \t"))


def _unquoted(data: bytes) -> bytes:
    if b"\n" not in data and b"\r" in data:
        data = data.replace(b"\r", b"\n")  # lines that end in CR alone; binascii would drop them
    if b" \r" in data or b" \n" in data or b"\t" in data:
        data = _TRAILING.sub(b"", data)  # RFC 2045 §6.7 (3)
    return a2b_qp(data)


def _uuencode(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    inside = False
    for piece in pieces:
        *lines, held = (held + piece).split(b"\n")
        out: list[bytes] = []
        for line in lines:
            inside = _uu_line(line, inside, out)
        held = held[: _MAX_UU_LINE + 1]
        yield b"".join(out)
    out = []
    _uu_line(held, inside, out)
    yield b"".join(out)


def _uu_line(line: bytes, inside: bool, out: list[bytes]) -> bool:
    """Decodes a line between `begin` and `end`; says whether the next one is between them."""
    line = line.rstrip(b"\r")
    if not inside:
        return _BEGIN.match(line) is not None
    if line == b"end":
        return False
    if not line or len(line) > _MAX_UU_LINE:
        return True
    needed = (((line[0] - 32) & 63) * 4 + 2) // 3
    if needed > 2 * len(line):  # blanks at its end may be lost, but most of it may not
        return True
    for form in (line, line[: needed + 1]):  # some encoders pad with what decoders refuse
        try:
            out.append(a2b_uu(form))
            break
        except Error:
            continue
    return True
