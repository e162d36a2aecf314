"""The whole move: a copy while the source is in use, rounds that catch up, then, with the source
at rest, the last round and the proof.

Only the move writes to the target until it is ready, and what it wrote in each range of keys is
recorded in the same transaction, so a run that was killed is gone on from, and of the target
only what has changed has to be read again while the source is at rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Protocol, TypeVar

from posthouse.clock import Clock
from posthouse.moving import state
from posthouse.moving.blobs import BlobMove
from posthouse.moving.rows import TableMove
from posthouse.moving.tables import Table, compare_schema, tables
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.partitions import TABLES, Partitions

T = TypeVar("T")

_TABLES_AT_ONCE = 3
_ROUNDS_AT_MOST = 5
_CALM = 500
"""Rows that change in a round: fewer are brought in the stop as quickly."""


class Watch(Protocol):
    """Who looks on."""

    def phase(self, name: str, total: int) -> None:
        """`total`: rows or blobs that it will deal with, nearly; 0: not known."""
        ...

    def advance(self, number: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Ends:
    """One end: its records and its two stores."""

    records: Records
    attachments: Blobs
    arrived: Blobs

    @property
    def stores(self) -> tuple[Blobs, Blobs]:
        return self.attachments, self.arrived


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, from the moment that the source was at rest."""

    catch_up: float
    verify: float
    check: float

    @property
    def stop(self) -> float:
        return self.catch_up + self.verify + self.check


@dataclass(frozen=True, slots=True)
class Moved:
    """`rows` of each table. `caught_up`: rows written in the stop. `replaced_nul`: texts whose
    NUL octets became U+FFFD."""

    rows: Mapping[str, int]
    blobs: int
    caught_up: int
    replaced_nul: int
    timing: Timing


class Move:
    def __init__(self, source: Ends, target: Ends, *, name: str, clock: Clock, watch: Watch) -> None:
        """:param name: of the source, the same in each run."""
        self._source = source
        self._target = target
        self._name = name
        self._clock = clock
        self._watch = watch
        self._tables: list[TableMove] = []
        self._stores = [
            BlobMove(one, other, watch.advance) for one, other in zip(source.stores, target.stores, strict=True)
        ]

    async def examine(self) -> dict[str, int]:
        """Rows of each table; nothing is changed.

        :raises Misconfigured: `move_schema`.
        :raises Conflict: the target is not free.
        """
        wanted = await self._agreed()
        await self._target.records.read(lambda tx: state.check_begun_or_free(tx, wanted, self._name, self._clock()))
        return await self._counted(wanted)

    async def begin(self) -> bool:
        """Whether an earlier run is gone on from. Errors as of `examine`."""
        wanted = await self._agreed()
        again = await self._target.records.write(
            lambda tx: state.begin(tx, wanted, source=self._name, now=self._clock())
        )
        known = await self._target.records.read(lambda tx: _known(tx, wanted))
        self._tables = [
            TableMove(self._source.records, self._target.records, chunks, self._watch.advance) for chunks in known
        ]
        return again

    async def copy(self) -> None:
        """Everything, once. :raises StorageUnavailable: run it again."""
        await self._parts()
        self._watch.phase("Copying blobs", 0)
        for store in self._stores:
            await store.learn()
            await store.copy()
        counted = await self._counted([one.table for one in self._tables])
        have = sum(one.chunks.rows for one in self._tables)
        self._watch.phase("Copying rows", max(0, sum(counted.values()) - have))
        await self._all(lambda one: one.copy())
        for one in self._tables:
            # A table in parts is never analysed by itself, and plans need it.
            sql = f'ANALYZE "{one.table.name}"'
            await self._target.records.write(lambda tx, sql=sql: tx.run(sql), durable=False)

    async def approach(self, *, deep: bool) -> None:
        """Rounds while the source is in use, until little is left, each read back.

        :param deep: read all back, also the blobs.
        """
        before = None
        for _ in range(_ROUNDS_AT_MOST):
            changed = await self.round()
            if changed < _CALM or (before is not None and 2 * changed > before):
                break
            before = changed
        self._watch.phase("Reading back what was written", self._rows())
        await self._all(lambda one: one.verify(every=deep))
        if deep:
            self._watch.phase("Reading back blobs", 0)
            for store in self._stores:
                await store.read_back()

    async def round(self) -> int:
        """Rows that had changed."""
        self._watch.phase("Comparing", self._rows())
        for store in self._stores:
            await store.copy()
        return sum(await self._all(lambda one: one.round()))

    async def finish(self, *, deep: bool, check: Callable[[], Awaitable[None]], leave: Callable[[], None]) -> Moved:
        """With the source at rest, and kept there by the caller.

        :param check: proves the target; raises when it is not as it should be.
        :param leave: marks the source, so that it is not served again.
        :raises Corrupt: `move_differs`.
        """
        began = monotonic()
        changed = await self.round()
        # A row may have made room for another's unique value, and be missing now.
        while any(not chunk.hash for one in self._tables for chunk in one.chunks.chunks):
            changed += await self.round()
        blobs = sum([await store.finish() for store in self._stores])
        caught_up = monotonic()
        self._watch.phase("Reading back what was written", 0)
        await self._all(lambda one: one.verify(every=False))
        if deep:
            for store in self._stores:
                await store.read_back()
        verified = monotonic()
        self._watch.phase("Checking the mailboxes", 0)
        await check()
        checked = monotonic()
        leave()
        await self._target.records.write(lambda tx: state.mark_ready(tx, self._clock()))
        return Moved(
            {one.table.name: one.chunks.rows for one in self._tables},
            blobs,
            changed,
            sum(one.replaced_nul for one in self._tables),
            Timing(caught_up - began, verified - caught_up, checked - verified),
        )

    async def _agreed(self) -> list[Table]:
        wanted = await self._source.records.read(tables)
        await self._target.records.read(lambda tx: compare_schema(tx, wanted))
        return wanted

    async def _counted(self, wanted: list[Table]) -> dict[str, int]:
        async def work(tx: Tx) -> dict[str, int]:
            counted: dict[str, int] = {}
            for table in wanted:
                row = await tx.row(f'SELECT count(*) FROM "{table.name}"')  # noqa: S608 - of our own catalog
                counted[table.name] = row[0] if row is not None else 0
            return counted

        return await self._source.records.read(work)

    def _rows(self) -> int:
        return sum(one.chunks.rows for one in self._tables)

    async def _parts(self) -> None:
        """Parts for the weeks that the ids of the source are of."""
        parts = Partitions(self._target.records, self._clock)
        for table in TABLES:
            sql = f"SELECT min({table.key}) FROM {table.name}"  # noqa: S608 - our own names
            row = await self._source.records.read(lambda tx, sql=sql: tx.row(sql))
            if row is not None and row[0] is not None:
                await parts.make_since(table, row[0])

    async def _all(self, work: Callable[[TableMove], Awaitable[T]]) -> list[T]:
        """A few tables at a time; the first error ends it."""
        gate = asyncio.Semaphore(_TABLES_AT_ONCE)

        async def one(table: TableMove) -> T:
            async with gate:
                return await work(table)

        running = [asyncio.ensure_future(one(table)) for table in self._tables]
        try:
            return await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _known(tx: Tx, wanted: list[Table]) -> list[state.Chunks]:
    return [await state.known_chunks(tx, table) for table in wanted]
