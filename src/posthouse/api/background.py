"""What the API does beside answering: write when keys were used, forget old answers."""

from __future__ import annotations

import asyncio
from types import TracebackType

import structlog

from posthouse import errors
from posthouse.accounts import idempotency
from posthouse.api.ports import Services
from posthouse.storage.records.base import Tx

log = structlog.get_logger("posthouse.api")

_PERIOD = 30.0  # seconds


class Background:
    """An async context: runs while it is open, once more when it closes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.round()

    async def round(self) -> None:
        """Once. Storage that is away is logged and tried again in the next."""
        services = self._services

        async def expire(tx: Tx) -> int:
            return await idempotency.expire(tx, now=services.clock())

        try:
            await services.accounts.write_last_used()
            while await services.records.write(expire, durable=False) >= idempotency.EXPIRE_BATCH:
                pass  # each batch is a transaction of its own, so others come in between
        except errors.Unavailable as error:
            log.warning("housekeeping of the API waits", code=error.code, detail=error.detail)
        except Exception:
            log.exception("housekeeping of the API failed")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD)
            await self.round()
