"""The records port: transactions over one SQL dialect that both engines understand.

SQL is written once, in PostgreSQL's style: `$1` parameters, `= ANY($1)` for a list,
`INSERT … ON CONFLICT`, `UPDATE … FROM`, `RETURNING`, `FOR UPDATE SKIP LOCKED` (a no-op on
SQLite). A statement over many rows names its rows with a relation in braces,

    UPDATE message SET state = v.state FROM {v(id text, rcpt int, state text)}
    WHERE message.id = v.id AND message.rcpt = v.rcpt

which becomes `unnest($1::text[], …)` on PostgreSQL and a VALUES list on SQLite: one step of
the engine for a whole batch, because a step per row costs a GIL hand-over per row there.
Types in braces: text, int (64 bit), float, bytes; all may be null.
`INSERT … SELECT … FROM {v(…)} WHERE true ON CONFLICT …` needs the `WHERE true` on SQLite.
`DELETE … WHERE (a, b) IN (SELECT v.a, v.b FROM {v(…)})` uses SQLite's index on (a, b) only
when `a` is text. Join a table to {v} by columns of v for its whole key: a constant for the
key's first column makes SQLite walk the table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")
Value = str | int | float | bytes | None | Sequence[str] | Sequence[int]
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Capabilities:
    engine: Literal["sqlite", "postgresql"]
    exclusive: bool
    """One process at a time owns the records; its start may free every lease."""
    concurrent_writes: bool
    """Writes run beside each other; else they queue up and share commits."""


class Tx(Protocol):
    """One transaction. The work given to `read` and `write` awaits only these methods."""

    async def rows(self, sql: str, *params: Value) -> list[Row]: ...

    async def row(self, sql: str, *params: Value) -> Row | None: ...

    async def run(self, sql: str, *params: Value) -> int:
        """Rows touched."""
        ...

    async def each(self, sql: str, rows: Sequence[Row], *params: Value) -> list[Row]:
        """A statement with a `{v(…)}` relation over `rows`, in as few steps as the engine
        allows; returns what RETURNING or SELECT gives. `$1…` number the further `params`."""
        ...

    async def run_each(self, sql: str, rows: Sequence[Row], *params: Value) -> int:
        """As `each`, for a statement that returns nothing: rows touched."""
        ...


Work = Callable[[Tx], Awaitable[T]]


class Records(Protocol):
    capabilities: Capabilities

    async def read(self, work: Work[T]) -> T:
        """A consistent snapshot; the work must not write.

        :raises StorageUnavailable: the engine is away, locked, full or corrupt.
        """
        ...

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        """All of `work` or nothing; on return it is on disk (fsync), unless `durable` is
        false: then a power loss may undo it, which suits a lease or a counter.

        Concurrent writes share one commit where the engine has one writer. Work may run
        again from its start after a serialization failure, so it keeps no state outside.

        :raises StorageUnavailable: nothing of it happened, or (connection lost during the
            commit) it is unknown; every write is safe to repeat with the same ids.
        """
        ...

    async def ready(self) -> None:
        """:raises StorageUnavailable: with the reason, when a write would fail now."""
        ...

    async def close(self) -> None: ...
