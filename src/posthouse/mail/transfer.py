"""Content-transfer-encodings of RFC 2045 §6, chosen so that no relay has a reason to touch a part.

Text leaves as 7bit, quoted-printable or base64, never as 8bit: a peer without 8BITMIME would
have to recode it and break the signature.
"""

from __future__ import annotations

import re
from binascii import b2a_base64

from posthouse.errors import Invalid

MAX_LINE = 998  # octets, RFC 5322 §2.1.1
_COLUMNS = 76  # RFC 2045 §6.8
_SAFE = bytes([9, 10, 13, *range(32, 127)])
# Short by three, so that a line that begins with `.` or `From ` has room for its escape and `=`.
_QP_ROOM = 73
_QP_PIECE = re.compile(rb".{1,73}(?<!=)(?<!=.)")  # never inside an escape
_QP_ENDS = ((b" \n", b"=20\n"), (b"\t\n", b"=09\n"))
_QP_STARTS = ((b"\nFrom ", b"\n=46rom "), (b"\n.", b"\n=2E"))


def encode_text(text: str) -> tuple[str, bytes]:
    """The encoding's name and the encoded UTF-8 text, lines ending in CRLF (any of CRLF, CR and LF
    ends a line in `text`). ASCII of 8 KB costs about 16 µs.

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
        return "quoted-printable", quoted_printable(data, unsafe)
    return "base64", base64_lines(data.replace(b"\n", b"\r\n"))


def is_robust(lines: bytes) -> bool:
    """Whether printable ASCII with CRLF line ends may travel as 7bit and arrive unchanged."""
    # What is mangled on the way: blanks at a line's end, mbox's "From ", a dot alone.
    if lines.endswith((b" ", b"\t", b"\n.")) or lines.startswith((b"From ", b".\r")) or lines == b".":
        return False
    # rfind takes half the time of find here: it looks for the needle's first octet.
    if lines.rfind(b" \r\n") >= 0 or lines.rfind(b"\nFrom ") >= 0 or lines.rfind(b"\r\n.\r\n") >= 0:
        return False
    return (b"\t" not in lines or b"\t\r\n" not in lines) and has_short_lines(lines)


def has_short_lines(lines: bytes) -> bool:
    """Whether no line is longer than 998 octets without its CRLF; a few steps a kilobyte."""
    at, size = 0, len(lines)
    while size - at > MAX_LINE:
        end = lines.rfind(b"\r\n", at, at + MAX_LINE + 2)
        if end < 0:
            return False
        at = end + 2
    return True


def quoted_printable(data: bytes, unsafe: bytes) -> bytes:
    """RFC 2045 §6.7, with CRLF line ends and lines of at most 76 octets, none beginning with `.`
    or `From `, none ending in a blank.

    Text with few escapes takes half the time of binascii.b2a_qp, whose lines may grow to 78.

    :param data: lines end in LF and there is no CR.
    :param unsafe: the octets of `data` that are neither printable ASCII nor TAB nor LF.
    """
    out = data.replace(b"=", b"=3D")
    for octet in set(unsafe):
        out = out.replace(octet.to_bytes(1, "big"), b"=%02X" % octet)
    if out.endswith((b" ", b"\t")):
        out = b"%s=%02X" % (out[:-1], out[-1])
    for found, escape in _QP_ENDS:
        if out.rfind(found) >= 0:
            out = out.replace(found, escape)
    lines = [line if len(line) <= _QP_ROOM else b"=\n".join(_QP_PIECE.findall(line)) for line in out.split(b"\n")]
    out = b"\n" + b"\n".join(lines)
    for found, escape in _QP_STARTS:
        if out.rfind(found) >= 0:
            out = out.replace(found, escape)
    return out[1:].replace(b"\n", b"\r\n")


def base64_lines(data: bytes) -> bytes:
    """Base64 in lines of 76 (RFC 2045 §6.8), without a line end after the last."""
    encoded = b2a_base64(data, newline=False)
    return b"\r\n".join([encoded[at : at + _COLUMNS] for at in range(0, len(encoded), _COLUMNS)])
