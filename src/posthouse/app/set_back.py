"""A clock that is set back would leave what is due now waiting until the old time comes again."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from posthouse.clock import SECOND, Clock
from posthouse.errors import Unavailable
from posthouse.storage.queue.base import Queue

log = structlog.get_logger("app")

_NOTICED = 10 * SECOND
_LONGEST = 3600.0
"""Seconds; the stages behind accept never delay a job for so long."""


class SetBack:
    """Makes the jobs of these stages due again.

    :param lease: seconds; a job that is held may be due so late.
    """

    def __init__(
        self,
        queue: Queue,
        stages: tuple[str, ...],
        clock: Clock,
        *,
        lease: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._stages = stages
        self._clock = clock
        self._after = max(_LONGEST, 2 * lease)
        self._monotonic = monotonic
        self._seen = self._drift()

    async def at_start(self) -> None:
        """It may have been set while nothing ran. :raises StorageUnavailable:"""
        if count := await self._queue.undelay(self._stages, self._after):
            log.warning("clock_set_back", jobs=count)

    async def round(self) -> None:
        """Now and then; looks into the queue only after the clock was set back."""
        drift = self._drift()
        if drift < self._seen - _NOTICED:
            try:
                await self.at_start()
            except Unavailable as error:
                log.warning("housekeeping_waits_for_storage", detail=error.detail)
                return
        self._seen = drift

    def _drift(self) -> int:
        return self._clock() - round(self._monotonic() * SECOND)
