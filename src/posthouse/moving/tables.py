# ruff: noqa: S608 - names come from the database's own catalog, quoted; values are parameters
"""Which tables are moved and what they look like, read from the source's catalog, so that a
table of a later migration is moved without a word here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from posthouse import errors
from posthouse.storage.records.base import Row, Tx

Kind = Literal["text", "int", "bytes"]
"""As in a `{v(…)}` relation."""

STAYS = frozenset(
    {
        "alembic_version",  # each end's own
        "schema_floor",
        "process",  # who runs there, by its own clock
        "lease",
        "queue_partition",  # offsets of topics that the source has not
        "queue_withdrawn",
        "move_state",
        "move_chunk",
    }
)
"""Tables that belong to an end and not to what is moved."""

_DERIVED = {("content", "data")}
"""Columns whose value follows from the key (it is a hash of them): compared by their length."""

_WIDE = {"content", "email", "inbound", "submission", "idempotency", "relayed", "template_version"}
_ROWS, _WIDE_ROWS = 2000, 250

_KINDS: dict[str, Kind] = {"TEXT": "text", "BIGINT": "int", "INTEGER": "int", "BLOB": "bytes"}
_POSTGRES: dict[str, Kind] = {"text": "text", "bigint": "int", "integer": "int", "bytea": "bytes"}


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Table:
    """`key`: positions of its primary key's columns, in the key's order. `unique`: positions of
    the columns of each further constraint. `derived`: positions compared by length."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[int, ...]
    unique: tuple[tuple[int, ...], ...] = ()

    @property
    def chunk(self) -> int:
        """Rows that are copied and compared together."""
        return _WIDE_ROWS if self.name in _WIDE else _ROWS

    @property
    def derived(self) -> frozenset[int]:
        return frozenset(n for n, column in enumerate(self.columns) if (self.name, column.name) in _DERIVED)

    @property
    def texts(self) -> tuple[int, ...]:
        return tuple(n for n, column in enumerate(self.columns) if column.kind == "text")

    def key_of(self, row: Row) -> Row:
        return tuple(row[n] for n in self.key)

    def signature(self, row: Row) -> Row:
        """The row as it is compared."""
        if not self.derived:
            return row
        return tuple(len(value) if n in self.derived and value is not None else value for n, value in enumerate(row))

    def names(self, positions: Iterable[int] | None = None) -> str:
        chosen = range(len(self.columns)) if positions is None else positions
        return ", ".join(f'"{self.columns[n].name}"' for n in chosen)

    def relation(self, positions: Iterable[int] | None = None) -> str:
        """`{v(c0 text, …)}` of these columns."""
        chosen = range(len(self.columns)) if positions is None else positions
        return "{v(" + ", ".join(f"c{n} {self.columns[n].kind}" for n in chosen) + ")}"

    def select(self, *, lower: bool, upper: bool, full: bool, limit: bool = True) -> str:
        """The rows of a range of keys: params are its lower end (not in it), its upper end (in
        it), each where asked for, and the limit."""
        shown = [
            f'length("{column.name}")' if n in self.derived and not full else f'"{column.name}"'
            for n, column in enumerate(self.columns)
        ]
        return (
            f'SELECT {", ".join(shown)} FROM "{self.name}"{self._where(lower=lower, upper=upper)}'
            f" ORDER BY {self.names(self.key)}" + (f" LIMIT ${self._next(lower, upper)}" if limit else "")
        )

    def _next(self, *ends: bool) -> int:
        return len(self.key) * sum(ends) + 1

    def _where(self, *, lower: bool, upper: bool) -> str:
        parts: list[str] = []
        for wanted, sign in ((lower, ">"), (upper, "<=")):
            if wanted:
                first = len(parts) * len(self.key) + 1
                marks = ", ".join(f"${first + n}" for n in range(len(self.key)))
                parts.append(f"({self.names(self.key)}) {sign} ({marks})")
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def beyond(self, *, lower: bool) -> str:
        """Whether a row lies above a key."""
        return f'SELECT 1 FROM "{self.name}"{self._where(lower=lower, upper=False)} LIMIT 1'

    def by_key(self) -> str:
        """Whole rows by their keys, for `each`."""
        keys = ", ".join(f"v.c{n}" for n in self.key)
        on = " AND ".join(f't."{self.columns[n].name}" = v.c{n}' for n in self.key)
        shown = ", ".join(f't."{column.name}"' for column in self.columns)
        return f'SELECT {shown} FROM {self.relation(self.key)} CROSS JOIN "{self.name}" t WHERE {on} ORDER BY {keys}'

    def delete(self, positions: tuple[int, ...]) -> str:
        """Rows by the values of these columns, for `each`; gives the keys of those there were."""
        values = ", ".join(f"v.c{n}" for n in positions)
        return (
            f'DELETE FROM "{self.name}" WHERE ({self.names(positions)}) IN'
            f" (SELECT {values} FROM {self.relation(positions)}) RETURNING {self.names(self.key)}"
        )

    def insert(self) -> str:
        values = ", ".join(f"v.c{n}" for n in range(len(self.columns)))
        return f'INSERT INTO "{self.name}" ({self.names()}) SELECT {values} FROM {self.relation()}'


async def tables(tx: Tx) -> list[Table]:
    """Every table of an SQLite source that is moved, by name.

    :raises Misconfigured: `move_schema`: a table that cannot be moved.
    """
    rows = await tx.rows(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    return [await _table(tx, name) for (name,) in rows if name not in STAYS]


async def _table(tx: Tx, name: str) -> Table:
    columns: list[Column] = []
    key: dict[int, int] = {}
    for n, (column, declared, in_key) in enumerate(
        await tx.rows("SELECT name, type, pk FROM pragma_table_info($1) ORDER BY cid", name)
    ):
        if declared not in _KINDS:
            raise _schema(f"column {name}.{column} has the type {declared}, which is not moved")
        columns.append(Column(column, _KINDS[declared]))
        if in_key:
            key[in_key] = n
    if not key:
        raise _schema(f"table {name} has no key")
    positions = {column.name: n for n, column in enumerate(columns)}
    unique = [
        tuple(positions[column] for (column,) in await tx.rows("SELECT name FROM pragma_index_info($1)", index))
        for (index,) in await tx.rows("SELECT name FROM pragma_index_list($1) WHERE origin = 'u' ORDER BY seq", name)
    ]
    return Table(name, tuple(columns), tuple(key[n] for n in sorted(key)), tuple(unique))


async def compare_schema(tx: Tx, wanted: list[Table]) -> None:
    """:raises Misconfigured: `move_schema`: PostgreSQL's tables are not the same."""
    rows = await tx.rows(
        "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns"
        " WHERE table_schema = current_schema()"
    )
    there: dict[str, dict[str, Kind | None]] = {}
    for table, column, kind in rows:
        there.setdefault(table, {})[column] = _POSTGRES.get(kind)
    for table in wanted:
        if {column.name: column.kind for column in table.columns} != there.get(table.name):
            raise _schema(f"table {table.name} is not the same at both ends")


def _schema(why: str) -> errors.Misconfigured:
    return errors.Misconfigured(
        f"{why}; start `posthouse serve` of this release once on the old configuration, so that its schema is brought"
        " up to date, and move again",
        code="move_schema",
    )
