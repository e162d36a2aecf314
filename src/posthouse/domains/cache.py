"""Answers held for a few seconds, dropped at once when this process changes a domain."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from posthouse.clock import SECOND, Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TimedCache(Generic[K, V]):
    """Bounded; used from the event loop only."""

    def __init__(self, clock: Clock, seconds: float, *, entries: int = 10_000) -> None:
        self._clock = clock
        self._age = int(seconds * SECOND)
        self._entries = entries
        self._held: OrderedDict[K, tuple[int, V]] = OrderedDict()
        self.generation = 0
        """Counts the clears: what was read before a clear must not be put after it."""

    def get(self, key: K) -> V | None:
        held = self._held.get(key)
        return held[1] if held is not None and held[0] > self._clock() else None

    def put(self, key: K, value: V, generation: int) -> None:
        if generation != self.generation:
            return
        self._held[key] = (self._clock() + self._age, value)
        self._held.move_to_end(key)
        if len(self._held) > self._entries:
            self._held.popitem(last=False)

    def clear(self) -> None:
        self.generation += 1
        self._held.clear()
