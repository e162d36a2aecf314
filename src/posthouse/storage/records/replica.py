"""Reads that may lag, from a replica; what a replica cannot answer now, the primary does.

For lists and statistics. Never for what decides something: mailboxes, suppression, keys,
idempotency. A replica that has lost its primary would answer from the past without saying
so; it is asked every few seconds whether it still streams, and left alone when it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from prometheus_client import Counter, Gauge

from posthouse.errors import StorageUnavailable
from posthouse.storage.records.base import Records, Row, Tx, Work

log = structlog.get_logger("records")

T = TypeVar("T")

READS = Counter("posthouse_lagging_reads_total", "Reads that may lag, by who answered.", ["by"])
LAG = Gauge("posthouse_replica_lag_seconds", "How far the read replica is behind; NaN while it is not used.")
_BY_REPLICA, _BY_PRIMARY = READS.labels("replica"), READS.labels("primary")

LOOK_EVERY = 5.0
"""Seconds between looks at the replica, and before one that failed is asked again."""
MOST_LAG = 30.0
"""Seconds behind from which a list from it would look broken."""


class Lagging:
    """`Records`: reads from `replica` while it is fit, else from `primary`. Writes are `primary`'s."""

    def __init__(
        self,
        primary: Records,
        replica: Records,
        *,
        most_lag: float = MOST_LAG,
        look_every: float = LOOK_EVERY,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capabilities = primary.capabilities
        self._primary = primary
        self._replica = replica
        self._most_lag = most_lag
        self._look_every = look_every
        self._steady = steady
        self._fit = False
        self._looked_at = float("-inf")

    async def read(self, work: Work[T]) -> T:
        if await self._is_fit():
            try:
                result = await self._replica.read(work)
            except StorageUnavailable as error:
                self._leave(error.detail)
            else:
                _BY_REPLICA.inc()
                return result
        _BY_PRIMARY.inc()
        return await self._primary.read(work)

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        return await self._primary.write(work, durable=durable)

    async def ready(self) -> None:
        """Without the replica everything works."""
        await self._primary.ready()

    async def close(self) -> None:
        """The replica; the primary is another's to close."""
        await self._replica.close()

    async def _is_fit(self) -> bool:
        if self._steady() - self._looked_at < self._look_every:
            return self._fit
        self._looked_at = self._steady()  # before asking: others need not ask meanwhile
        try:
            row = await self._replica.read(_look)
        except StorageUnavailable as error:
            self._leave(error.detail)
            return False
        assert row is not None
        streams, lag = row
        LAG.set(lag)
        if streams and lag <= self._most_lag:
            if not self._fit:
                log.info("replica_used", lag=round(lag, 3))
            self._fit = True
        else:
            self._leave(f"it is {lag:.1f} s behind" if streams else "it does not stream from a primary")
        return self._fit

    def _leave(self, why: str) -> None:
        if self._fit or self._looked_at == float("-inf"):
            log.warning("replica_left", detail=why)
        LAG.set(float("nan"))
        self._fit = False
        self._looked_at = self._steady()


async def _look(tx: Tx) -> Row | None:
    return await tx.row(_LOOK)


# When everything that was received is applied, it is not behind, however long nothing came.
_LOOK = """
SELECT pg_is_in_recovery() AND EXISTS (SELECT 1 FROM pg_stat_wal_receiver),
       CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0.0
            ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0.0)
       END::double precision
"""
