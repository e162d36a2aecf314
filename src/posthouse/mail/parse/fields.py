"""The header block, cut into fields. Tolerant: LF or CR LF, blanks before the colon, an mbox's
From line before the first field, and a body that begins without an empty line."""

from __future__ import annotations

import re
from itertools import islice
from mmap import mmap
from typing import NamedTuple, TypeAlias

Raw: TypeAlias = bytes | mmap

MAX_FIELDS = 10_000
_SMALL = 65_536  # octets of a block whose fields are all taken at once

# Possessive: each octet is looked at once, and nothing is kept for going back.
_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)\n?|([^\n]++\n?|\n)")
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_FOLD = re.compile(rb"\r?\n")


class Block(NamedTuple):
    """Of one entity: its fields (name, value, nothing) in their order, values folded and with
    blanks around; the offset where its body begins; and what was wrong."""

    fields: list[tuple[bytes, bytes, bytes]]
    body: int
    flaws: tuple[str, ...] = ()


def read_block(message: Raw, start: int, end: int) -> Block:
    """The header block of the entity that lies in `start:end`."""
    if start >= end:
        return Block([], start)
    stop, body = _bounds(message, start, end)
    if stop == start:
        return Block([], body)
    if stop - start > _SMALL:
        return _read_long(message, start, stop, body)
    fields: list[tuple[bytes, bytes, bytes]] = _FIELD.findall(message[start:stop])
    if len(fields) > MAX_FIELDS:
        return _read_long(message, start, stop, body)
    for name, _, _ in fields:
        if not name:
            return _read_long(message, start, stop, body)
    return Block(fields, body)


def header_fields(message: Raw) -> list[tuple[bytes, bytes, int, int]]:
    """Name, value, start and end of each field at the top, at most `MAX_FIELDS`.

    The value is folded as it stands, without blanks around it; `start:end` is the whole field
    with its line end.
    """
    size = len(message)
    stop, _ = _bounds(message, 0, size)
    found: list[tuple[bytes, bytes, int, int]] = []
    for field in islice(_FIELD.finditer(message, 0, stop), MAX_FIELDS):
        if field[3] is None:
            found.append((field[1], field[2].strip(), field.start(), field.end()))
        elif not _is_mbox_line(field[3], field.start()):
            break
    return found


def unfold(value: bytes) -> bytes:
    """The value on one line (RFC 5322 §2.2.3), without blanks around."""
    return _FOLD.sub(b"", value).strip()


def _bounds(message: Raw, start: int, end: int) -> tuple[int, int]:
    """Where the fields end and where the body begins."""
    head = message[start : start + 2]
    if head == b"\r\n" and start + 2 <= end:
        return start, start + 2
    if head[:1] == b"\n":
        return start, start + 1
    near = min(end, start + _SMALL)
    at = message.find(b"\n\r\n", start, near)
    stop, body = (at + 1, at + 3) if at >= 0 else (near, near)
    at = message.find(b"\n\n", start, stop)
    if at >= 0:
        return at + 1, at + 2
    if stop == near < end:
        # One search for both: each of two would go to the end, at every level of a deep message.
        far = _EMPTY_LINE.search(message, start, end)
        return (far.start() + 1, far.end()) if far is not None else (end, end)
    return stop, body


def _read_long(message: Raw, start: int, stop: int, body: int) -> Block:
    """Field after field: for a block that is long, or not made of fields alone."""
    fields: list[tuple[bytes, bytes, bytes]] = []
    flaws: tuple[str, ...] = ()
    for field in _FIELD.finditer(message, start, stop):
        if field[3] is None:
            fields.append((field[1], field[2], b""))
            if len(fields) == MAX_FIELDS and field.end() < stop:
                return Block(fields, body, (*flaws, "too_many_headers"))
        elif _is_mbox_line(field[3], field.start() - start):
            flaws = ("mbox_line",)
        else:
            # As sendmail and Postfix do: what is no field begins the body.
            return Block(fields, field.start(), (*flaws, "no_separator"))
    return Block(fields, body, flaws)


def _is_mbox_line(line: bytes, at: int) -> bool:
    return at == 0 and line.startswith((b"From ", b">From "))
