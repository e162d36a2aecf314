"""Transfer encodings as Python's own library reads them."""

from __future__ import annotations

import base64
import quopri


def decoded(encoding: str, octets: bytes) -> bytes:
    """:param encoding: 7bit, quoted-printable or base64."""
    match encoding:
        case "base64":
            return base64.b64decode(octets)
        case "quoted-printable":
            return quopri.decodestring(octets)
        case _:
            return octets
