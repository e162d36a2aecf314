"""The stage `index`: words of what was stored, into the search index. Its jobs wait while the
index is away; mail does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import msgspec
import structlog
from prometheus_client import Gauge

from posthouse import ids
from posthouse.clock import SECOND, Clock
from posthouse.inbound.model import INDEX
from posthouse.mail.parse import search_text
from posthouse.mail.parsed import Addr, Parsed, part_of
from posthouse.mailbox import record
from posthouse.mailbox.model import Detail
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job, Lane, Queue
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.search.base import Doc, Search

log = structlog.get_logger("index")
LAG = Gauge(
    "posthouse_search_lag_seconds",
    "Age of the oldest arrival that is being indexed, or of the last batch when it was found; not of a rebuild.",
)

OCTETS_AT_ONCE = 32 * 1024 * 1024
_LARGE = 256 * 1024
"""Octets from which a message is read in a thread."""
_AT_ONCE = 16
"""Messages read before other tasks get their turn."""
_PAGE = 500
_TENANT = "index"
"""Jobs of the index are nobody's in particular."""
_LOOK_AGAIN = 5 * SECOND

_EMAILS = """
SELECT e.account, e.id, e.received_at, e.subject, e.sender, e.detail, e.content, e.size
FROM {v(account int, id int)} CROSS JOIN email e WHERE e.account = v.account AND e.id = v.id
ORDER BY e.received_at"""
_NEXT = """
SELECT account, id FROM email WHERE (account, id) > ($1, $2) AND account <= $4
ORDER BY account, id LIMIT $3"""


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """(account, email) of those that came and went. `last`: of a rebuild."""

    came: tuple[tuple[int, int], ...] = ()
    went: tuple[tuple[int, int], ...] = ()
    last: bool = False


_decode = msgspec.json.Decoder(Payload).decode
_encode = msgspec.json.Encoder().encode


