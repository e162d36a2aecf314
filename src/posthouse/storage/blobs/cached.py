"""Small objects kept near their readers, before a store that is milliseconds away.

Bytes under a key never change, so a copy is never wrong; it can only outlive its object. That is
harmless for reading, since whoever reads found the key in the records, and nothing deletes an
object that a record refers to. It would not be harmless for deciding, so `put`, `exists`, `keys` and
`delete` always ask the store, and a check of the store must be given the store itself. A copy is
forgotten when this process deletes the object, and after `age` seconds in any case, which bounds how
long bytes stay in memory that another process deleted.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from mmap import mmap

from prometheus_client import Counter, Gauge

from posthouse.storage.blobs.base import Blobs, Key, check_key, is_key, key_of

SMALL = 256 * 1024
"""Octets of the largest object that is kept."""
_AGE = 3600.0
_LARGE_KEYS = 10_000
"""Keys that are remembered as too large."""

_READS = Counter(
    "posthouse_blob_reads_total", "Reads of stored contents, by whether the process had a copy.", ["result"]
)
_OCTETS = Gauge("posthouse_blob_cache_bytes", "Copies of stored contents in memory.")
_numbers = itertools.count()
_hit, _miss, _shared = (_READS.labels(result) for result in ("hit", "miss", "shared"))


class Memory:
    """Copies of all stores together, least recently used first out.

    :param capacity: octets.
    """

    def __init__(self, capacity: int, *, age: float = _AGE, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self._age = age
        self._monotonic = monotonic
        self._held = 0
        self._copies: OrderedDict[tuple[int, Key], tuple[bytes, float]] = OrderedDict()

    @property
    def held(self) -> int:
        return self._held

    def get(self, store: int, key: Key) -> bytes | None:
        found = self._copies.get((store, key))
        if found is None:
            return None
        data, until = found
        if until <= self._monotonic():
            self.forget(store, key)
            return None
        self._copies.move_to_end((store, key))
        return data

    def keep(self, store: int, key: Key, data: bytes) -> None:
        """One that is there keeps its age."""
        if len(data) > self.capacity or (store, key) in self._copies:
            return
        self._copies[store, key] = data, self._monotonic() + self._age
        self._add(len(data))
        while self._held > self.capacity:
            _, (oldest, _) = self._copies.popitem(last=False)
            self._add(-len(oldest))

    def forget(self, store: int, key: Key) -> None:
        found = self._copies.pop((store, key), None)
        if found is not None:
            self._add(-len(found[0]))

    def clear(self, store: int) -> None:
        for owner, key in list(self._copies):
            if owner == store:
                self.forget(owner, key)

    def _add(self, octets: int) -> None:
        self._held += octets
        _OCTETS.inc(octets)


class CachedBlobs:
    """`base.Blobs` over another. Who asks for what is on its way waits for that one answer."""

    def __init__(self, store: Blobs, memory: Memory, *, small: int = SMALL) -> None:
        """:param small: octets of the largest object to keep."""
        self.capabilities = store.capabilities
        self._store = store
        self._memory = memory
        self._small = min(small, memory.capacity)
        self._number = next(_numbers)
        self._coming: dict[tuple[Key, bool], asyncio.Task[bytes]] = {}
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._large: OrderedDict[Key, None] = OrderedDict()

    async def put(self, data: bytes | mmap) -> Key:
        key = await self._store.put(data)
        if len(data) <= self._small:
            self._memory.keep(self._number, key, bytes(data))
        else:
            self._remember_large(key)
        return key

    async def get(self, key: Key) -> bytes:
        check_key(key)
        if (copy := self._copy(key)) is not None:
            return copy
        return await self._once(key, whole=True)

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        check_key(key)
        if (copy := self._copy(key)) is not None:
            return copy[start : start + max(0, length)]
        if key in self._large or start + length > self._small:
            _miss.inc()
            return await self._store.get_range(key, start, length)
        # A small object's other parts are asked for next: it costs a store no longer to give all of it.
        begin = await self._once(key, whole=False)
        return begin[start : start + max(0, length)]

    async def exists(self, key: Key) -> bool:
        return await self._store.exists(key)

    async def delete(self, key: Key) -> None:
        self._forget(key)
        try:
            await self._store.delete(key)
        finally:
            self._forget(key)  # who read it meanwhile may have kept it

    def keys(self) -> AsyncIterator[Key]:
        return self._store.keys()

    async def ready(self) -> None:
        await self._store.ready()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._memory.clear(self._number)
        await self._store.close()

    def _copy(self, key: Key) -> bytes | None:
        copy = self._memory.get(self._number, key)
        if copy is not None:
            _hit.inc()
        return copy

    def _forget(self, key: Key) -> None:
        self._memory.forget(self._number, key)
        self._large.pop(key, None)
        for whole in (True, False):
            self._coming.pop((key, whole), None)  # goes on for those who wait, and is not kept

    async def _once(self, key: Key, *, whole: bool) -> bytes:
        """The object, or its first `small` octets; one request for all who ask meanwhile. Whoever
        gives up does not take it from the others."""
        task = self._coming.get((key, whole))
        if task is None:
            _miss.inc()
            task = asyncio.create_task(self._fetch(key, whole=whole))
            self._coming[key, whole] = task
            self._tasks.add(task)
            task.add_done_callback(self._over)
        else:
            _shared.inc()
        return await asyncio.shield(task)

    async def _fetch(self, key: Key, *, whole: bool) -> bytes:
        task = asyncio.current_task()
        try:
            data = await (self._store.get(key) if whole else self._store.get_range(key, 0, self._small))
            if self._coming.get((key, whole)) is task:
                self._keep(key, data, whole=whole)
            return data
        finally:
            if self._coming.get((key, whole)) is task:
                del self._coming[key, whole]

    def _over(self, task: asyncio.Task[bytes]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # all who waited may have given up: then nobody asks for it

    def _keep(self, key: Key, data: bytes, *, whole: bool) -> None:
        if len(data) > self._small or (not whole and len(data) == self._small):
            self._remember_large(key)
        elif whole or key_of(data) == key:  # a range is not checked by the store
            self._memory.keep(self._number, key, data)

    def _remember_large(self, key: Key) -> None:
        if is_key(key):
            self._large[key] = None
            while len(self._large) > _LARGE_KEYS:
                self._large.popitem(last=False)


def near(store: Blobs, memory: Memory) -> Blobs:
    """With copies in memory, where a read costs milliseconds and there is room for any."""
    return store if store.capabilities.local or not memory.capacity else CachedBlobs(store, memory)
