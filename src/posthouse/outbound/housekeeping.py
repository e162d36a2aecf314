"""What has to be done now and then, whatever mail comes: one loop, a minute apart."""

from __future__ import annotations

import asyncio

import structlog

from posthouse.accounts import idempotency
from posthouse.clock import Clock
from posthouse.egress.sites import Sites
from posthouse.errors import Unavailable
from posthouse.storage.records.base import Records, Tx

log = structlog.get_logger("housekeeping")

EVERY = 60.0
"""Seconds."""


class Housekeeping:
    def __init__(self, records: Records, sites: Sites, clock: Clock) -> None:
        self._records = records
        self._sites = sites
        self._clock = clock
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        while not self._stopping.is_set():
            await self.round()
            try:
                async with asyncio.timeout(EVERY):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        self._stopping.set()

    async def round(self) -> None:
        """Idle sites and answers older than a day are forgotten, in bounded steps."""
        self._sites.forget_idle()

        async def work(tx: Tx) -> int:
            return await idempotency.expire(tx, now=self._clock())

        try:
            while await self._records.write(work, durable=False):
                await asyncio.sleep(0)
        except Unavailable as error:
            log.warning("housekeeping_waits_for_storage", detail=error.detail)
