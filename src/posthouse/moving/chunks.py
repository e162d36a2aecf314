"""Key ranges of a table and the hash of the rows in them, the same on every engine.

The canonical form of rows is their msgpack: numbers by value in their shortest form, text as
UTF-8, bytes as they are, null. A hash is BLAKE2b of 16 octets of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec

from posthouse import errors
from posthouse.moving.tables import Kind, Table
from posthouse.storage.records.base import Row

UNKNOWN = b""
_NUL, _INSTEAD = "\0", "\N{REPLACEMENT CHARACTER}"
_TYPES: dict[Kind, type] = {"text": str, "int": int, "bytes": bytes}


def digest(rows: Sequence[Row]) -> bytes:
    """Of rows as they are compared, in the order of their keys."""
    return blake2b(msgspec.msgpack.encode(rows), digest_size=16).digest()


def encode_key(key: Row) -> bytes:
    return msgspec.msgpack.encode(key)


def decode_key(encoded: bytes) -> Row:
    values: list[Any] = msgspec.msgpack.decode(encoded, type=list)
    return tuple(values)


def without_nul(table: Table, rows: list[Row]) -> tuple[list[Row], int]:
    """The rows with U+FFFD for each NUL in a text, which PostgreSQL cannot hold; how many
    values had one.

    :raises Misconfigured: `move_value`: a key has one, which cannot be changed.
    """
    texts = table.texts
    if not any(_NUL in text for n in texts for row in rows if type(text := row[n]) is str):
        return rows, 0
    changed = 0
    cleaned: list[Row] = []
    for row in rows:
        values = list(row)
        for n in texts:
            if type(values[n]) is str and _NUL in values[n]:
                if n in table.key:
                    raise _not_moved(table, n, row, "has a NUL octet, which PostgreSQL's text cannot hold")
                values[n] = values[n].replace(_NUL, _INSTEAD)
                changed += 1
        cleaned.append(tuple(values))
    return cleaned, changed


def check_types(table: Table, rows: Sequence[Row]) -> None:
    """SQLite lets a column hold what is not of its type; PostgreSQL does not.

    :raises Misconfigured: `move_value`.
    """
    for n, column in enumerate(table.columns):
        wanted = _TYPES[column.kind]
        for row in rows:
            if row[n] is not None and type(row[n]) is not wanted:
                raise _not_moved(table, n, row, f"holds a {type(row[n]).__name__} where {column.kind} belongs")


def _not_moved(table: Table, position: int, row: Row, why: str) -> errors.Misconfigured:
    return errors.Misconfigured(
        f"{table.name}.{table.columns[position].name} of the row {table.key_of(row)!r} {why};"
        " mend this row in the old database and move again",
        code="move_value",
    )


@dataclass(slots=True)
class Chunk:
    """The rows above the chunk before it, up to `upper`."""

    upper: Row
    hash: bytes = UNKNOWN
    rows: int = 0
    verified: bool = False


@dataclass(slots=True)
class Chunks:
    """Those of one table, in the order of keys, which is the same here and in both engines:
    text by its UTF-8 octets, that is by code points."""

    table: Table
    chunks: list[Chunk] = field(default_factory=list[Chunk])

    @property
    def rows(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def last(self) -> Row | None:
        return self.chunks[-1].upper if self.chunks else None

    def put(self, chunk: Chunk) -> None:
        """In its place, or in that of the one with this upper end."""
        place = bisect_left(self.chunks, chunk.upper, key=lambda one: one.upper)
        if place < len(self.chunks) and self.chunks[place].upper == chunk.upper:
            self.chunks[place] = chunk
        else:
            self.chunks.insert(place, chunk)

    def holding(self, key: Row) -> Chunk | None:
        place = bisect_left(self.chunks, key, key=lambda one: one.upper)
        return self.chunks[place] if place < len(self.chunks) else None
