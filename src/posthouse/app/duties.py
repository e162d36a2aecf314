"""What a process does beside its stages: for itself, and, in one process of the cluster, for all.

On PostgreSQL a lease says which process that is, and every write of these rounds carries the
lease's fence. On SQLite, which one process owns, there is nothing to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

from posthouse.egress.sites import Sites
from posthouse.outbound.housekeeping import Housekeeping
from posthouse.storage.records.base import Records
from posthouse.storage.records.lease import Fenced, Lease, Singleton
from posthouse.storage.records.server_clock import MEASURE_EVERY

Round = Callable[[], Awaitable[object]]

LEASE = "schedule"
"""The lease of all that one process does."""
_HERE_EVERY = 60.0


class Duties:
    """Nothing runs yet.

    :param here: rounds of every process, a minute apart.
    :param housekeeping: of one process of the cluster.
    """

    def __init__(
        self,
        lease: Lease | None,
        housekeeping: Housekeeping,
        sites: Sites,
        here: Sequence[Round],
        measure: Round | None,
    ) -> None:
        """:param measure: keeps this process's clock with the cluster's."""
        self._lease = lease
        self._housekeeping = housekeeping
        self._sites = sites
        self._here = here
        self._measure = measure
        self._singleton = Singleton(lease, housekeeping.run) if lease is not None else None
        self._stopping = asyncio.Event()

    @property
    def holder(self) -> str:
        """This process's name in the table of leases; '' where there is none."""
        return self._lease.holder if self._lease is not None else ""

    def progress(self) -> dict[str, tuple[int, int]]:
        """Of what one process does for all; none of it in hand where another holds the lease."""
        return self._housekeeping.progress()

    async def run(self, *, schedule: bool) -> None:
        """Until `stop`.

        :param schedule: this process stands for what one does for all.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(_HERE_EVERY, self._round_here))
            if self._measure is not None:
                group.create_task(self._every(MEASURE_EVERY, self._measure))
            if schedule:
                group.create_task((self._singleton or self._housekeeping).run())

    def stop(self) -> None:
        self._stopping.set()
        self._housekeeping.stop()
        if self._singleton is not None:
            self._singleton.stop()

    async def _round_here(self) -> None:
        self._sites.forget_idle()
        for one in self._here:
            await one()

    async def _every(self, seconds: float, round_: Round) -> None:
        while not self._stopping.is_set():
            await round_()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()


def guarded(records: Records) -> tuple[Records, Lease | None]:
    """The records for what one process does for all, and the lease that it holds meanwhile."""
    if records.capabilities.exclusive or records.capabilities.engine == "sqlite":
        return records, None
    lease = Lease(records, LEASE, holder=f"{socket.gethostname()}:{os.getpid()}")
    return Fenced(records, lease), lease
