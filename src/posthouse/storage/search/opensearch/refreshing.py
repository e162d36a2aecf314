"""Makes what was written be found: one refresh for all who wrote before it began."""

from __future__ import annotations

import asyncio

from posthouse import errors
from posthouse.storage.search.base import unavailable
from posthouse.storage.search.opensearch.client import Client, Refused


class Refreshing:
    """Refreshes of this process follow each other: however many write, as many segments are made
    as refreshes fit in the time, and nobody waits longer than two of them."""

    def __init__(self, client: Client, alias: str) -> None:
        self._client = client
        self._path = f"/{alias}/_refresh"
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """On return what this caller wrote before is found.

        :raises StorageUnavailable: `search_unavailable`.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
        await asyncio.shield(self._next)

    async def _after(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None  # who comes from here on needs the one after
        try:
            await self._client.call("POST", self._path, params={"filter_path": "_none"})
        except Refused as refused:
            if refused.status != 404:  # a new one took its place, and was refreshed before it did
                raise unavailable(f"OpenSearch: {refused}") from None

    async def close(self) -> None:
        for task in (self._running, self._next):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled() and isinstance(task.exception(), errors.Error):
                    continue  # who asked was told
