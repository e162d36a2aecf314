"""The durable step of accept: raw message, log and job in one transaction, before the 250.

What comes while a write is under way goes into the next one together, since a transaction
costs more than a row. A message that is there already (same envelope, same bytes: a retry
whose 250 was lost) is stored once, and the answer is the id it was given first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from mmap import mmap

import msgspec

from posthouse.clock import Clock
from posthouse.errors import StorageUnavailable
from posthouse.inbound.model import STORE, State
from posthouse.storage.contents import Content, Contents
from posthouse.storage.queue.base import Job, Lane, Queue
from posthouse.storage.records.base import Records, Row, Tx

_INBOUND = """
INSERT INTO inbound (id, received_at, content, size, fingerprint, reverse_path, evidence, trace)
SELECT v.id, v.received_at, v.content, v.size, v.fingerprint, v.reverse_path, v.evidence, v.trace
FROM {v(id text, received_at int, content text, size int, fingerprint text, reverse_path text, evidence text,
        trace bytes)}
WHERE true ON CONFLICT (fingerprint) DO NOTHING
"""
_RCPT = """
INSERT INTO inbound_rcpt (inbound_id, n, tenant_id, address, account, state, via)
SELECT v.inbound_id, v.n, v.tenant_id, v.address, v.account, v.state, v.via
FROM {v(inbound_id text, n int, tenant_id text, address text, account int, state text, via text)}
"""
_THERE = "SELECT id FROM inbound WHERE id = ANY($1)"
_FIRST = "SELECT fingerprint, id FROM inbound WHERE fingerprint = ANY($1)"
_ACCEPTED = str(State.ACCEPTED)


BUSY = 4
GATHER = 0.002
"""Seconds that a transaction waits for half of those that came lately, when these are `BUSY` at least."""


class RcptRow(msgspec.Struct, frozen=True, gc=False):
    """One account, or address elsewhere, that the message goes to. `via`: JSON."""

    tenant_id: str
    address: str
    account: int
    via: str


class Entry(msgspec.Struct, frozen=True, gc=False):
    """`evidence`: JSON."""

    id: str
    received_at: int
    reverse_path: str
    evidence: str
    trace: bytes
    recipients: tuple[RcptRow, ...]


class _Waiting(msgspec.Struct, gc=False):
    entry: Entry
    content: Content
    fingerprint: str
    future: asyncio.Future[str]
    anew: bool


class _RemovedError(Exception):
    """These contents are being removed from the blob store."""

    def __init__(self, keys: frozenset[str]) -> None:
        super().__init__()
        self.keys = keys


class Durable:
    """:param wake: called after a commit: there are jobs for the stage `store`.
    :param batch: messages, and `octets` of small ones, of one transaction.
    :param abreast: transactions under way at once."""

    def __init__(
        self,
        records: Records,
        contents: Contents,
        queue: Queue,
        *,
        clock: Clock,
        wake: Callable[[], None],
        batch: int = 256,
        octets: int = 8 * 2**20,
        abreast: int = 1,
    ) -> None:
        self._records = records
        self._contents = contents
        self._queue = queue
        self._clock = clock
        self._wake = wake
        self._batch = batch
        self._octets = octets
        self._abreast = abreast
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[_Waiting] = []
        self._busy = 0
        self._lately = (0, 0)  # messages of the last two transactions
        self._enough: tuple[int, asyncio.Future[None]] | None = None
        self._writers: set[asyncio.Task[None]] = set()
        self._held = 0
        self._finished = 0

    def progress(self) -> dict[str, tuple[int, int]]:
        """Messages whose sender waits for the answer, and those answered since the start, whatever was said."""
        return {"accept": (self._held, self._finished)}

    async def keep(self, entry: Entry, message: bytes | mmap) -> str:
        """The id under which the message is durable: the entry's, or that of its first coming.

        :raises StorageUnavailable: it may come again. Never raised for a part of it.
        """
        self._held += 1
        try:
            return await self._keep(entry, message)
        finally:
            self._held -= 1
            self._finished += 1

    async def _keep(self, entry: Entry, message: bytes | mmap) -> str:
        content = await self._contents.put(message)
        try:
            return await self._join(entry, content, anew=False)
        except _RemovedError:
            pass
        # Its twin is being collected: lay the bytes down again, and count them anew.
        content = await self._contents.put(message)
        try:
            return await self._join(entry, content, anew=True)
        except _RemovedError:
            raise StorageUnavailable(detail=f"content {content.key} is being removed") from None

    async def close(self) -> None:
        """What waits is written first."""
        while self._writers:
            await asyncio.gather(*self._writers, return_exceptions=True)

    def _join(self, entry: Entry, content: Content, *, anew: bool) -> asyncio.Future[str]:
        loop = self._loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        self._waiting.append(_Waiting(entry, content, fingerprint(entry, content.key), future, anew))
        if self._enough is not None and len(self._waiting) == self._enough[0] and not self._enough[1].done():
            self._enough[1].set_result(None)
        if self._busy < self._abreast:
            self._busy += 1
            writer = loop.create_task(self._write())
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return future

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                batch = self._next()
                self._lately = (self._lately[1], len(batch))
                await self._attempt(batch)
        finally:
            self._busy -= 1  # here, not in a callback: what joins next must see it

    async def _gather(self) -> None:
        """Senders that wait for their 250 fall in step: one of them first, then all others. Half of
        them at a time share the work better: the next ones come while these are written."""
        half = (sum(self._lately) + 1) // 2
        if half < BUSY or len(self._waiting) >= half:
            return
        self._enough = half, asyncio.get_running_loop().create_future()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._enough[1], GATHER)
        self._enough = None

    def _next(self) -> list[_Waiting]:
        octets = taken = 0
        for one in self._waiting[: self._batch]:
            octets += len(one.content.data or b"")
            if octets > self._octets and taken:
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return batch

    async def _attempt(self, batch: Sequence[_Waiting]) -> None:
        try:
            ids = await self._records.write(lambda tx: self._rows(tx, batch))
        except _RemovedError as error:
            rest = [one for one in batch if one.content.key not in error.keys]
            _fail([one for one in batch if one.content.key in error.keys], error)
            if rest:
                await self._attempt(rest)
        except StorageUnavailable as error:
            _fail(batch, error)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            for one in batch:  # one of them cannot be written: not to the others' harm
                await self._attempt([one])
        else:
            self._wake()
            for one in batch:
                if not one.future.done():
                    one.future.set_result(ids[one.fingerprint])

    async def _rows(self, tx: Tx, batch: Sequence[_Waiting]) -> dict[str, str]:
        """The id by fingerprint. :raises _RemovedError:"""
        # In the order of fingerprints, so that two transactions never wait for each other.
        first = {one.fingerprint: one for one in sorted(batch, key=lambda one: (one.fingerprint, one.entry.id))[::-1]}
        ordered = [first[key] for key in sorted(first)]
        fresh = ordered
        if await tx.run_each(_INBOUND, [_inbound_row(one) for one in ordered]) < len(ordered):
            there = {id_ for (id_,) in await tx.rows(_THERE, [one.entry.id for one in ordered])}
            fresh = [one for one in ordered if one.entry.id in there]
        ids = {one.fingerprint: one.entry.id for one in fresh}
        if fresh:
            await self._rest(tx, fresh)
        if len(ids) < len(ordered):
            known = [one.fingerprint for one in ordered if one.fingerprint not in ids]
            ids |= {row[0]: row[1] for row in await tx.rows(_FIRST, known)}
        return ids

    async def _rest(self, tx: Tx, fresh: Sequence[_Waiting]) -> None:
        removed: frozenset[str] = frozenset()
        for anew in (False, True):
            counted = [(one.content, 1) for one in fresh if one.anew is anew]
            if counted:
                removed |= await self._contents.keep(tx, counted, anew=anew)
        if removed:
            raise _RemovedError(removed)
        await tx.run_each(_RCPT, [row for one in fresh for row in _rcpt_rows(one.entry)])
        due_at = self._clock()
        jobs = [
            Job(STORE, Lane.TRANSACTIONAL, first.tenant_id, due_at, one.entry.id, key=str(first.account))
            for one in sorted(fresh, key=lambda one: one.entry.id)
            for first in one.entry.recipients[:1]
        ]
        await self._queue.put(jobs, tx=tx)


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for one in batch:
        if not one.future.done():
            one.future.set_exception(error)


def fingerprint(entry: Entry, key: str) -> str:
    """Of the envelope and the bytes; the order of the recipients does not count."""
    text = "\0".join((key, entry.reverse_path, *sorted({row.address for row in entry.recipients})))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _inbound_row(one: _Waiting) -> Row:
    entry = one.entry
    content = one.content
    return (
        entry.id,
        entry.received_at,
        content.key,
        content.size,
        one.fingerprint,
        entry.reverse_path,
        entry.evidence,
        entry.trace,
    )


def _rcpt_rows(entry: Entry) -> list[Row]:
    return [
        (entry.id, n, row.tenant_id, row.address, row.account, _ACCEPTED, row.via)
        for n, row in enumerate(entry.recipients)
    ]
