"""What one process of a cluster does at a time: a lease with a fence.

A lease is a row: who holds it, until when by the database's clock, and a number, the fence,
that grows with every new holder. A process that was stopped for longer than its lease does
not know that it lost it; so whatever it writes, it writes through `Fenced`, whose transactions
begin by locking the row with the fence they were begun under. When another holds the lease
by then, nothing is written.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import structlog
from prometheus_client import Gauge

from posthouse.clock import SECOND
from posthouse.errors import Unavailable
from posthouse.storage.records.base import Records, Tx, Work
from posthouse.storage.records.server_clock import MOMENT

log = structlog.get_logger("lease")

T = TypeVar("T")

HELD = Gauge("posthouse_lease_held", "1: this process holds the cluster's lease of this name.", ["name"])

TTL = 15.0
"""Seconds; renewed at a third of it."""


class LeaseLost(Unavailable):
    """Another process holds it: nothing of this transaction was written."""


class Lease:
    """One contender for the lease of a name.

    :param ttl: seconds that it holds without being renewed.
    :param steady: seconds, from any beginning, by a clock that nobody can set.
    """

    def __init__(
        self,
        records: Records,
        name: str,
        *,
        holder: str = "",
        ttl: float = TTL,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """:param holder: shown to people; made unique here."""
        self.name = name
        self.ttl = ttl
        self.fence = 0
        self._records = records
        self.holder = f"{holder}/{secrets.token_hex(8)}"
        self._steady = steady
        self._sure_until = 0.0
        moment = MOMENT[records.capabilities.engine]
        self._take = _TAKE.replace("<now>", moment)
        self._check = _CHECK[records.capabilities.engine]

    @property
    def sure(self) -> bool:
        """Nobody else can hold it yet, by our own clock: good for deciding whether to begin
        something, not for writing."""
        return self._steady() < self._sure_until

    async def take(self) -> bool:
        """Take it, or renew it; false when another holds it.

        :raises StorageUnavailable: it is not known; `sure` tells how long it may be ours still.
        """
        began = self._steady()
        fence = await self._records.write(self._taking, durable=False)
        if fence is None:
            if self.fence and self._sure_until:
                log.warning("lease_lost", name=self.name, fence=self.fence)
            self._sure_until = 0.0
            HELD.labels(self.name).set(0)
            return False
        if fence != self.fence:
            log.info("lease_taken", name=self.name, fence=fence)
        self.fence = fence
        self._sure_until = began + self.ttl
        HELD.labels(self.name).set(1)
        return True

    async def release(self) -> None:
        """Another may take it at once. When storage is away it runs out by itself."""
        self._sure_until = 0.0
        HELD.labels(self.name).set(0)
        with suppress(Unavailable):
            await self._records.write(lambda tx: tx.run(_RELEASE, self.name, self.holder), durable=False)

    async def guard(self, tx: Tx) -> None:
        """First in a transaction that only the holder may write: until its end, nobody can take
        the lease. A holder that stops within it is cut off by the server after `ttl`.

        :raises LeaseLost: another has it, or had it meanwhile.
        """
        if await tx.row(self._check, self.name, self.fence, self.holder, str(round(self.ttl * 1000))) is None:
            raise LeaseLost(detail=f"the lease {self.name} with fence {self.fence} is another's now")

    async def _taking(self, tx: Tx) -> int | None:
        params = (self.name, self.holder, round(self.ttl * SECOND))
        row = await tx.row(self._take, *params)
        if row is None and not self.fence:
            await tx.run(_FIRST, self.name)
            row = await tx.row(self._take, *params)
        return None if row is None else row[0]


class Fenced:
    """`Records` for the work of a lease's holder: every write is guarded by the fence."""

    def __init__(self, records: Records, lease: Lease) -> None:
        self.capabilities = records.capabilities
        self._records = records
        self._lease = lease

    async def read(self, work: Work[T]) -> T:
        return await self._records.read(work)

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        """As `Records.write`.

        :raises LeaseLost: the lease is another's, so nothing was written.
        """

        async def guarded(tx: Tx) -> T:
            await self._lease.guard(tx)
            return await work(tx)

        return await self._records.write(guarded, durable=durable)

    async def ready(self) -> None:
        await self._records.ready()

    async def close(self) -> None:
        """The records beneath are another's to close."""


class Singleton:
    """Runs a work in one process of the cluster at a time, again and again until `stop`.

    :param work: runs for as long as the lease is held; canceled when it is lost. What it
        writes it writes through a `Fenced` of the same lease.
    """

    def __init__(self, lease: Lease, work: Callable[[], Awaitable[None]]) -> None:
        self._lease = lease
        self._work = work
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """:raises Exception: whatever the work raises; the lease is released before."""
        try:
            while not self._stopping.is_set():
                if await self._taken():
                    await self._hold()
                else:
                    await self._pause()
        finally:
            await self._lease.release()

    async def _hold(self) -> None:
        working = asyncio.ensure_future(self._work())
        try:
            while self._lease.sure and not self._stopping.is_set() and not working.done():
                await self._pause(working)
                await self._taken()
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    async def _taken(self) -> bool:
        if self._stopping.is_set():
            return False
        try:
            return await self._lease.take()
        except Unavailable as error:
            log.warning("lease_waits_for_storage", name=self._lease.name, detail=error.detail)
            return False

    async def _pause(self, *until: asyncio.Future[None]) -> None:
        """A third of the lease, or until we stop."""
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([stopped, *until], timeout=self._lease.ttl / 3, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()


_FIRST = "INSERT INTO lease (name, holder, fence, until) VALUES ($1, '', 0, 0) ON CONFLICT DO NOTHING"
_TAKE = """
UPDATE lease SET fence = CASE WHEN holder = $2 THEN fence ELSE fence + 1 END, holder = $2, until = <now> + $3
WHERE name = $1 AND (holder = $2 OR until <= <now>)
RETURNING fence
"""
_RELEASE = "UPDATE lease SET until = 0 WHERE name = $1 AND holder = $2"
# A holder that is stopped in a transaction keeps the row locked: the server ends that soon.
_CHECK = {
    "postgresql": """
SELECT set_config('idle_in_transaction_session_timeout', $4::text, true) FROM lease
WHERE name = $1 AND fence = $2 AND holder = $3 FOR SHARE
""",
    "sqlite": "SELECT 1 FROM lease WHERE name = $1 AND fence = $2 AND holder = $3 AND $4 <> ''",
}
