"""One blob store: what the other has not is copied, under the same keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from posthouse import errors
from posthouse.storage.blobs.base import Blobs, Key

_AT_ONCE = 8
"""Blobs in memory; one may have tens of megabytes."""

Tell = Callable[[int], None]


class BlobMove:
    """`present`: keys known to be in the target, as 32 octets; about 100 octets of memory each."""

    def __init__(self, source: Blobs, target: Blobs, tell: Tell) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self.present: set[bytes] = set()
        self._put: set[bytes] = set()
        self._read_back: set[bytes] = set()

    async def learn(self) -> None:
        """What an earlier run has brought. :raises StorageUnavailable:"""
        async for key in self._target.keys():
            self.present.add(bytes.fromhex(key))

    async def copy(self) -> int:
        """How many were missing. Those that are collected meanwhile are passed over.

        :raises StorageUnavailable: what was copied stays.
        :raises Corrupt: a blob of the source is not what it was.
        """
        return await _each(self._missing(), self._bring)

    async def finish(self) -> int:
        """With the source at rest: what is still missing, and without what was brought and
        then removed there; how many there are."""
        await self.copy()
        there: set[bytes] = set()
        async for key in self._source.keys():
            there.add(bytes.fromhex(key))
        for gone in self._put - there:
            await self._target.delete(gone.hex())
            self.present.discard(gone)
        if there - self.present:
            raise errors.Corrupt(
                f"{len(there - self.present)} blobs are not in the new store, though the old one lists them. Run"
                " `posthouse check --deep` with the old configuration, and move again",
                code="move_differs",
            )
        return len(there)

    async def read_back(self) -> int:
        """Reads what lies in the target and was not read before, against its hash; how many.

        :raises Corrupt: `blob_corrupt`.
        """

        async def keys() -> AsyncIterator[Key]:
            for key in self.present - self._read_back:
                yield key.hex()

        async def look(key: Key) -> bool:
            await self._target.get(key)
            self._read_back.add(bytes.fromhex(key))
            return True

        return await _each(keys(), look)

    async def _missing(self) -> AsyncIterator[Key]:
        async for key in self._source.keys():
            if bytes.fromhex(key) not in self.present:
                yield key
            else:
                self._tell(1)

    async def _bring(self, key: Key) -> bool:
        try:
            data = await self._source.get(key)
        except errors.NotFound:
            return False
        if await self._target.put(data) != key:
            raise errors.Corrupt(code="blob_corrupt", detail=f"blob {key} got another key in the new store")
        self.present.add(bytes.fromhex(key))
        self._put.add(bytes.fromhex(key))
        self._tell(1)
        return True


async def _each(keys: AsyncIterator[Key], work: Callable[[Key], Awaitable[bool]]) -> int:
    """How often `work` was true; a few at a time. The first error ends it."""
    done, running = 0, set[asyncio.Future[bool]]()
    try:
        async for key in keys:
            running.add(asyncio.ensure_future(work(key)))
            if len(running) >= _AT_ONCE:
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                done += sum(one.result() for one in ended)
        if running:
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
            done += sum(one.result() for one in ended)
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return done
