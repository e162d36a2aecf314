"""`base.Queue` on Kafka and records; the package's docstring tells how."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from array import array
from collections.abc import Iterable, Sequence

from posthouse.clock import SECOND, Clock, now
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.queue.base import Buried, Depth, Job
from posthouse.storage.queue.kafka import partitions, wire
from posthouse.storage.queue.kafka.depths import depths
from posthouse.storage.queue.kafka.outcome import add_done, buried_row, key_of, leased, leased_row, put_back
from posthouse.storage.queue.kafka.partitions import Locked
from posthouse.storage.queue.kafka.producer import Producer, Send
from posthouse.storage.queue.kafka.progress import Progress
from posthouse.storage.queue.kafka.pump import Pump
from posthouse.storage.queue.kafka.source import Source
from posthouse.storage.queue.kafka.topics import Topics
from posthouse.storage.queue.kafka.window import Copy, Entry, Part, Window
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Row, Tx, Work

PATIENCE = 1.0
"""Seconds that a claim waits for a first job: they come from Kafka without a wake."""


class KafkaQueue:
    """Verbs that end a job join the caller's transaction, whose end they are not told: what is
    in memory follows the committed row (`Source.learn`), never the attempt."""

    def __init__(
        self,
        records: Records,
        blobs: Blobs,
        options: wire.Options,
        *,
        clock: Clock = now,
        patience: float = PATIENCE,
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._options = options
        self._clock = clock
        self._patience = patience
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._parked = RecordsQueue(records, clock=clock)
        self._topics = Topics(options)
        self._producer = Producer(options.client())
        self.pump = Pump(records, self._parked, self.produce)
        self._sources: dict[str, Source] = {}
        self._opening = asyncio.Lock()
        self._known: set[str] = set()
        """Stages whose topics and rows exist."""

    # Putting.

    async def put(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> None:
        at = self._clock()
        if tx is not None:
            await self._parked.put(jobs, tx=tx)
            self._hint(jobs, at)
            return
        waiting = [job for job in jobs if job.due_at > at]
        if waiting:
            await self._parked.put(waiting)
        await self.produce([job for job in jobs if job.due_at <= at])
        self.pump.start()

    def _hint(self, jobs: Iterable[Job], at: int) -> None:
        self.pump.start()
        if places := {(job.stage, job.lane) for job in jobs if job.due_at <= at}:
            self.pump.soon(places)

    async def produce(self, jobs: Sequence[Job]) -> None:
        """Into their topics, due or not.

        :raises StorageUnavailable: some may be there and some not.
        """
        records: list[Send] = []
        for job in jobs:
            await self._topics_of(job.stage)
            topic = self._options.topic(job.stage, job.lane)
            number = wire.partition_of(job, self._topics.partitions(topic))
            records.append(Send(topic, number, job.key or job.id, wire.encode(await self._record(job))))
        await self._producer.send(records)

    async def _record(self, job: Job) -> wire.Record:
        payload, blob = job.payload, None
        if payload is not None and len(payload) > wire.LARGE // 4 and len(data := payload.encode()) > wire.LARGE:
            payload, blob = None, await self._blobs.put(data)
        return wire.Record(job.id, job.tenant, job.due_at, job.attempts, payload, job.key, blob)

    async def _topics_of(self, stage: str) -> None:
        if stage in self._known:
            return
        topics = await self._topics.of(stage)
        rows = [(topic.name, number, topic.id) for topic in topics.values() for number in range(topic.partitions)]
        await self._records.write(lambda tx: partitions.ensure(tx, rows))
        self._known.add(stage)

    # Working.

    async def claim(self, stage: str, lane: int, n: int, *, lease: float) -> list[Job]:
        if n <= 0:
            return []
        source = await self.source(stage)
        window = source.windows[lane]
        taken = window.take(n, self._clock())
        if not taken and self._patience:
            await window.wait(self._patience)
            taken = window.take(n, self._clock())
        if not taken:
            return []
        source.read_on(window)
        try:
            return await self._lease(source, window, taken, self._clock() + round(lease * SECOND))
        except BaseException:
            window.give_back(taken)
            raise

    async def source(self, stage: str) -> Source:
        """The stage's consumer, started when it is first asked for."""
        if stage not in self._sources:
            async with self._opening:
                await self._topics_of(stage)
                if stage not in self._sources:
                    self._sources[stage] = Source(
                        self._records,
                        self._blobs,
                        self._options,
                        stage,
                        await self._topics.of(stage),
                        owner=self._owner,
                        clock=self._clock,
                        unreadable=self._unreadable,
                        clean=self._topics.clean,
                    )
            self.pump.start()
        return self._sources[stage]

    async def _lease(self, source: Source, window: Window, taken: list[Entry], end: int) -> list[Job]:
        parts = {entry.part for entry in taken}
        held = [part.held for part in parts]
        ids = [entry.job.id for entry in taken]

        async def work(tx: Tx) -> tuple[list[Locked], set[tuple[str, str, int]]]:
            locked = await partitions.lock(tx, held)
            back = await partitions.withdrawn(tx, ids)
            dropped = [copy for entry in taken for copy in entry.copies if key_of(entry, copy) in back]
            if dropped:
                locked = await add_done(tx, locked, dropped)
                await partitions.forget_withdrawn(tx, sorted(back))
            ours = {(row.topic, row.number) for row in locked}
            await partitions.lease(tx, [leased_row(part, taken) for part in parts if part.name in ours], end)
            return locked, back

        locked, _ = await self._records.write(work, durable=False)
        known = source.learn(locked)
        for part in parts:
            if part.name not in known:
                source.lost(part)
        return [job for entry in taken if (job := leased(window, entry, known, end)) is not None]

    async def extend(self, jobs: Sequence[Job], *, lease: float) -> list[Job]:
        end = self._clock() + round(lease * SECOND)
        kept: list[Job] = []
        for stage in {job.stage for job in jobs}:
            source = self._sources.get(stage)
            if source is None:
                continue
            entries = [entry for job in jobs if job.stage == stage and (entry := self._entry(job)) is not None]
            kept += await self._extend(source, entries, end)
        return kept

    async def _extend(self, source: Source, entries: list[Entry], end: int) -> list[Job]:
        held = sorted({entry.part.held for entry in entries})

        async def work(tx: Tx) -> list[Locked]:
            locked = await partitions.lock(tx, held)
            await partitions.extend(tx, [(row.topic, row.number) for row in locked], end)
            return locked

        if not held:
            return []
        known = source.learn(await self._records.write(work, durable=False))
        for part in {entry.part for entry in entries}:
            if part.name not in known:
                source.lost(part)
        kept = [entry for entry in entries if not entry.gone]
        for entry in kept:
            source.window_of(entry.part).hold(entry, end)
        return [entry.leased() for entry in kept]

    # Ending.

    async def done(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> int:
        entries = self._held(jobs)

        async def work(tx: Tx) -> list[Entry]:
            return await self._finish(tx, entries)

        return await self._ended(work, tx) if entries else 0

    async def later(self, jobs: Sequence[tuple[Job, int]], *, tx: Tx | None = None) -> int:
        at = {job.id: again for job, again in jobs}
        entries = self._held([job for job, _ in jobs])

        async def work(tx: Tx) -> list[Entry]:
            finished = await self._finish(tx, entries)
            back = [put_back(entry, at[entry.job.id]) for entry in finished]
            if back:
                await self._parked.put(back, tx=tx)
                self._hint(back, self._clock())
            return finished

        return await self._ended(work, tx) if entries else 0

    async def bury(self, jobs: Sequence[tuple[Job, str]], *, tx: Tx | None = None) -> int:
        reasons = {job.id: reason for job, reason in jobs}
        entries = self._held([job for job, _ in jobs])
        at = self._clock()

        async def work(tx: Tx) -> list[Entry]:
            finished = await self._finish(tx, entries)
            await partitions.bury(tx, [buried_row(entry, at, reasons[entry.job.id]) for entry in finished])
            return finished

        return await self._ended(work, tx) if entries else 0

    async def _ended(self, work: Work[list[Entry]], tx: Tx | None) -> int:
        if tx is not None:
            return len(await work(tx))
        finished = await self._records.write(work)
        for source in self._sources.values():
            await source.refresh([part for part in source.parts.values() if part.finishing])
        return len(finished)

    async def _finish(self, tx: Tx, entries: Sequence[Entry]) -> list[Entry]:
        """Those still held, their offsets done in this transaction."""
        copies = [copy for entry in entries for copy in entry.copies]
        locked = await partitions.lock(tx, list({copy.part.held for copy in copies}))
        before = {(row.topic, row.number): Progress.decode(row.low, row.done) for row in locked}
        finished = [
            entry
            for entry in entries
            if (known := before.get(entry.part.name)) is not None and entry.offset not in known
        ]
        await add_done(tx, locked, [copy for entry in finished for copy in entry.copies])
        for entry in finished:
            entry.part.finishing.append(entry)
        return finished

    def _held(self, jobs: Sequence[Job]) -> list[Entry]:
        return [entry for job in jobs if (entry := self._entry(job)) is not None]

    def _entry(self, job: Job) -> Entry | None:
        source = self._sources.get(job.stage)
        return source.windows[job.lane].held(job) if source is not None else None

    # Taking back.

    async def withdraw(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> int:
        """One that lies in a topic is dropped when it is claimed."""
        for stage in {job.stage for job in jobs}:
            await self._topics_of(stage)
        at = self._clock()

        async def work(tx: Tx) -> int:
            count = 0
            for job in jobs:
                count += await self._parked.withdraw([job], tx=tx) or await self._withdraw_read(tx, job, at)
            return count

        return await (work(tx) if tx is not None else self._records.write(work)) if jobs else 0

    async def _withdraw_read(self, tx: Tx, job: Job, at: int) -> int:
        if job.due_at > at:
            return 0
        topic = self._options.topic(job.stage, job.lane)
        name = (topic, wire.partition_of(job, self._topics.partitions(topic)))
        held = array("I", (await partitions.holds(tx, [name]))[name])
        if wire.mark(job.id) in held:
            return 0
        return await partitions.withdraw(tx, [(job.id, job.stage, job.due_at)])

    async def set_aside(self, ids: Sequence[str], reason: str) -> int:
        """Those that are parked, or were read here and are not held; what lies further back in
        a topic is not found until then."""
        wanted = set(ids)
        count = await self._parked.set_aside(ids, reason)
        for source in self._sources.values():
            for window in source.windows.values():
                taken = window.pick(wanted)
                if taken:
                    count += await self._set_aside(window, taken, reason)
        return count

    async def _set_aside(self, window: Window, taken: list[Entry], reason: str) -> int:
        at = self._clock()

        async def work(tx: Tx) -> list[Entry]:
            finished = await self._finish(tx, taken)
            await partitions.bury(tx, [buried_row(entry, at, reason) for entry in finished])
            return finished

        try:
            return await self._ended(work, None)
        except BaseException:
            window.give_back(taken)
            raise

    async def put_back(self, ids: Sequence[str]) -> int:
        count = await self._parked.put_back(ids)
        self.pump.start()
        return count

    async def _unreadable(self, stage: str, reason: str, part: Part, offset: int) -> None:
        """Set aside, so that its partition goes on."""
        topic, number = part.name
        found = self._options.stage_and_lane(topic)
        lane = found[1] if found is not None else 0
        row: Row = (f"{topic}-{number}-{offset}", stage, lane, "", 1, None, None, self._clock(), reason)

        async def work(tx: Tx) -> None:
            locked = await partitions.lock(tx, [part.held])
            if locked:
                await add_done(tx, locked, [Copy(part, offset, 0)])
                await partitions.bury(tx, [row])

        await self._records.write(work)

    # Looking.

    async def buried(self, *, limit: int = 100) -> list[Buried]:
        return await self._parked.buried(limit=limit)

    async def depths(self) -> list[Depth]:
        return await depths(self._records, self._parked, self._topics, self._options)

    async def free_leases(self) -> int:
        count = await self._parked.free_leases()
        at = self._clock()
        for source in self._sources.values():
            for part in source.parts.values():
                count += len(part.holding)
                for entry in part.holding:
                    source.window_of(part).hold(entry, at)
        prefix = self._options.prefix
        await self._records.write(lambda tx: partitions.free(tx, prefix))
        return count

    async def undelay(self, stages: Sequence[str], after: float) -> int:
        """Leases of partitions too, which a clock of before may have set far ahead."""
        count = await self._parked.undelay(stages, after)
        now = self._clock()
        topics = [topic for stage in stages for topic in self._options.topics(stage)]
        await self._records.write(lambda tx: partitions.cut_leases(tx, topics, now, now + round(after * SECOND)))
        return count

    async def ready(self) -> None:
        await self._records.ready()
        await self._topics.ready()

    async def close(self) -> None:
        await self.pump.close()
        await asyncio.gather(*(source.close() for source in self._sources.values()))
        await self._producer.close()
        self._topics.close()