class Indexing:
    """Queues what the index must learn, in the transaction that stores it."""

    def __init__(self, queue: Queue, *, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock

    async def __call__(self, tx: Tx, came: Sequence[tuple[int, int]], went: Sequence[tuple[int, int]]) -> None:
        if came or went:
            await self.put(tx, Payload(tuple(came), tuple(went)), Lane.TRANSACTIONAL)

    async def put(self, tx: Tx, payload: Payload, lane: Lane) -> None:
        job = Job(INDEX, int(lane), _TENANT, self._clock(), ids.new("idx"), payload=_encode(payload).decode())
        await self._queue.put([job], tx=tx)


class Index:
    """The stage. `release`: of the worker that claimed the jobs."""

    def __init__(
        self,
        records: Records,
        contents: Contents,
        queue: Queue,
        search: Search,
        *,
        clock: Clock,
        current: Callable[[Job], Job],
        release: Callable[[Job], None],
        leases: asyncio.Lock,
    ) -> None:
        self._records = records
        self._contents = contents
        self._queue = queue
        self._search = search
        self._clock = clock
        self._current = current
        self._release = release
        self._leases = leases

    async def __call__(self, jobs: Sequence[Job]) -> None:
        """:raises Unavailable: search or storage is away: the jobs wait; repeating does no harm."""
        self._measure(jobs)  # before the first step that can fail: it grows while the index is away
        payloads = [(job, _decode(job.payload or "{}")) for job in jobs]
        came = [key for _, payload in payloads for key in payload.came]
        for start in range(0, len(came), _PAGE):
            await self._add(came[start : start + _PAGE])
        # After what came: an email may have come and gone within these jobs.
        went: dict[int, list[str]] = {}
        for _, payload in payloads:
            for account, email in payload.went:
                went.setdefault(account, []).append(str(email))
        for account, emails in went.items():
            await self._search.remove(str(account), emails)
        self._measure(jobs)
        await self._finish(await self._ended(payloads), jobs)

    async def _ended(self, payloads: Sequence[tuple[Job, Payload]]) -> list[Job]:
        """All but the end of a rebuild that has to wait. Of two rebuilds at once one end is enough."""
        ends = [job for job, payload in payloads if payload.last]
        if ends and not await self._rebuilt(ends[-1].lane, sum(job.lane == ends[-1].lane for job, _ in payloads)):
            return [job for job, _ in payloads if job is not ends[-1]]
        return [job for job, _ in payloads]

    def _measure(self, jobs: Sequence[Job]) -> None:
        made = [ids.moment(job.id) or self._clock() for job in jobs if job.lane != Lane.BULK]
        if made:
            LAG.set(max(0.0, (self._clock() - min(made)) / SECOND))

    async def _finish(self, done: Sequence[Job], jobs: Sequence[Job]) -> None:
        async with self._leases:
            finished = {job.id for job in done}
            again = next_look(self._clock())
            if done:
                await self._queue.done([self._current(job) for job in done])
            await self._queue.later([(self._current(job), again) for job in jobs if job.id not in finished])
            for job in jobs:
                self._release(job)

    async def _rebuilt(self, lane: int, mine: int) -> bool:
        """The last job of a rebuild ends it when nothing is in its lane but what was just done.

        :param mine: jobs of this lane that were.
        """
        for depth in await self._queue.depths():
            if (depth.stage, depth.lane) == (INDEX, lane) and depth.ready + depth.delayed > mine:
                return False
        await self._search.rebuilt()
        return True

    async def _add(self, keys: Sequence[tuple[int, int]]) -> None:
        rows = await self._records.read(lambda tx: tx.each(_EMAILS, list(dict.fromkeys(keys))))
        for part in _in_parts(rows):
            contents = await self._contents.get_many([row[6] for row in part])
            docs: list[Doc] = []
            for n, row in enumerate(part):
                if n and n % _AT_ONCE == 0:
                    await asyncio.sleep(0)
                docs.append(await _doc(row, contents.get(row[6])))
            await self._search.index(docs)


def next_look(now: int) -> int:
    """When the end of a rebuild looks again: the same moment for all who wait, whenever they came
    to wait, so that the ends of two rebuilds meet."""
    return (now // _LOOK_AGAIN + 1) * _LOOK_AGAIN


def _in_parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    octets = 0
    for row in rows:
        if part and octets + row[7] > OCTETS_AT_ONCE:
            yield part
            part, octets = [], 0
        part.append(row)
        octets += row[7]
    if part:
        yield part


async def _doc(row: Row, raw: bytes | None) -> Doc:
    """A message whose octets are lost is found by its header fields at least."""
    account, email, received_at, subject, sender, packed, _, size = row
    detail = record.detail(packed)
    parsed = _parsed(size, detail)
    text = ""
    if raw is not None:
        text = await asyncio.to_thread(_text, raw, parsed) if size > _LARGE else _text(raw, parsed)
    names = (part_of(detail.structure, one) for one in detail.attachments)
    return Doc(
        str(account),
        str(email),
        received_at,
        subject,
        _addresses(record.senders(sender)),
        _addresses((*detail.to, *detail.cc, *detail.bcc)),
        text,
        tuple(part.name for part in names if part is not None and part.name),
    )


def _parsed(size: int, detail: Detail) -> Parsed:
    """As much of it as reading the words takes."""
    return Parsed(
        size,
        detail.header_length,
        detail.structure,
        text=detail.text,
        html=detail.html,
        attachments=detail.attachments,
    )


def _text(raw: bytes, parsed: Parsed) -> str:
    try:
        return search_text(raw, parsed)
    except Exception:  # our own code failed on it: its header fields are words too
        log.exception("text_unreadable", octets=len(raw))
        return ""


def _addresses(found: Sequence[Addr]) -> tuple[str, ...]:
    return tuple(f"{one.name} <{one.address}>" if one.name else one.address for one in found)


async def reindex(
    records: Records, indexing: Indexing, search: Search, *, account: int | None = None, wake: Callable[[], None]
) -> int:
    """Queue every email again, behind new ones; how many. Of all accounts: the index is emptied first.

    :raises StorageUnavailable:
    """
    if account is None:
        await search.clear()
    at, end, queued = (account or 0, 0), account if account is not None else 2**62, 0

    async def page(tx: Tx) -> list[tuple[int, int]]:
        rows = [(number, email) for number, email in await tx.rows(_NEXT, *at, _PAGE, end)]
        last = account is None and len(rows) < _PAGE
        if rows or last:
            await indexing.put(tx, Payload(came=tuple(rows), last=last), Lane.BULK)
        return rows

    while rows := await records.write(page):
        at, queued = rows[-1], queued + len(rows)
        wake()
        if len(rows) < _PAGE:
            break
    return queued


async def rebuild_if_due(
    records: Records, queue: Queue, indexing: Indexing, search: Search, *, wake: Callable[[], None]
) -> bool:
    """An index that was lost or set aside is made again from the records, unless that is under way.

    :raises StorageUnavailable:
    """
    size = await search.size()
    if size.needs_rebuild is None:
        return False
    if any((depth.stage, depth.lane) == (INDEX, Lane.BULK) for depth in await queue.depths()):
        return False
    if await records.read(lambda tx: tx.row("SELECT 1 FROM email LIMIT 1")) is None:
        await search.rebuilt()
        return False
    log.warning("index_rebuild_begins", reason=size.needs_rebuild)
    await reindex(records, indexing, search, wake=wake)
    return True
