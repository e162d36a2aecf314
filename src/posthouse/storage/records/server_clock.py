"""The time of the cluster: that of its database, whatever a process's own clock says.

Leases, due times and ages are compared between processes, so they must come from one clock.
A statement that has to know the exact time asks the server (`moment`). Everything else uses
`ServerClock`: the server's time as it was measured last, carried on by a clock of this
machine that nobody can set. On SQLite, which one process owns, the process's clock is it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Gauge

from posthouse.clock import SECOND, Clock, now
from posthouse.errors import Unavailable
from posthouse.storage.records.base import Records, Row, Tx

log = structlog.get_logger("records")

OFFSET = Gauge("posthouse_clock_offset_seconds", "The database's clock less this process's; leases follow the former.")

MEASURE_EVERY = 5.0
"""Seconds."""
_PROBES = 3
_TOLD = 2 * SECOND
"""µs off from which it is worth a line in the log."""

MOMENT = {
    "postgresql": "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    # Milliseconds are what SQLite's julianday holds.
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000",
}
"""µs since 1970 by the engine's clock, as an expression of SQL."""


def _steady() -> int:
    return time.monotonic_ns() // 1000


class ServerClock:
    """A `Clock`. Until `measure` has succeeded once it is the process's own.

    :param steady: µs, from any beginning; never set and never stopped.
    """

    def __init__(self, records: Records, *, local: Clock = now, steady: Callable[[], int] = _steady) -> None:
        self._records = records
        self._local = local
        self._steady = steady
        self._base = local() - steady()
        self._told = False

    def __call__(self) -> int:
        return self._base + self._steady()

    @property
    def offset(self) -> int:
        """µs that the process's own clock is behind."""
        return self() - self._local()

    async def measure(self) -> None:
        """Asks the server a few times; the quickest answer is the most exact. What differs by no
        more than the answer took is left, so that time does not step to and fro.

        :raises StorageUnavailable: it goes on as before.
        """
        best = await self._probe()
        for _ in range(_PROBES - 1):
            best = min(best, await self._probe())
        took, base = best
        if abs(base - self._base) > took:
            self._base = base
        OFFSET.set(self.offset / SECOND)
        self._tell()

    async def round(self) -> None:
        """As `measure`, for a loop: a server that is away is asked again the next time."""
        try:
            await self.measure()
        except Unavailable as error:
            log.warning("clock_not_measured", detail=error.detail)

    async def _probe(self) -> tuple[int, int]:
        """µs that the answer took, and the server's time less the steady one."""

        async def work(tx: Tx) -> tuple[int, Row | None, int]:
            before = self._steady()
            row = await tx.row(f"SELECT {MOMENT['postgresql']}")
            return before, row, self._steady()

        before, row, after = await self._records.read(work)
        assert row is not None
        return after - before, row[0] - (before + after) // 2

    def _tell(self) -> None:
        off = abs(self.offset) > _TOLD
        if off and not self._told:
            log.warning("clock_is_off", seconds=round(-self.offset / SECOND, 1), used="the database's")
        self._told = off


async def cluster_clock(records: Records) -> tuple[Clock, Callable[[], Awaitable[None]] | None]:
    """The clock that a process is to use for what it shares with others, and the round that
    keeps it right, due every `MEASURE_EVERY` seconds (None: it needs none).

    :raises StorageUnavailable: the server's time is not known.
    """
    if records.capabilities.engine == "sqlite":
        return now, None
    clock = ServerClock(records)
    await clock.measure()
    return clock, clock.round
