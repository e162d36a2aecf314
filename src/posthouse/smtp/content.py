"""Message content on the wire: lines end in CR LF and nothing else, and a dot is doubled (RFC 5321 §4.5.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator

BLOCK = 65_536
"""Octets that are handed to the transport at a time."""

_LINE_END = re.compile(rb"\r\n|\r|\n")


def canonical(data: bytes) -> bytes:
    """Every line ended by CR LF, the last one too. Costs a scan when it is so already."""
    ends = data.count(b"\n")
    if ends != data.count(b"\r") or ends != data.count(b"\r\n"):
        data = _LINE_END.sub(b"\r\n", data)
    if data and not data.endswith(b"\r\n"):
        data += b"\r\n"
    return data


def dotted(data: bytes) -> bytes:
    """`data`, which is canonical, with dots doubled and the end of mail data appended."""
    if b"\r\n." in data:
        data = data.replace(b"\r\n.", b"\r\n..")
    return b"".join((b"." if data.startswith(b".") else b"", data, b".\r\n"))


def blocks(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(data), BLOCK):
        yield view[start : start + BLOCK]
