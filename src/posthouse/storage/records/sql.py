# ruff: noqa: S608 - this makes SQL from our own SQL; values travel as parameters only
"""One SQL text, two engines: what `base.Tx` documents, turned into what each engine takes.

Pure and cached by text. String literals are left alone; the rest of the text is scanned for

    $1                       ?1 on SQLite
    = ANY($1), <> ALL($1)    IN / NOT IN (SELECT value FROM json_each(?1)), the list as JSON
    FOR UPDATE, FOR SHARE    dropped on SQLite, where one writer holds everything
    {v(a text, b int)}       a VALUES list on SQLite, unnest of columns on PostgreSQL
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from posthouse.storage.records.base import Row, Value

_TOKEN = re.compile(
    r"""(?P<literal>'(?:[^']|'')*')
      | =\s*ANY\s*\(\s*\$(?P<any>\d+)\s*\)
      | <>\s*ALL\s*\(\s*\$(?P<all>\d+)\s*\)
      | (?P<lock>\bFOR\s+(?:UPDATE|SHARE)(?:\s+OF\s+\w+)?(?:\s+SKIP\s+LOCKED)?\b)
      | \$(?P<number>\d+)
      | \{(?P<name>\w+)\((?P<columns>[^{}()]*)\)\}""",
    re.VERBOSE | re.IGNORECASE,
)
_READS = re.compile(r"\s*(SELECT|WITH|VALUES)\b", re.IGNORECASE)
_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
_ARRAYS = {"text": "text[]", "int": "bigint[]", "float": "double precision[]", "bytes": "bytea[]"}

ROWS_AT_MOST = 1024
VALUES_AT_MOST = 8192
"""A prepared statement keeps about 100 bytes a value; past a thousand rows a step costs
no less per row, so larger lists would only hold memory."""

# Few sizes, so that statements are reused; a list is filled up to the next one with nulls
# that a LIMIT hides, so that a batch is one statement and not one for each power of two.
_SIZES = sorted(n for power in range(11) for n in (2**power, 3 * 2**power) if n <= ROWS_AT_MOST)


@dataclass(frozen=True, slots=True)
class Plain:
    """A statement without a relation, for SQLite. `lists`: positions sent as JSON."""

    text: str
    lists: tuple[int, ...]
    reads: bool


@dataclass(frozen=True, slots=True)
class Spread:
    """A statement over a list of rows, for SQLite: the text around the relation has bare
    `?`, and `before`, `after` are the positions of the params in order of appearance."""

    head: str
    tail: str
    alias: str
    columns: tuple[tuple[str, str], ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    lists: frozenset[int]
    reads: bool


@lru_cache(maxsize=1024)
def plain(sql: str) -> Plain:
    """:raises ValueError: the text has a relation, which only `each` can fill."""
    lists: list[int] = []

    def swap(match: re.Match[str]) -> str:
        if match["name"]:
            raise ValueError("a {v(…)} relation needs each()")
        if (number := match["any"] or match["all"]) is not None:
            lists.append(int(number) - 1)
            return f"{'IN' if match['any'] else 'NOT IN'} (SELECT value FROM json_each(?{number}))"
        if match["number"]:
            return f"?{match['number']}"
        return match["literal"] or ""

    text = _TOKEN.sub(swap, sql)
    return Plain(text, tuple(dict.fromkeys(lists)), reads(sql))


def reads(sql: str) -> bool:
    """Whether the statement surely writes nothing (unsure counts as a write)."""
    return _READS.match(sql) is not None and _WRITES.search(_TOKEN.sub(_keep_names, sql)) is None


def _keep_names(match: re.Match[str]) -> str:
    return "" if match["literal"] or match["lock"] else match[0]


@lru_cache(maxsize=1024)
def spread(sql: str) -> Spread:
    """:raises ValueError: not exactly one relation, or a column of an unknown type."""
    relation = _relation(sql)
    lists: set[int] = set()
    order: list[int] = []

    def swap(match: re.Match[str]) -> str:
        number = match["any"] or match["all"] or match["number"]
        if number is None:
            return match["literal"] or ""
        order.append(int(number) - 1)
        if match["number"]:
            return "?"
        lists.add(int(number) - 1)
        return f"{'IN' if match['any'] else 'NOT IN'} (SELECT value FROM json_each(?))"

    head = _TOKEN.sub(swap, sql[: relation.start()])
    before = tuple(order)
    order.clear()
    tail = _TOKEN.sub(swap, sql[relation.end() :])
    columns = tuple(_columns(relation))
    return Spread(head, tail, relation["name"], columns, before, tuple(order), frozenset(lists), reads(sql))


def _relation(sql: str) -> re.Match[str]:
    found = [match for match in _TOKEN.finditer(sql) if match["name"]]
    if len(found) != 1:
        raise ValueError(f"each() needs one {{v(…)}} relation, found {len(found)}")
    return found[0]


def _columns(relation: re.Match[str]) -> list[tuple[str, str]]:
    columns: list[tuple[str, str]] = []
    for column in relation["columns"].split(","):
        name, _, kind = column.strip().partition(" ")
        if not name or kind not in _ARRAYS:
            raise ValueError(f"column {column.strip()!r}: the types are {', '.join(_ARRAYS)}")
        columns.append((name, kind))
    return columns


def most_rows(columns: int) -> int:
    """Rows of so many columns that one SQLite statement takes."""
    fit = max(1, VALUES_AT_MOST // columns)
    return max(size for size in _SIZES if size <= fit)


def size_for(rows: int, columns: int) -> int:
    """The size of list that takes `rows` (at most `most_rows(columns)`)."""
    return min(most_rows(columns), next(size for size in _SIZES if size >= rows))


@lru_cache(maxsize=512)
def values(sql: str, size: int) -> str:
    """The SQLite text over a list of `size` rows; the list's last parameter is its LIMIT."""
    parts = spread(sql)
    # The cast gives text its affinity: (text, int) IN (SELECT …) finds no index without.
    names = ", ".join(
        f"CAST(column{i} AS TEXT) AS {name}" if kind == "text" else f"column{i} AS {name}"
        for i, (name, kind) in enumerate(parts.columns, 1)
    )
    row = f"({','.join('?' * len(parts.columns))})"
    # OFFSET, because SQLite may merge a subquery that has only a LIMIT into the query around
    # it, and then sorts before it limits: the filling would show.
    relation = f"(SELECT {names} FROM (VALUES {','.join([row] * size)}) LIMIT ? OFFSET 0) AS {parts.alias}"
    return parts.head + relation + parts.tail


