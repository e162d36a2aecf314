"""What has to be done now and then, whatever mail comes, by one process: one loop, a minute apart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from posthouse.accounts import idempotency
from posthouse.clock import Clock
from posthouse.errors import Unavailable
from posthouse.storage.records.base import Records, Tx
from posthouse.suppression.service import Suppressions

log = structlog.get_logger("housekeeping")

_MOST_STEPS = 100
EVERY = 60.0
"""Seconds."""


class Housekeeping:
    def __init__(
        self,
        records: Records,
        suppressions: Suppressions,
        clock: Clock,
        also: Sequence[Callable[[], Awaitable[object]]] = (),
    ) -> None:
        """:param also: further rounds, of other rooms; each copes with storage that is away."""
        self._also = also
        self._records = records
        self._suppressions = suppressions
        self._clock = clock
        self._stopping = asyncio.Event()
        self._under_way = 0
        self._finished = 0

    def progress(self) -> dict[str, tuple[int, int]]:
        """Steps under way (0 or 1), and ended since the start."""
        return {"rounds": (self._under_way, self._finished)}

    async def run(self) -> None:
        while not self._stopping.is_set():
            for one in (self.round, *self._also):
                self._under_way = 1
                try:
                    await one()
                finally:
                    self._under_way = 0
                    self._finished += 1
            try:
                async with asyncio.timeout(EVERY):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        self._stopping.set()

    async def round(self) -> None:
        """Answers older than a day and expired suppressions are forgotten, in bounded steps."""

        async def work(tx: Tx) -> int:
            return await idempotency.expire(tx, now=self._clock())

        try:
            for _ in range(_MOST_STEPS):
                if not await self._records.write(work, durable=False) + await self._suppressions.sweep():
                    break
        except Unavailable as error:
            log.warning("housekeeping_waits_for_storage", detail=error.detail)
