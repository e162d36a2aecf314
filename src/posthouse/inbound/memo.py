"""Answers by key, asked once at a time and held for a while: what a busy peer repeats costs a look-up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

V = TypeVar("V")

_MOST_FLIGHTS = 2000
"""Questions under way; beyond it a question is not asked, and `unknown` is the answer."""


class Memo(Generic[V]):
    """For one event loop."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[V]],
        *,
        unknown: V,
        seconds: float,
        entries: int = 20_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param ask: bounded in time; what it raises counts as `unknown`, not held.
        :param seconds: how long an answer is held; the eldest of more than `entries` leave first.
        """
        self._ask = ask
        self._unknown = unknown
        self._seconds = seconds
        self._entries = entries
        self._monotonic = monotonic
        self._held: dict[str, tuple[float, V]] = {}
        self._flights: dict[str, asyncio.Task[V]] = {}

    def begin(self, key: str) -> V | asyncio.Task[V]:
        """The answer, or the task that finds it, which never raises."""
        held = self._held.get(key)
        if held is not None and held[0] > self._monotonic():
            return held[1]
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= _MOST_FLIGHTS:
                return self._unknown
            flight = asyncio.get_running_loop().create_task(self._fly(key))
            self._flights[key] = flight
        return flight

    async def wait(self, begun: V | asyncio.Task[V], seconds: float) -> V:
        """What `begin` gave, waited for at most so long; then `unknown`."""
        if not isinstance(begun, asyncio.Task):
            return begun
        flight: asyncio.Task[V] = begun
        if not flight.done():
            await asyncio.wait({flight}, timeout=max(0.0, seconds))
        return flight.result() if flight.done() and not flight.cancelled() else self._unknown

    async def close(self) -> None:
        """What is under way is given up."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, key: str) -> V:
        try:
            answer = await self._ask(key)
        except Exception:
            return self._unknown
        finally:
            del self._flights[key]
        self._held.pop(key, None)
        self._held[key] = (self._monotonic() + self._seconds, answer)
        if len(self._held) > self._entries:
            del self._held[next(iter(self._held))]
        return answer
