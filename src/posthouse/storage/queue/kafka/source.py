"""The partitions of one stage that are ours: taken, read into windows, given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
import structlog

from posthouse.clock import Clock
from posthouse.errors import Error, StorageUnavailable
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.kafka import partitions
from posthouse.storage.queue.kafka.partitions import Locked, Name, Taken
from posthouse.storage.queue.kafka.progress import Progress
from posthouse.storage.queue.kafka.reader import Arrival, Reader
from posthouse.storage.queue.kafka.topics import Topic
from posthouse.storage.queue.kafka.window import READY_AGAIN, READY_AT_MOST, Copy, Entry, Part, Window
from posthouse.storage.queue.kafka.wire import Options, Record
from posthouse.storage.records.base import Records, Row, Tx

log = structlog.get_logger("queue")

TAKE_AGAIN = 0.1
"""Seconds between looks at a partition that its owner before has not let go of."""
_LOOK = 0.5
_CLEAN_EVERY = 60
_COMMIT_EVERY = 10
"""Looks between commits of the group's offsets, for those who watch the lag."""

_retries = msgspec.json.Decoder(dict[int, int]).decode


class Source:
    """One stage's consumer and its windows, by lane."""

    def __init__(
        self,
        records: Records,
        blobs: Blobs,
        options: Options,
        stage: str,
        topics: Mapping[str, Topic],
        *,
        owner: str,
        clock: Clock,
        unreadable: Callable[[str, str, Part, int], Awaitable[None]],
        clean: Callable[[Mapping[Name, int]], Awaitable[None]],
    ) -> None:
        """
        :param unreadable: told stage, reason, partition and offset of a record that nobody can work on.
        :param clean: told offsets below which nothing is needed any more.
        """
        self._clean = clean
        self._cleaned: dict[Name, int] = {}
        self._records = records
        self._blobs = blobs
        self._options = options
        self._stage = stage
        self._topics = topics
        self._owner = owner
        self._clock = clock
        self._unreadable = unreadable
        self.windows = {int(lane): Window() for lane in Lane}
        self.parts: dict[Name, Part] = {}
        self._lanes = {options.topic(stage, lane): int(lane) for lane in Lane}
        self._wanted: set[Name] = set()
        self._taking: asyncio.Task[None] | None = None
        self.fetching: set[asyncio.Task[None]] = set()
        """Payloads on their way from the blobs."""
        self._closing = False
        self.reader = Reader(
            options.client(),
            f"{options.prefix}.{stage}",
            list(topics),
            came=self._came,
            assigned=self._assigned,
            revoked=self._revoked,
        )
        self._looking = asyncio.get_running_loop().create_task(self._look_after())

    def window_of(self, part: Part) -> Window:
        return self.windows[self._lanes[part.name[0]]]

    # What the group says.

    def _assigned(self, names: list[Name]) -> None:
        for name in names:
            part = self.parts.get(name)
            if part is None:
                self._want(name)
            else:
                part.assigned = True
                self._begin(part)

    def _revoked(self, names: list[Name]) -> None:
        """What is held stays ours until it is finished; the rest is whoever's comes next."""
        for name in names:
            self._wanted.discard(name)
            part = self.parts.get(name)
            if part is None:
                continue
            part.assigned = False
            window = self.window_of(part)
            for entry in list(part.at.values()):
                if entry not in part.holding:
                    window.drop(entry, queued=True)

    def _want(self, name: Name) -> None:
        self._wanted.add(name)
        if self._taking is None or self._taking.done():
            self._taking = asyncio.get_running_loop().create_task(self._take())

    async def _take(self) -> None:
        """Until each is ours or not wanted any more."""
        while self._wanted and not self._closing:
            names = [(*name, self._topics[name[0]].id) for name in sorted(self._wanted)]
            now = self._clock()

            async def work(tx: Tx, names: Sequence[Row] = names, now: int = now) -> tuple[list[Taken], list[Row]]:
                return await partitions.take(tx, [(str(a), int(b), str(c)) for a, b, c in names], self._owner, now=now)

            try:
                taken, anew = await self._records.write(work)
            except Error as error:
                log.warning("partitions_wait_for_storage", stage=self._stage, detail=error.detail)
                await asyncio.sleep(1)
                continue
            for row in anew:
                log.error("topic_made_anew", topic=row[0], number=row[1])
            for row in taken:
                self._taken(row)
            if self._wanted:
                await asyncio.sleep(TAKE_AGAIN)

    def _taken(self, row: Taken) -> None:
        name = (row.topic, row.number)
        if name not in self._wanted:
            return
        self._wanted.discard(name)
        progress = Progress.decode(row.low, row.done)
        self.parts[name] = part = Part(name, row.epoch, progress, row.claimed, _retries(row.retries))
        self._begin(part)

    def _begin(self, part: Part) -> None:
        part.next = part.progress.low
        self.reader.read_from(part.name, part.next, paused=self.window_of(part).paused)

    def lost(self, part: Part) -> None:
        """Its row has another epoch: somebody replaced us."""
        if self.parts.get(part.name) is not part:
            return
        log.warning("partition_lost", topic=part.name[0], number=part.name[1], held=len(part.holding))
        del self.parts[part.name]
        window = self.window_of(part)
        for entry in list(part.at.values()):
            window.drop(entry, queued=entry not in part.holding)
        if part.assigned:
            self._want(part.name)

    # What the reader brings.

    def _came(self, arrivals: list[Arrival]) -> None:
        for topic, number, offset, record in arrivals:
            part = self.parts.get((topic, number))
            if part is None or not part.assigned or offset < part.next:
                continue
            if offset > part.next:
                self._spawn(self._skip(part, part.next, offset))
            part.next = offset + 1
            if offset in part.progress or offset in part.at:
                continue
            if record is None:
                self._spawn(self._unreadable(self._stage, "its record cannot be read", part, offset))
            elif record.blob is not None:
                self._spawn(self._fetch(part, offset, record, record.blob))
            else:
                self._add(part, offset, record, record.payload)
        for window in self.windows.values():
            if window.ready > READY_AT_MOST and not window.paused:
                window.paused = True
                self.reader.pause(self._names(window))

    async def _skip(self, part: Part, start: int, end: int) -> None:
        """Records that are not there, because what was done was deleted and the row that said so
        was lost with its disk's cache: they count as done, or the mark would wait for ever."""

        async def work(tx: Tx) -> None:
            for row in await partitions.lock(tx, [part.held]):
                progress = Progress.decode(row.low, row.done)
                progress.add_ranges([(start, end)])
                await partitions.mark_done(tx, [(*part.name, progress.low, progress.encode(), None)])

        log.warning("records_missing", topic=part.name[0], number=part.name[1], start=start, end=end)
        with suppress(Error):  # the next reader finds the gap again
            await self._records.write(work)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.fetching.add(task)
        task.add_done_callback(self.fetching.discard)

    def _add(self, part: Part, offset: int, record: Record, payload: str | None) -> None:
        lane = self._lanes[part.name[0]]
        job = Job(self._stage, lane, record.tenant, record.due_at, record.id, record.attempts, payload, record.key)
        self.windows[lane].add(job, Copy(part, offset, record.due_at))

    async def _fetch(self, part: Part, offset: int, record: Record, blob: str) -> None:
        """A payload that lies in a blob."""
        while part.assigned and self.parts.get(part.name) is part:
            try:
                payload = (await self._blobs.get(blob)).decode()
            except StorageUnavailable as error:
                log.warning("payload_waits_for_storage", id=record.id, detail=error.detail)
                await asyncio.sleep(1)
            except (Error, ValueError):
                log.exception("payload_lost", id=record.id)
                await self._unreadable(self._stage, f"the payload of {record.id} is not there", part, offset)
                return
            else:
                if offset not in part.progress and offset not in part.at:
                    self._add(part, offset, record, payload)
                return

    def read_on(self, window: Window) -> None:
        if window.paused and window.ready < READY_AGAIN:
            window.paused = False
            self.reader.resume(self._names(window))

    def _names(self, window: Window) -> list[Name]:
        return [name for name, part in self.parts.items() if part.assigned and self.window_of(part) is window]

    # What the rows say.

    def learn(self, locked: Sequence[Locked]) -> dict[Name, Progress]:
        """Rows as they are committed (or as our own transaction sees them, once it is)."""
        known: dict[Name, Progress] = {}
        for row in locked:
            name = (row.topic, row.number)
            part = self.parts.get(name)
            if part is None:
                continue
            part.progress = known[name] = Progress.decode(row.low, row.done)
            window = self.window_of(part)
            open_still: list[Entry] = []
            for entry in part.finishing:
                if entry.offset in part.progress:
                    window.finish(entry)
                elif not entry.gone:
                    open_still.append(entry)
            part.finishing = open_still
        return known

    async def refresh(self, some: Sequence[Part]) -> None:
        """What came of the outcomes that were written in the callers' transactions.

        :raises StorageUnavailable:
        """
        held = [part.held for part in some]
        if not held:
            return
        locked = await self._records.read(lambda tx: partitions.truth(tx, held))
        self.learn(locked)
        ours = {(row.topic, row.number) for row in locked}
        for part in some:
            if part.name not in ours:
                self.lost(part)

    async def _look_after(self) -> None:
        looks = 0
        while not self._closing:
            await asyncio.sleep(_LOOK if not self._leaving() else TAKE_AGAIN)
            looks += 1
            with suppress(Error):
                await self.refresh([part for part in self.parts.values() if part.finishing])
                await self._let_go()
            if looks % _COMMIT_EVERY == 0:
                self.reader.commit([(*part.name, part.progress.low) for part in self.parts.values() if part.assigned])
            if looks % _CLEAN_EVERY == 0:
                await self._delete_done()

    async def _delete_done(self) -> None:
        """Topics keep no record that is done: nothing else bounds them."""
        marks = {
            part.name: part.progress.low
            for part in self.parts.values()
            if part.assigned and part.progress.low > self._cleaned.get(part.name, 0)
        }
        try:
            await self._clean(marks)
        except Error as error:
            log.warning("done_records_stay", stage=self._stage, detail=error.detail)
        else:
            self._cleaned |= marks

    def _leaving(self) -> bool:
        return any(not part.assigned for part in self.parts.values())

    async def _let_go(self) -> None:
        """Partitions that went to another, once nothing of them is held."""
        now = self._clock()
        free = [
            part
            for part in self.parts.values()
            if not part.assigned and all(entry.lease <= now for entry in part.holding)
        ]
        if not free:
            return
        for part in free:
            del self.parts[part.name]
            window = self.window_of(part)
            for entry in list(part.at.values()):
                window.drop(entry)
        held = [part.held for part in free]
        await self._records.write(lambda tx: partitions.release(tx, held), durable=False)

    async def close(self) -> None:
        """Leaves the group, and lets go of the partitions of which nothing is held."""
        self._closing = True
        self._looking.cancel()
        for task in (*self.fetching, *([self._taking] if self._taking is not None else [])):
            task.cancel()
        with suppress(Error):
            await self.refresh([part for part in self.parts.values() if part.finishing])
        await self.reader.close()
        free = [part.held for part in self.parts.values() if not part.holding]
        if free:
            with suppress(Error):
                await self._records.write(lambda tx: partitions.release(tx, free), durable=False)
