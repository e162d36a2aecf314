"""A tenant's streams: each sets the kind, the lane and the patience of what is sent on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import msgspec

from posthouse import errors, ids
from posthouse.accounts import store
from posthouse.accounts.model import Stream, StreamKind
from posthouse.clock import DAY, SECOND, Clock
from posthouse.errors import Fault
from posthouse.storage.bus.invalidation import NOBODY, Invalidation
from posthouse.storage.queue.base import Lane
from posthouse.storage.records.base import Records, Tx

DEFAULT = "transactional"
"""The stream of a message that names none."""

DEFAULT_MAX_AGE = 72 * 3600
"""Seconds; RFC 5321 §4.5.4.1 asks for days, people for an answer sooner."""

LaneName = Literal["critical", "transactional", "bulk"]
_MOST_MAX_AGE = 30 * DAY // SECOND
_LEAST_MAX_AGE = 60
_MOST_SETTINGS = 16 * 1024
_MOST_STREAMS = 200
_CACHE_SECONDS = 5
_MOST_CACHED = 10_000
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_FIRST: tuple[tuple[str, StreamKind, Lane], ...] = (
    ("critical", "transactional", Lane.CRITICAL),
    ("transactional", "transactional", Lane.TRANSACTIONAL),
    ("broadcast", "broadcast", Lane.BULK),
)


def first_streams(tenant_id: str, now: int) -> list[Stream]:
    """What every tenant starts with."""
    return [
        Stream(stream_id, tenant_id, name, kind, lane, DEFAULT_MAX_AGE, now)
        for stream_id, (name, kind, lane) in zip(ids.many("str", len(_FIRST)), _FIRST, strict=True)
    ]


class Streams:
    def __init__(self, records: Records, clock: Clock, elsewhere: Invalidation = NOBODY) -> None:
        """:param elsewhere: other processes that hold streams."""
        self._elsewhere = elsewhere
        elsewhere.listen(self._drop)
        self._records = records
        self._clock = clock
        self._cache: dict[str, tuple[Mapping[str, Stream], int]] = {}
        self._generation = 0

    async def of(self, tenant_id: str) -> Mapping[str, Stream]:
        """A tenant's streams by name, up to 5 s old (changes in this process are seen at once)."""
        now = self._clock()
        cached = self._cache.get(tenant_id)
        if cached is not None and now < cached[1]:
            return cached[0]
        generation = self._generation
        found = {stream.name: stream for stream in await self.list(tenant_id)}
        if generation == self._generation:
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            self._cache[tenant_id] = found, now + _CACHE_SECONDS * SECOND
        return found

    async def list(self, tenant_id: str) -> list[Stream]:
        """All of them (at most 200), by name."""

        async def work(tx: Tx) -> list[Stream]:
            return await store.streams(tx, tenant_id)

        return await self._records.read(work)

    async def by_id(self, stream_ids: Sequence[str]) -> dict[str, Stream]:
        """Whoever's they are: for the stages, which hold ids that a check has let through."""

        async def work(tx: Tx) -> dict[str, Stream]:
            return {stream.id: stream for stream in await store.streams_by_id(tx, stream_ids)}

        return await self._records.read(work)

    async def access(self, tenant_id: str, name: str) -> Stream:
        """:raises NotFound: code `stream_not_found`."""

        async def work(tx: Tx) -> Stream:
            return await _access(tx, tenant_id, name)

        return await self._records.read(work)

    async def create(
        self,
        tenant_id: str,
        name: str,
        kind: StreamKind,
        *,
        lane: LaneName | None = None,
        max_age: int | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Stream:
        """
        :param lane: by default that of the kind; a broadcast stays in `bulk`.
        :param max_age: seconds, from a minute to 30 days; 72 hours by default.
        :raises Conflict: code `stream_exists` or `too_many_streams`.
        """
        if not _NAME.fullmatch(name):
            raise _invalid("/name", "A name has 1 to 100 of a-z, 0-9, `.`, `_`, `-` and begins with a letter or digit")
        if kind not in get_args(StreamKind):
            raise _invalid("/kind", "A stream is transactional or broadcast")
        age = DEFAULT_MAX_AGE if max_age is None else max_age
        stream = Stream(ids.new("str"), tenant_id, name, kind, _lane(kind, lane), age, self._clock(), settings or {})
        _check(stream)

        async def work(tx: Tx) -> Stream:
            present = await store.streams(tx, tenant_id)
            if any(other.name == name for other in present):
                raise errors.Conflict("A stream of this name exists", code="stream_exists")
            if len(present) >= _MOST_STREAMS:
                raise errors.Conflict(f"A tenant has at most {_MOST_STREAMS} streams", code="too_many_streams")
            await store.add_streams(tx, [stream])
            return stream

        created = await self._records.write(work)
        self._drop(tenant_id)
        self._elsewhere.tell(tenant_id)
        return created

    async def update(
        self,
        tenant_id: str,
        name: str,
        *,
        lane: LaneName | None = None,
        max_age: int | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Stream:
        """What is None stays. Messages accepted already keep their lane and their expiry.

        :raises NotFound: code `stream_not_found`.
        """

        async def work(tx: Tx) -> Stream:
            stream = await _access(tx, tenant_id, name)
            changed = replace(
                stream,
                lane=stream.lane if lane is None else _lane(stream.kind, lane),
                max_age=stream.max_age if max_age is None else max_age,
                settings=stream.settings if settings is None else settings,
            )
            _check(changed)
            await store.save_stream(tx, changed)
            return changed

        changed = await self._records.write(work)
        self._drop(tenant_id)
        self._elsewhere.tell(tenant_id)
        return changed

    def _drop(self, tenant_id: str) -> None:
        """`""`: everybody's."""
        self._generation += 1
        if tenant_id:
            self._cache.pop(tenant_id, None)
        else:
            self._cache.clear()


async def _access(tx: Tx, tenant_id: str, name: str) -> Stream:
    stream = await store.stream(tx, tenant_id, name)
    if stream is None:
        raise errors.NotFound("There is no such stream", code="stream_not_found")
    return stream


def _lane(kind: StreamKind, lane: LaneName | None) -> Lane:
    if kind == "broadcast":
        if lane not in (None, "bulk"):
            raise _invalid("/lane", "A broadcast goes in the lane `bulk`")
        return Lane.BULK
    return Lane.TRANSACTIONAL if lane is None else Lane[lane.upper()]


def _check(stream: Stream) -> None:
    if not _LEAST_MAX_AGE <= stream.max_age <= _MOST_MAX_AGE:
        raise _invalid("/max_age", f"This is from {_LEAST_MAX_AGE} to {_MOST_MAX_AGE} seconds")
    if len(msgspec.json.encode(stream.settings)) > _MOST_SETTINGS:
        raise _invalid("/settings", f"These are at most {_MOST_SETTINGS} bytes of JSON")


def _invalid(pointer: str, message: str) -> errors.Invalid:
    return errors.Invalid(message, faults=(Fault(pointer, message),))
