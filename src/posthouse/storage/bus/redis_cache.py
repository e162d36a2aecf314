"""The shared cache in Redis: reads of one moment in one round trip, writes behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import Counter

from posthouse.storage.bus.cache import LONGEST, Cache, Item, Kept, worth_keeping
from posthouse.storage.bus.redis_link import Away, Link
from posthouse.storage.bus.redis_scripts import READ, WRITE

LOOKUPS = Counter("posthouse_shared_cache_total", "Look-ups in the cache that processes share, by result.", ["result"])

_MOST_WAITING = 4096
_AT_ONCE = 256


class RedisCache(Cache):
    def __init__(self, link: Link) -> None:
        self._link = link
        self._prefix = f"{link.namespace}:cache:"
        self._asked: dict[str, asyncio.Future[Kept | None]] = {}
        self._said: dict[str, tuple[bytes, int]] = {}
        self._working: asyncio.Task[None] | None = None

    async def get_many(self, keys: Sequence[str]) -> list[Kept | None]:
        if not self._link.there or not keys:
            return [None] * len(keys)
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[Kept | None]] = []
        for key in keys:
            if key not in self._asked:
                self._asked[key] = loop.create_future()
            waiting.append(self._asked[key])
        self._start()
        # Who asks may be cancelled; others may wait for the same answer.
        return list(await asyncio.gather(*map(asyncio.shield, waiting)))

    def set_many(self, items: Sequence[Item]) -> None:
        if not self._link.there:
            return
        for item in items:
            if worth_keeping(item) and len(self._said) < _MOST_WAITING:
                self._said[item.key] = item.value, max(1, int(min(item.seconds, LONGEST) * 1000))
        self._start()

    async def close(self) -> None:
        if self._working is not None:
            await asyncio.gather(self._working, return_exceptions=True)

    def _start(self) -> None:
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._asked or self._said:
            keys = list(self._asked)[:_AT_ONCE]
            asked = [self._asked.pop(key) for key in keys]
            found: list[Kept | None] = [None] * len(keys)
            try:
                if keys:
                    found = await self._read(keys)
                if self._said:
                    await self._write(list(self._said)[:_AT_ONCE])
            except Away:
                self._said.clear()
            finally:
                for future, kept in zip(asked, found, strict=True):
                    if not future.done():
                        future.set_result(kept)

    async def _read(self, keys: list[str]) -> list[Kept | None]:
        answer = await self._link.run(READ, [self._prefix + key for key in keys], ())
        pairs = zip(answer[: len(keys)], reversed(answer[len(keys) :]), strict=True)
        found = [Kept(value, left / 1000) if value is not None and left > 0 else None for value, left in pairs]
        hits = sum(one is not None for one in found)
        LOOKUPS.labels("hit").inc(hits)
        LOOKUPS.labels("miss").inc(len(found) - hits)
        return found

    async def _write(self, keys: list[str]) -> None:
        items = [self._said.pop(key) for key in keys]
        await self._link.run(WRITE, [self._prefix + key for key in keys], [part for item in items for part in item])
