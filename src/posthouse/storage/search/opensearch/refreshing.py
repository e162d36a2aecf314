"""Makes what was written be found: one refresh for all who wrote before it began."""

from __future__ import annotations

import asyncio

from posthouse.storage.search.base import unavailable
from posthouse.storage.search.opensearch.arrangement import Arrangement
from posthouse.storage.search.opensearch.client import Client, Refused

_LOOKS = 5
"""At the arrangement: it moves twice in a rebuild."""


class Refreshing:
    """Refreshes of this process follow each other: however many write, as many segments are made
    as refreshes fit in the time, and nobody waits longer than two of them.

    An index that is being made is refreshed too: it may answer at any moment from now on.
    """

    def __init__(self, client: Client, arrangement: Arrangement) -> None:
        self._client = client
        self._arrangement = arrangement
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
        for _ in range(_LOOKS):
            names = (await self._arrangement.known()).written.values()
            try:
                await self._client.call("POST", f"/{','.join(names)}/_refresh", params={"filter_path": "_none"})
            except Refused as refused:
                if refused.status != 404:
                    raise unavailable(f"OpenSearch: {refused}") from None
                self._arrangement.forget()
            else:
                return
        raise unavailable("OpenSearch: the index moves all the time")

    async def close(self) -> None:
        for task in (self._running, self._next):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)  # who asked was told
