"""What waits in the queues, as metrics: for alerts, for dashboards, and for what starts more
processes when a stage lags.

Processes with the role `schedule` look. Counting reads every job that waits, so a look is
followed by a rest of twenty times as long, and fifteen seconds at least.
"""

from __future__ import annotations

import asyncio
from time import monotonic

import structlog
from prometheus_client import Gauge

from posthouse.clock import SECOND, Clock
from posthouse.errors import Unavailable
from posthouse.storage.queue.base import Depth, Lane, Queue

log = structlog.get_logger("lag")

READY = Gauge("posthouse_queue_ready", "Jobs that are due or being worked on.", ["stage", "lane"])
DELAYED = Gauge("posthouse_queue_delayed", "Jobs that wait for a later time.", ["stage", "lane"])
BURIED = Gauge("posthouse_queue_buried", "Jobs that were set aside and wait for a person.", ["stage", "lane"])
OLDEST = Gauge("posthouse_queue_oldest_seconds", "For how long the oldest due job has been due.", ["stage", "lane"])
LOOKED = Gauge("posthouse_queue_looked_at_seconds", "When the queues were counted last, in seconds since 1970.")

EVERY = 15.0
_REST = 20
_LANES = {int(lane): lane.name.lower() for lane in Lane}


class Lag:
    def __init__(self, queue: Queue, clock: Clock, *, every: float = EVERY) -> None:
        """:param every: seconds between looks, at least."""
        self._queue = queue
        self._clock = clock
        self._every = every
        self._known: set[tuple[str, str]] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`."""
        while not self._stopping.is_set():
            began = monotonic()
            await self.look()
            try:
                async with asyncio.timeout(max(self._every, _REST * (monotonic() - began))):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        self._stopping.set()

    async def look(self) -> None:
        """Once. While storage is away the figures stay, and their time tells that they are old."""
        try:
            depths = await self._queue.depths()
        except Unavailable as error:
            log.warning("lag_unknown", detail=error.detail)
            return
        found = {(depth.stage, _LANES.get(depth.lane, str(depth.lane))): depth for depth in depths}
        self._known |= set(found)
        for labels in self._known:
            self._show(labels, found.get(labels))
        LOOKED.set(self._clock() / SECOND)

    def _show(self, labels: tuple[str, str], depth: Depth | None) -> None:
        READY.labels(*labels).set(depth.ready if depth else 0)
        DELAYED.labels(*labels).set(depth.delayed if depth else 0)
        BURIED.labels(*labels).set(depth.buried if depth else 0)
        due = depth.oldest_due_at if depth else None
        OLDEST.labels(*labels).set(max(0.0, (self._clock() - due) / SECOND) if due is not None else 0)
