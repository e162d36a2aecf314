"""Limits within one process: also what stands in for those of Redis while it is away."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from posthouse.storage.bus.limits import Ask, Grant, Hold, SharedLimits

_MOST_BUCKETS = 10_000


class LocalLimits(SharedLimits):
    """The only holder there is. Buckets unused for longest are forgotten first, so are full again."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def take(self, asks: Sequence[Ask]) -> list[Grant]:
        return [self.take_one(ask) for ask in asks]

    def take_one(self, ask: Ask, start: float | None = None) -> Grant:
        """:param start: what a bucket that is not known holds; None: it is full."""
        now = self._monotonic()
        level, since = self._buckets.get(ask.key, (ask.burst if start is None else start, now))
        level = min(float(ask.burst), level + (now - since) * ask.rate)
        needed = min(ask.least, ask.burst)
        grant = Grant(0, (needed - level) / ask.rate, level)
        if level >= needed:
            taken = max(ask.least, min(ask.most, int(level)))
            level -= taken
            grant = Grant(taken, 0.0, level)
        self._buckets[ask.key] = level, now
        self._buckets.move_to_end(ask.key)
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return grant

    def forget(self) -> None:
        """Every bucket."""
        self._buckets.clear()

    async def hold(self, holds: Sequence[Hold], ttl: float) -> list[int]:
        return [min(one.wanted, one.most) for one in holds]

    async def close(self) -> None:
        pass