def values_params(parts: Spread, size: int, rows: Sequence[Row], params: Sequence[Value]) -> list[Any]:
    """The parameters of `values(sql, size)`."""
    shared = encode_lists(parts.lists, params)
    filled: list[Any] = [shared[i] for i in parts.before]
    width = len(parts.columns)
    for row in rows:
        if len(row) != width:
            raise ValueError(f"a row of {len(row)} values for {width} columns")
        filled += row
    filled += [None] * (width * (size - len(rows)))
    filled.append(len(rows))
    filled += [shared[i] for i in parts.after]
    return filled


def encode_lists(lists: Sequence[int] | frozenset[int], params: Sequence[Value]) -> Sequence[Any]:
    """The params with those at `lists` as JSON arrays."""
    if not lists:
        return params
    encoded: list[Any] = list(params)
    for i in lists:
        encoded[i] = msgspec.json.encode(encoded[i]).decode()
    return encoded


@lru_cache(maxsize=1024)
def aggregated(text: str, width: int, blobs: tuple[int, ...] = ()) -> str:
    """A SELECT as one row with one JSON text, so that the engine is stepped once. The columns
    at `blobs` come in hex, which JSON can hold."""
    names = ", ".join(f"c{i}" for i in range(width))
    values = ", ".join(
        f"CASE WHEN c{i} IS NULL THEN NULL ELSE hex(c{i}) END" if i in blobs else f"c{i}" for i in range(width)
    )
    return f"WITH aggregated({names}) AS ({text}) SELECT json_group_array(json_array({values})) FROM aggregated"


@lru_cache(maxsize=1024)
def unnested(sql: str) -> tuple[str, int]:
    """The PostgreSQL text and the number of columns; arrays follow the other params."""
    relation = _relation(sql)
    numbers = [int(n) for match in _TOKEN.finditer(sql) if (n := match["number"] or match["any"] or match["all"])]
    first = max(numbers, default=0) + 1
    columns = _columns(relation)
    arrays = ", ".join(f"${first + i}::{_ARRAYS[kind]}" for i, (_, kind) in enumerate(columns))
    names = ", ".join(name for name, _ in columns)
    text = f"{sql[: relation.start()]}unnest({arrays}) AS {relation['name']}({names}){sql[relation.end() :]}"
    return text, len(columns)
