"""A door before a server that we ask: so many at once, and none for a while after it failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from posthouse.errors import Unavailable

T = TypeVar("T")


class Gate:
    """Waiting for a turn is not counted as the server's time, so a long queue is no failure;
    and when the server hangs, those who wait fail at once instead of each after `timeout`.

    :param at_once: pieces of work at the same time.
    :param timeout: seconds for one of them.
    :param pause: seconds after a failure during which nobody asks.
    """

    def __init__(
        self, at_once: int, timeout: float, *, pause: float = 2.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._timeout = timeout
        self._pause = pause
        self._monotonic = monotonic
        self._closed_until = 0.0

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """
        :raises Unavailable: no answer in time, no connection, or a failure a moment ago. Other
            errors of `work` pass and do not close the gate.
        """
        async with self._turns:
            if self._monotonic() < self._closed_until:
                raise Unavailable("it failed a moment ago and is asked again soon")
            try:
                async with asyncio.timeout(self._timeout):
                    return await work()
            except TimeoutError as error:
                self._close()
                raise Unavailable("it did not answer in time") from error
            except OSError as error:
                self._close()
                raise Unavailable("it cannot be reached", detail=f"{type(error).__name__}: {error}"[:300]) from error

    def _close(self) -> None:
        self._closed_until = self._monotonic() + self._pause
