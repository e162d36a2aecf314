"""A cache's tie to the same cache in other processes."""

from __future__ import annotations

from collections.abc import Callable

from posthouse.storage.bus.base import Bus


class Invalidation:
    """Without a bus there are no others: nothing is said and nothing heard."""

    def __init__(self, bus: Bus | None = None, topic: str = "") -> None:
        self._bus = bus
        self._topic = topic

    def tell(self, key: str = "") -> None:
        """After the commit of a change: what caches hold of `key`, or anything, is out of date."""
        if self._bus is not None:
            self._bus.invalidate(self._topic, key)

    def listen(self, forget: Callable[[str], None]) -> None:
        """As `Bus.listen`."""
        if self._bus is not None:
            self._bus.listen(self._topic, forget)


NOBODY = Invalidation()
