"""The port of a cache that processes share: values with an expiry, which anyone may lose.

It fails open: what cannot be read is not there, what cannot be written is not kept.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

MOST_OCTETS = 16 * 1024
"""Of one value; larger ones are not kept."""
LONGEST = 86_400.0
"""Seconds; what should be kept longer is kept so long."""


@dataclass(frozen=True, slots=True)
class Kept:
    value: bytes
    seconds: float
    """It may be used for so long."""


@dataclass(frozen=True, slots=True)
class Item:
    key: str
    value: bytes
    seconds: float
    """Until it expires; 0 or less is not kept."""


class Cache(Protocol):
    async def get_many(self, keys: Sequence[str]) -> list[Kept | None]:
        """In order. Never raises; calls of the same moment share a round trip."""
        ...

    def set_many(self, items: Sequence[Item]) -> None:
        """Soon, if at all. Never raises, never waits."""
        ...

    async def close(self) -> None: ...


class LocalCache(Cache):
    """Within one process, the longest unused first out."""

    def __init__(self, entries: int = 10_000, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._entries = entries
        self._monotonic = monotonic
        self._held: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def get_many(self, keys: Sequence[str]) -> list[Kept | None]:
        now = self._monotonic()
        return [self._get(key, now) for key in keys]

    def set_many(self, items: Sequence[Item]) -> None:
        now = self._monotonic()
        for item in items:
            if worth_keeping(item):
                self._held[item.key] = now + min(item.seconds, LONGEST), item.value
                self._held.move_to_end(item.key)
        while len(self._held) > self._entries:
            self._held.popitem(last=False)

    async def close(self) -> None:
        self._held.clear()

    def _get(self, key: str, now: float) -> Kept | None:
        until, value = self._held.get(key, (0.0, b""))
        if until <= now:
            self._held.pop(key, None)
            return None
        self._held.move_to_end(key)
        return Kept(value, until - now)


def worth_keeping(item: Item) -> bool:
    return item.seconds > 0 and len(item.value) <= MOST_OCTETS
