"""One table: copied in the order of its key, then compared chunk by chunk until both are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posthouse import errors
from posthouse.moving import state
from posthouse.moving.chunks import UNKNOWN, Chunk, Chunks, check_types, digest, encode_key, without_nul
from posthouse.moving.tables import Table
from posthouse.storage.records.base import Records, Row, Tx

Tell = Callable[[int], None]
"""So many more rows were dealt with."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What makes the rows of a range in the target those of the source. `gone`: keys to delete
    first, of what is replaced too. `signatures`: of all rows that are then there."""

    gone: list[Row]
    fresh: list[Row]
    signatures: list[Row]


class TableMove:
    def __init__(self, source: Records, target: Records, chunks: Chunks, tell: Tell) -> None:
        """:param chunks: what is known of the target; nobody else writes this table there."""
        self._source = source
        self._target = target
        self.table = chunks.table
        self.chunks = chunks
        self._tell = tell
        self.replaced_nul = 0
        """Texts that had NUL octets."""

    async def copy(self) -> int:
        """What lies above the last chunk, in chunks of their own; how many rows.

        :raises StorageUnavailable: what was copied stays and is gone on from.
        :raises Misconfigured: `move_value`.
        """
        table, copied = self.table, 0
        while True:
            last = self.chunks.last
            rows = await self._read(self._source, last, None, full=True, limit=table.chunk)
            if not rows:
                return copied
            signatures = self._clean([table.signature(row) for row in rows])
            fresh, changed = without_nul(table, rows)
            self.replaced_nul += changed
            await self._write(Chunk(table.key_of(rows[-1])), _Change([], fresh, signatures))
            copied += len(rows)
            self._tell(len(rows))
            if len(rows) < table.chunk:
                return copied

    async def round(self) -> int:
        """Compares every chunk with the source, brings over what differs, then what is new;
        how many rows were written or deleted. Errors as of `copy`."""
        written, lower = 0, None
        for chunk in list(self.chunks.chunks):
            written += await self._compare(lower, chunk)
            lower = chunk.upper
            self._tell(chunk.rows)
        return written + await self.copy()

    async def verify(self, *, every: bool) -> int:
        """Reads chunks back from the target; how many rows.

        :param every: else only those that were not read back since they were written.
        :raises Corrupt: `move_differs`: it is not what was written; the next run brings it again.
        """
        lower, seen = None, 0
        for chunk in self.chunks.chunks:
            if every or not chunk.verified:
                await self._verify(lower, chunk)
                seen += chunk.rows
            lower = chunk.upper
        beyond = self.table.beyond(lower=lower is not None)
        if await self._target.read(lambda tx: tx.row(beyond, *(lower or ()))) is not None:
            raise _differs(self.table, "has rows that the old one has not")
        return seen

    async def _verify(self, lower: Row | None, chunk: Chunk) -> None:
        rows = await self._read(self._target, lower, chunk.upper, full=False)
        if len(rows) == chunk.rows and digest(rows) == chunk.hash:
            chunk.verified = True
        else:
            chunk.hash, chunk.verified = UNKNOWN, False
        await self._target.write(lambda tx: state.put_chunk(tx, self.table.name, chunk), durable=False)
        if not chunk.verified:
            raise _differs(self.table, f"up to the row {chunk.upper!r} is not what was written")

    async def _compare(self, lower: Row | None, chunk: Chunk) -> int:
        most, written = self.table.chunk, 0
        while True:
            rows = self._clean(await self._read(self._source, lower, chunk.upper, full=False, limit=2 * most + 1))
            if len(rows) <= 2 * most:
                break
            # It has grown: the first half becomes a chunk of its own.
            part = Chunk(self.table.key_of(rows[most - 1]))
            self.chunks.put(part)
            chunk.hash = UNKNOWN
            written += await self._bring(lower, part)
            lower = part.upper
        if digest(rows) != chunk.hash:
            written += await self._bring(lower, chunk)
        return written

    async def _bring(self, lower: Row | None, chunk: Chunk) -> int:
        """Row by row, since a chunk that differs mostly differs in few."""
        there = {self.table.key_of(row): row for row in await self._read(self._target, lower, chunk.upper, full=False)}
        sql = self.table.select(lower=lower is not None, upper=True, full=False, limit=False)

        async def work(tx: Tx) -> _Change:
            now, _ = without_nul(self.table, await tx.rows(sql, *(lower or ()), *chunk.upper))
            differing = [row for row in now if there.get(self.table.key_of(row)) != row]
            keys = {self.table.key_of(row) for row in now}
            gone = [key for key in there if key not in keys]
            gone += [key for row in differing if (key := self.table.key_of(row)) in there]
            if self.table.derived and differing:
                full = await tx.each(self.table.by_key(), [self.table.key_of(row) for row in differing])
                differing, _ = without_nul(self.table, full)
            return _Change(gone, differing, now)

        change = await self._source.read(work)
        await self._write(chunk, change)
        return len(change.gone) + len(change.fresh)

    async def _write(self, chunk: Chunk, change: _Change) -> None:
        """The rows, and what is known of them, in one transaction."""
        table = self.table
        check_types(table, change.fresh)
        done = Chunk(chunk.upper, digest(change.signatures), len(change.signatures))

        async def work(tx: Tx) -> list[Row]:
            if change.gone:
                await tx.run_each(table.delete(table.key), change.gone)
            strays = [key for unique in table.unique for key in await self._make_room(tx, unique, change.fresh)]
            for key in strays:
                if (other := self.chunks.holding(key)) is not None:
                    await state.forget_chunk(tx, table.name, encode_key(other.upper))
            if change.fresh:
                await tx.run_each(table.insert(), change.fresh)
            await state.put_chunk(tx, table.name, done)
            return strays

        for key in await self._target.write(work, durable=False):
            if (other := self.chunks.holding(key)) is not None:
                other.hash, other.verified = UNKNOWN, False
        self.chunks.put(done)

    async def _make_room(self, tx: Tx, unique: tuple[int, ...], rows: Sequence[Row]) -> list[Row]:
        """What is still there of a row that had, in the source, a unique value that another has
        now. Its own chunk differs, and brings it again."""
        return await tx.each(self.table.delete(unique), [tuple(row[n] for n in unique) for row in rows]) if rows else []

    async def _read(
        self, records: Records, lower: Row | None, upper: Row | None, *, full: bool, limit: int | None = None
    ) -> list[Row]:
        sql = self.table.select(lower=lower is not None, upper=upper is not None, full=full, limit=limit is not None)
        ends = (*(lower or ()), *(upper or ()), *(() if limit is None else (limit,)))
        return await records.read(lambda tx: tx.rows(sql, *ends))

    def _clean(self, rows: list[Row]) -> list[Row]:
        return without_nul(self.table, rows)[0]


def _differs(table: Table, why: str) -> errors.Corrupt:
    return errors.Corrupt(
        f"Table {table.name} of the new database {why}. Nothing is lost: nothing was switched over."
        " Make sure that nobody else writes there, and run the same command again",
        code="move_differs",
    )
