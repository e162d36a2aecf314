"""Raw messages under the hash of their bytes, counted by who refers to them.

Small ones lie in the records, in the very transaction that makes a message durable: one
fsync for a group of messages, and no moment when one of the two is missing. Large ones go to
the blob store before that transaction. A content that nobody refers to is collected later.

A large one is removed in steps: condemned in the records, deleted from the blob store, marked
as removed, and forgotten an hour later at least. `keep` refuses to count one that is on this
way: once it is removed, `put` it again and `keep` it anew. So a message that arrives while its
twin is collected is never left without bytes, as long as `put` and `keep` are less than `GRACE` apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from mmap import mmap

import msgspec

from posthouse.clock import SECOND, Clock
from posthouse.errors import NotFound
from posthouse.storage.blobs.base import Blobs, Key, check_content, key_of, not_found
from posthouse.storage.records.base import Records, Tx

GRACE = 3600 * SECOND


class Content(msgspec.Struct, frozen=True, gc=False):
    """`data` rides in the transaction when it is small; None: it lies in the blob store."""

    key: Key
    size: int
    data: bytes | None


class Contents:
    """:param small: octets up to which a message lies in the records; 0: all in the blob store."""

    def __init__(
        self, records: Records, blobs: Blobs, *, small: int, clock: Clock, recent: int = 32 * 1024 * 1024
    ) -> None:
        """:param recent: octets of small messages that came last and are kept in memory, since
        what was put is mostly read at once, to be stored and then to be indexed."""
        self._most_recent = recent
        self._held = 0
        self._recent: OrderedDict[Key, bytes] = OrderedDict()
        self._records = records
        self._blobs = blobs
        self._small = small
        self._clock = clock

    async def put(self, message: bytes | mmap) -> Content:
        """Large ones are durable on return. :raises StorageUnavailable:"""
        size = len(message)
        if size <= self._small:
            data = bytes(message)
            content = Content(key_of(data), size, data)
            self._remember(content.key, data)
            return content
        return Content(await self._blobs.put(message), size, None)

    def _remember(self, key: Key, data: bytes) -> None:
        if key in self._recent or len(data) > self._most_recent:
            return
        self._recent[key] = data
        self._held += len(data)
        while self._held > self._most_recent:
            _, oldest = self._recent.popitem(last=False)
            self._held -= len(oldest)

    async def keep(self, tx: Tx, contents: Sequence[tuple[Content, int]], *, anew: bool = False) -> frozenset[Key]:
        """Count so many more references to each, and write what is small. The answer names
        those that are being removed: nothing was counted for them; roll back, `put` and `keep`
        again with `anew`, and tell the peer to come back later if they are named once more.

        :param anew: each was `put` after an earlier `keep` had named it.
        """
        now = self._clock()
        merged: dict[Key, tuple[Content, int]] = {}
        for content, refs in contents:
            merged[content.key] = (content, refs + merged.get(content.key, (content, 0))[1])
        # In the order of keys, so that two transactions never wait for each other.
        rows = [(c.key, c.size, c.data, refs, now) for c, refs in sorted(merged.values(), key=lambda one: one[0].key)]
        kept = await tx.run_each(_KEEP_ANEW if anew else _KEEP, rows)
        if kept == len(rows):
            return frozenset()
        # Not by RETURNING: that would be a step of the engine for each, for what is hardly ever asked.
        removed = await tx.rows(_REMOVING, list(merged))
        return frozenset(key for key, done in removed if not (anew and done))

    async def add(self, tx: Tx, counts: Sequence[tuple[Key, int]]) -> None:
        """Change the counts of contents that are there; a negative number releases."""
        merged: dict[Key, int] = {}
        for key, refs in counts:
            merged[key] = merged.get(key, 0) + refs
        rows = [(key, refs, self._clock()) for key, refs in sorted(merged.items()) if refs]
        if rows:
            await tx.run_each(_ADD, rows)

    async def get(self, key: Key) -> bytes:
        """:raises NotFound: code `blob_not_found`. :raises Corrupt:"""
        row = await self._records.read(lambda tx: tx.row(_GET, key))
        if row is None:
            raise not_found(key)
        return check_content(key, row[0]) if row[0] is not None else await self._blobs.get(key)

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        """`length` octets from `start`, fewer at the end; not checked against the key."""
        row = await self._records.read(lambda tx: tx.row(_GET_RANGE, key, start + 1, length))
        if row is None:
            raise not_found(key)
        return row[1] or b"" if row[0] else await self._blobs.get_range(key, start, length)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        """Those that are there; the small ones in one statement."""
        found: dict[Key, bytes] = {key: data for key in keys if (data := self._recent.get(key)) is not None}
        asked = [(key,) for key in dict.fromkeys(keys) if key not in found]
        rows = await self._records.read(lambda tx: tx.each(_GET_MANY, asked)) if asked else []
        for key, data in rows:
            if data is not None:
                found[key] = data
                continue
            try:
                found[key] = await self._blobs.get(key)
            except NotFound:
                continue
        return found

    async def collect(self, *, most: int = 1000, still: Callable[[], bool] = lambda: True) -> int:
        """Remove what nobody has referred to for `GRACE`; how many contents that was.

        :param still: asked before each removal from the blob store, which no lost lease could
            undo: whether this is our work yet.
        """
        old = self._clock() - GRACE
        gone = await self._records.write(lambda tx: tx.run(_DROP_SMALL, old, most))
        await self._records.write(lambda tx: tx.run(_CONDEMN, old, self._clock(), most))
        condemned = await self._records.read(lambda tx: tx.rows(_CONDEMNED, most))
        removed: list[Key] = []
        for (key,) in condemned:
            if not still():
                break
            await self._blobs.delete(key)
            removed.append(key)
        if removed:
            now = self._clock()
            await self._records.write(lambda tx: tx.run_each(_REMOVED, [(key, now) for key in removed]))
        await self._records.write(lambda tx: tx.run(_FORGET, old, most))
        return gone + len(removed)


_KEEP = """
INSERT INTO content (key, size, data, refs, changed_at)
SELECT v.key, v.size, v.data, v.refs, v.now FROM {v(key text, size int, data bytes, refs int, now int)} WHERE true
ON CONFLICT (key) DO UPDATE SET refs = content.refs + excluded.refs, changed_at = excluded.changed_at
WHERE content.condemned_at IS NULL
"""
_KEEP_ANEW = """
INSERT INTO content (key, size, data, refs, changed_at)
SELECT v.key, v.size, v.data, v.refs, v.now FROM {v(key text, size int, data bytes, refs int, now int)} WHERE true
ON CONFLICT (key) DO UPDATE
SET refs = content.refs + excluded.refs, changed_at = excluded.changed_at, condemned_at = NULL, removed_at = NULL
WHERE content.condemned_at IS NULL OR content.removed_at IS NOT NULL
"""
_REMOVING = "SELECT key, removed_at IS NOT NULL FROM content WHERE key = ANY($1) AND condemned_at IS NOT NULL"
_ADD = """
UPDATE content SET refs = content.refs + v.refs, changed_at = v.now
FROM {v(key text, refs int, now int)} WHERE content.key = v.key
"""
_GET = "SELECT data FROM content WHERE key = $1"
_GET_RANGE = "SELECT data IS NOT NULL, substr(data, $2, $3) FROM content WHERE key = $1"
_GET_MANY = "SELECT c.key, c.data FROM {v(key text)} CROSS JOIN content c WHERE c.key = v.key"
_DROP_SMALL = """
DELETE FROM content WHERE key IN
(SELECT key FROM content WHERE refs <= 0 AND changed_at < $1 AND data IS NOT NULL LIMIT $2)
AND refs <= 0
"""
_CONDEMN = """
UPDATE content SET condemned_at = $2 WHERE key IN
(SELECT key FROM content WHERE refs <= 0 AND changed_at < $1 AND data IS NULL AND condemned_at IS NULL LIMIT $3)
AND refs <= 0
"""
_CONDEMNED = "SELECT key FROM content WHERE refs <= 0 AND condemned_at IS NOT NULL AND removed_at IS NULL LIMIT $1"
_REMOVED = """
UPDATE content SET removed_at = v.now FROM {v(key text, now int)}
WHERE content.key = v.key AND content.condemned_at IS NOT NULL
"""
_FORGET = """
DELETE FROM content WHERE key IN
(SELECT key FROM content WHERE refs <= 0 AND removed_at < $1 LIMIT $2)
AND refs <= 0 AND removed_at < $1
"""
