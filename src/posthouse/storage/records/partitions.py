"""Tables in weekly parts on PostgreSQL: parts are made ahead, and dropped whole when they are old.

A part holds the ids of one week (ids begin with their millisecond), so a look-up by id finds
its part without knowing of it. What fits no part lies in the table's default part, which is a
safety net: parts are made for what is found there, and it is emptied into them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from posthouse.clock import DAY, HOUR, Clock
from posthouse.errors import Unavailable
from posthouse.storage.records.base import Records, Tx

log = structlog.get_logger("partitions")

WEEK = 7 * DAY
AHEAD = 4
"""Weeks that are there before they are needed."""
_STRAYS_AT_MOST = 20
"""Parts made in a round for what lies in a default part."""
_OLDEST = 3 * 366 * DAY
"""Ids older than this are nobody's: they stay in the default part."""

_LOCKS = "SET LOCAL lock_timeout = '2s'"
"""Others wait behind us for a lock, so it is asked for again later rather than waited for."""

_BOUND = re.compile(r"FOR VALUES FROM \((?:MINVALUE|'\w+_([0-9a-f]{12})')\) TO \('\w+_([0-9a-f]{12})'\)")


@dataclass(frozen=True, slots=True)
class Table:
    """`prefix`: of the ids in the column `key`. `options`: storage parameters of a part."""

    name: str
    key: str
    prefix: str
    options: str = ""

    def first(self, at: int) -> str:
        """The lowest id of this moment (µs)."""
        return f"{self.prefix}_{max(0, at) // 1000:012x}"


MESSAGE = Table("message", "id", "msg", "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05")
SUBMISSION = Table("submission", "id", "sub")
EVENT = Table("event", "message_id", "msg")
INBOUND_RCPT = Table("inbound_rcpt", "inbound_id", "inb", "fillfactor = 90")
REFUSAL = Table("refusal", "id", "rfs")
TABLES = (MESSAGE, SUBMISSION, EVENT, INBOUND_RCPT, REFUSAL)


@dataclass(frozen=True, slots=True)
class Part:
    """Ids from `lower` (µs; 0: from the beginning) up to before `upper`."""

    table: Table
    name: str
    lower: int
    upper: int


class Partitions:
    """For an engine that has them (PostgreSQL); DDL goes through `records`, guarded as they are."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._next_at = 0

    async def round(self) -> None:
        """Once an hour, `make_ahead`; while storage is away, or a table too busy, later."""
        if self._clock() < self._next_at:
            return
        try:
            await self.make_ahead()
        except Unavailable as error:
            log.warning("partitions_wait_for_storage", detail=error.detail)
        else:
            self._next_at = self._clock() + HOUR

    async def make_ahead(self) -> int:
        """Make the parts of the coming weeks, and those of what lies in a default part; how many.

        :raises StorageUnavailable: it was busy, or is away; what was made is there.
        """
        made = 0
        for table in TABLES:
            there = await self.parts(table)
            week = self._clock() // WEEK * WEEK
            wanted = [week + n * WEEK for n in range(AHEAD + 1)]
            missing = [lower for lower in wanted if not _covered(lower, there)]
            for lower in missing:
                await self._make(table, lower)
            made += len(missing) + await self._empty_default(table)
        return made

    async def make_since(self, table: Table, id_: str) -> int:
        """Make the parts that are missing from this id's week up to now; how many. For ids that
        are about to be written.

        :raises StorageUnavailable: it was busy, or is away; what was made is there.
        """
        stamp, made = _stamp(id_), 0
        if stamp is None:
            return made
        there = await self.parts(table)
        for lower in range(max(stamp, self._clock() - _OLDEST) // WEEK * WEEK, self._clock(), WEEK):
            if not _covered(lower, there):
                await self._make(table, lower)
                made += 1
        return made

    async def parts(self, table: Table) -> list[Part]:
        """Oldest first, without the default part."""
        rows = await self._records.read(lambda tx: tx.rows(_PARTS, table.name))
        found = [(name, _BOUND.fullmatch(bound)) for name, bound in rows]
        parts = [
            Part(table, name, int(match[1] or "0", 16) * 1000, int(match[2], 16) * 1000)
            for name, match in found
            if match is not None
        ]
        return sorted(parts, key=lambda part: part.lower)

    async def drop(self, part: Part) -> None:
        """:raises StorageUnavailable: the table was in use for too long; try again later."""

        async def work(tx: Tx) -> None:
            await tx.run(_LOCKS)
            await tx.run(f"DROP TABLE IF EXISTS {part.name}")

        await self._records.write(work, durable=False)
        log.info("partition_dropped", part=part.name)

    async def _empty_default(self, table: Table) -> int:
        """Parts for the weeks of what has strayed into the default part."""
        moment = self._clock()
        low, high = table.first(moment - _OLDEST), table.first(moment + (AHEAD + 1) * WEEK)
        made = 0
        while made < _STRAYS_AT_MOST:
            row = await self._records.read(
                lambda tx: tx.row(
                    f"SELECT min({table.key}) FROM {table.name}_default WHERE {table.key} >= $1 AND {table.key} < $2",  # noqa: S608
                    low,
                    high,
                )
            )
            stamp = _stamp(row[0]) if row is not None and row[0] is not None else None
            if stamp is None:
                break
            await self._make(table, stamp // WEEK * WEEK)
            made += 1
        return made

    async def _make(self, table: Table, lower: int) -> None:
        """In one transaction: the part, with what lies in the default part for it."""
        name = f"{table.name}_{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=lower):%Y%m%d}"
        low, high = table.first(lower), table.first(lower + WEEK)
        options = f" WITH ({table.options})" if table.options else ""
        strays = f"FROM {table.name}_default WHERE {table.key} >= $1 AND {table.key} < $2"

        async def work(tx: Tx) -> None:
            await tx.run(_LOCKS)
            await tx.run(f"CREATE TABLE {name} (LIKE {table.name} INCLUDING DEFAULTS INCLUDING INDEXES){options}")
            if await tx.row(f"SELECT 1 {strays} LIMIT 1", low, high) is not None:
                # Locked before the rows move: who updates one meanwhile finds it where it is then.
                await tx.run(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE")
                await tx.run("SET LOCAL statement_timeout = '10min'")
                moving = f"WITH moved AS (DELETE {strays} RETURNING *) INSERT INTO {name} SELECT * FROM moved"  # noqa: S608
                moved = await tx.run(moving, low, high)
                log.warning("partition_was_late", part=name, moved=moved)
            # Attaching, unlike making it in place, lets others read and write the table.
            await tx.run(f"ALTER TABLE {table.name} ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}')")

        await self._records.write(work, durable=False)
        log.info("partition_made", part=name)


def _covered(lower: int, parts: list[Part]) -> bool:
    return any(part.lower < lower + WEEK and lower < part.upper for part in parts)


def _stamp(id_: str) -> int | None:
    """The moment of an id in µs; None: it is no id."""
    try:
        return int(id_.partition("_")[2][:12], 16) * 1000
    except ValueError:
        return None


def moment_of(id_: str) -> int:
    """The moment (µs, to the millisecond) that an id begins with. :raises ValueError: it is no id."""
    stamp = _stamp(id_)
    if stamp is None:
        raise ValueError(f"no time in {id_!r}")
    return stamp


_PARTS = """
SELECT c.relname::text, pg_get_expr(c.relpartbound, c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::text::regclass AND c.relispartition
"""
