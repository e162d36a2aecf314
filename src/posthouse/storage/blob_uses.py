"""When a blob was last put, so that what nobody names any more can be removed.

Blobs of the sending flow (attachments, large requests) are shared by content and counted by
nobody: their messages go by whole tables. Instead, each `put` notes the time *before* the
bytes are laid down, once in half a day for each blob; and what was last put before the oldest
message that is kept, with a day to spare, is named by none of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from mmap import mmap

from posthouse.clock import DAY, Clock
from posthouse.errors import StorageUnavailable
from posthouse.storage.blobs.base import Blobs, Key, key_of
from posthouse.storage.records.base import Records, Tx

FRESH = DAY // 2
"""µs for which a note is good enough."""
SPARE = DAY
"""µs between the last use and the oldest message, at least."""
_MOST_KNOWN = 10_000


class NotedBlobs:
    """`Blobs` whose `put` notes the use first. Closing it closes the store beneath."""

    def __init__(self, records: Records, blobs: Blobs, clock: Clock) -> None:
        self.capabilities = blobs.capabilities
        self._records = records
        self._blobs = blobs
        self._clock = clock
        self._known: OrderedDict[Key, int] = OrderedDict()

    async def put(self, data: bytes | mmap) -> Key:
        """:raises StorageUnavailable: also when these bytes are being removed this moment."""
        await self._note(key_of(data))
        return await self._blobs.put(data)

    async def _note(self, key: Key) -> None:
        now = self._clock()
        if now - self._known.get(key, 0) < FRESH:
            return
        # Not fsynced: the message that will name it is, and that takes this along.
        row = await self._records.write(lambda tx: tx.row(_NOTE, key, now), durable=False)
        if row is None:
            raise StorageUnavailable(detail=f"blob {key} is being removed")
        self._known[key] = now
        self._known.move_to_end(key)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    async def get(self, key: Key) -> bytes:
        return await self._blobs.get(key)

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        return await self._blobs.get_range(key, start, length)

    async def exists(self, key: Key) -> bool:
        return await self._blobs.exists(key)

    async def delete(self, key: Key) -> None:
        await self._blobs.delete(key)

    def keys(self) -> AsyncIterator[Key]:
        return self._blobs.keys()

    async def ready(self) -> None:
        await self._blobs.ready()

    async def close(self) -> None:
        await self._blobs.close()


async def collect(
    records: Records, blobs: Blobs, before: int, *, now: int, most: int = 500, still: Callable[[], bool] = lambda: True
) -> int:
    """Remove up to `most` blobs that were last put before `before` (µs); how many.

    A blob is condemned in the records, removed, then forgotten; between the first and the last
    its bytes are refused, so that nobody names a blob that is about to go.

    :param still: asked before each removal: whether this is our work yet. A store has no
        transaction that a lost lease could undo.
    """

    async def condemn(tx: Tx) -> list[str]:
        await tx.run(_CONDEMN, before, most, now)
        return [key for (key,) in await tx.rows(_CONDEMNED, before, most)]

    removed: list[str] = []
    for key in await records.write(condemn):
        if not still():
            break
        await blobs.delete(key)
        removed.append(key)
    if removed:
        await records.write(lambda tx: tx.run(_FORGET, removed))
    return len(removed)


_NOTE = """
INSERT INTO blob_use (key, last_at) VALUES ($1, $2)
ON CONFLICT (key) DO UPDATE SET last_at = excluded.last_at
WHERE blob_use.condemned_at IS NULL
RETURNING key
"""
_CONDEMN = """
UPDATE blob_use SET condemned_at = $3
WHERE key IN (SELECT key FROM blob_use WHERE last_at < $1 AND condemned_at IS NULL ORDER BY last_at LIMIT $2)
  AND last_at < $1
"""
_CONDEMNED = "SELECT key FROM blob_use WHERE last_at < $1 AND condemned_at IS NOT NULL ORDER BY last_at LIMIT $2"
_FORGET = "DELETE FROM blob_use WHERE key = ANY($1) AND condemned_at IS NOT NULL"
