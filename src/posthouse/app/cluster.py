"""What the processes of a cluster do, what waits, who holds which lease, and what is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from posthouse.api.ports import Cluster, ClusterLane, ClusterLease, ClusterProcess
from posthouse.app.presence import EXPIRY, LATE, Process, living
from posthouse.clock import SECOND
from posthouse.storage.queue.base import Depth, Lane, Queue
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.records.server_clock import MOMENT

SHOWN = 3600.0
"""Seconds for which a process that ended without a word is shown."""
SLOW = 900.0
"""Seconds after which a job that is due counts as late."""
SERVED_BY = {"render": ("render", "send"), "relay": ("render", "send"), "store": ("store",), "index": ("index",)}
"""Stages by the roles that take their jobs."""
_MOST = 1000


class Overview:
    def __init__(self, records: Records, queue: Queue) -> None:
        self._records = records
        self._queue = queue

    async def __call__(self) -> Cluster:
        """:raises StorageUnavailable:"""
        processes, depths, (moment, leases) = await asyncio.gather(
            living(self._records, SHOWN), self._queue.depths(), self._leases()
        )
        shown = tuple(_process(one, moment) for one in processes[-_MOST:])
        held = tuple(ClusterLease(name, holder, fence, until, until > moment) for name, holder, fence, until in leases)
        return Cluster(shown, tuple(depths), held, tuple(self._stuck(shown, depths, held, moment)))

    async def _leases(self) -> tuple[int, list[Row]]:
        """The time by the database's clock, and the rows."""
        sql = f"SELECT {MOMENT[self._records.capabilities.engine]}"

        async def work(tx: Tx) -> tuple[int, list[Row]]:
            row = await tx.row(sql)
            assert row is not None
            return row[0], await tx.rows("SELECT name, holder, fence, until FROM lease ORDER BY name")

        return await self._records.read(work)

    def _stuck(
        self, processes: Sequence[ClusterProcess], depths: Sequence[Depth], leases: Sequence[ClusterLease], moment: int
    ) -> Iterator[str]:
        """Sentences, the most pressing first."""
        served = {role for one in processes if one.here for role in one.roles}
        for depth in depths:
            needed = SERVED_BY.get(depth.stage, (depth.stage,))
            if depth.ready and served.isdisjoint(needed):
                roles = " or ".join(needed)
                yield f"{_waiting(depth.ready)} before {depth.stage}, and no process has the role {roles}."
        for one in processes:
            yield from self._of(one, moment)
        for lease in leases:
            if not lease.held and "schedule" in served:
                yield f"Nobody holds the lease {lease.name}, though a process with the role schedule runs."
        for depth in depths:
            yield from _late(depth, moment)
            if depth.buried:
                where = f"{depth.stage} ({_lane(depth.lane)})"
                verb = "was" if depth.buried == 1 else "were"
                yield f"{_jobs(depth.buried)} of {where} {verb} set aside: posthouse queue list"
        if len(versions := sorted({one.version for one in processes if one.here})) > 1:
            yield f"Processes of different releases run: {', '.join(versions)}."

    def _of(self, one: ClusterProcess, moment: int) -> Iterator[str]:
        named = f"{one.id} ({one.host}, {one.pid})"
        if not one.here:
            yield f"{named} has not been seen for {_seconds(moment - one.seen_at)} and did not say that it ends."
            return
        if one.late > LATE:
            yield f"{named} was late by {one.late:.1f} s: its processor or its loop is held."
        for lane in one.lanes:
            since = moment - lane.progressed_at
            if lane.held and since > lane.patience * SECOND:
                where = f"{lane.stage} ({lane.lane})"
                yield f"{named} holds {_jobs(lane.held)} of {where} and finished none for {_seconds(since)}."


def _process(one: Process, moment: int) -> ClusterProcess:
    lanes = tuple(
        ClusterLane(stage, lane, state.held, state.finished, state.progressed_at, state.patience)
        for stage, by_lane in one.state.stages.items()
        for lane, state in by_lane.items()
    )
    here = moment - one.seen_at <= EXPIRY * SECOND
    return ClusterProcess(
        one.id, one.host, one.pid, one.roles, one.version, one.started_at, one.seen_at, here, one.state.late, lanes
    )


def _late(depth: Depth, moment: int) -> Iterator[str]:
    due = depth.oldest_due_at
    if depth.ready and due is not None and moment - due > SLOW * SECOND:
        where = f"{_lane(depth.lane)} job before {depth.stage}"
        yield f"The oldest {where} has been due for {_seconds(moment - due)}; {_waiting(depth.ready)}."


def _lane(lane: int) -> str:
    return Lane(lane).name.lower()


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def _seconds(span: int) -> str:
    seconds = span / SECOND
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _waiting(count: int) -> str:
    return f"{_jobs(count)} {'waits' if count == 1 else 'wait'}"
