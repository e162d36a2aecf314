"""Content-transfer-encodings of RFC 2045 §6, chosen so that no relay has a reason to touch a part.

Text leaves as 7bit, quoted-printable or base64, never as 8bit: a peer without 8BITMIME would
have to recode it and break the signature.
"""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp

from posthouse.errors import Invalid

MAX_LINE = 998  # octets, RFC 5322 §2.1.1
_COLUMNS = 76  # RFC 2045 §6.8
_SAFE = bytes([9, 10, 13, *range(32, 127)])
# What is mangled on the way: blanks at a line's end, mbox's "From ", a dot alone.
_FRAGILE = re.compile(rb"\r(?:(?<=[ \t]\r)|\nFrom |\n\.\r)")
_QP_MEND = re.compile(rb"^(?:From |\.|.{77}).*$", re.MULTILINE)


def encode_text(text: str) -> tuple[str, bytes]:
    """The encoding's name and the encoded UTF-8 text, lines ending in CRLF (any of CRLF, CR and LF
    ends a line in `text`). ASCII of 8 KB costs about 18 µs.

    :raises Invalid: a lone surrogate.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise Invalid("The text has half of a surrogate pair, which is not a character.", code="invalid_text") from None
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    unsafe = data.translate(None, _SAFE)
    if not unsafe:
        lines = data.replace(b"\n", b"\r\n")
        if is_robust(lines):
            return "7bit", lines
    escaped = len(unsafe) + data.count(b"=")
    # Base64 grows by 37 %; quoted-printable by two octets each escape and 4 % for soft breaks.
    if len(data) * 1.04 + 2 * escaped <= len(data) * 1.37 + 4:
        return "quoted-printable", quoted_printable(data)
    return "base64", base64_lines(data.replace(b"\n", b"\r\n"))


def is_robust(lines: bytes) -> bool:
    """Whether printable ASCII with CRLF line ends may travel as 7bit and arrive unchanged."""
    if lines.endswith((b" ", b"\t")) or lines.startswith((b"From ", b".\r")) or lines == b".":
        return False
    return _FRAGILE.search(lines) is None and not lines.endswith(b"\n.") and has_short_lines(lines)


def has_short_lines(lines: bytes) -> bool:
    """Whether no line is longer than 998 octets without its CRLF; a few steps a kilobyte."""
    at, size = 0, len(lines)
    while size - at > MAX_LINE:
        end = lines.rfind(b"\r\n", at, at + MAX_LINE + 2)
        if end < 0:
            return False
        at = end + 2
    return True


def quoted_printable(data: bytes) -> bytes:
    """RFC 2045 §6.7, with CRLF line ends and lines of at most 76 octets, none beginning with `.`
    or `From `, none ending in a blank.

    :param data: lines end in LF and there is no CR.
    """
    lines = b2a_qp(data)
    # It lets some lines that end in an escaped blank grow to 78.
    is_odd = lines.startswith((b".", b"From ")) or lines.endswith((b"=20", b"=09"))
    if is_odd or any(mark in lines for mark in (b"\n.", b"\nFrom ", b"=20\n", b"=09\n")):
        lines = _QP_MEND.sub(_mended, lines)
    return lines.replace(b"\n", b"\r\n")


def _mended(found: re.Match[bytes]) -> bytes:
    """Escapes the line's first octet where it must be, and breaks a line of more than 76 again."""
    lines: list[bytes] = []
    line = found[0]
    while True:
        if line.startswith((b"From ", b".")):
            line = b"=%02X%s" % (line[0], line[1:])
        if len(line) <= _COLUMNS:
            return b"\n".join([*lines, line])
        cut = _COLUMNS - 1
        cut -= 1 if line[cut - 1] == 61 else 2 if line[cut - 2] == 61 else 0
        lines.append(line[:cut] + b"=")
        line = line[cut:]


def base64_lines(data: bytes) -> bytes:
    """Base64 in lines of 76 (RFC 2045 §6.8), without a line end after the last."""
    encoded = b2a_base64(data, newline=False)
    return b"\r\n".join([encoded[at : at + _COLUMNS] for at in range(0, len(encoded), _COLUMNS)])
