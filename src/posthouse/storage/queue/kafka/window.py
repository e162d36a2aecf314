"""What was read of one stage and lane and is not done: ready, tenants in turn, or held.

Pure: no I/O and no clock. Bounded by whoever fills it (`READY_AT_MOST`)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from posthouse.storage.queue.base import Job
from posthouse.storage.queue.kafka.partitions import Held, Name
from posthouse.storage.queue.kafka.progress import Progress
from posthouse.storage.queue.kafka.wire import mark

READY_AT_MOST = 4096
"""Jobs of a lane that wait in memory: above it, its partitions are paused."""
READY_AGAIN = 1024
"""Below it they are resumed."""
_ENDS_KEPT = 256
"""Ends of leases beyond twice the jobs in memory."""


class Part:
    """A partition that is ours, under `epoch`."""

    __slots__ = ("assigned", "at", "claimed", "epoch", "finishing", "holding", "name", "next", "progress", "retries")

    def __init__(self, name: Name, epoch: int, progress: Progress, claimed: int, retries: dict[int, int]) -> None:
        self.name = name
        self.epoch = epoch
        self.progress = progress
        """As last seen in its row."""
        self.claimed = claimed
        self.retries = retries
        self.assigned = True
        """False: given back to the group; what is held of it is finished, no more is claimed."""
        self.next = progress.low
        """The offset that is read next."""
        self.at: dict[int, Entry] = {}
        self.holding: set[Entry] = set()
        self.finishing: list[Entry] = []
        """An outcome was written in a transaction whose end we are not told."""

    @property
    def held(self) -> Held:
        return (*self.name, self.epoch)

    def claims_before(self, offset: int) -> int:
        """By owners that ended without an outcome."""
        return self.retries.get(offset, 1 if offset < self.claimed else 0)

    def oldest(self, low: int) -> int | None:
        entry = self.at.get(low)
        return entry.job.due_at if entry is not None else None


class Copy(NamedTuple):
    """One record of a job. A crash between produce and commit leaves a second one."""

    part: Part
    offset: int
    due_at: int


class Entry:
    """`job` as it was put. `lease`: µs; 0 while nobody holds it."""

    __slots__ = ("claims", "copies", "gone", "job", "lease", "mark")

    def __init__(self, job: Job, copy: Copy) -> None:
        self.job = job
        self.copies = [copy]
        self.claims = copy.part.claims_before(copy.offset)
        self.lease = 0
        self.gone = False
        self.mark = mark(job.id)

    @property
    def part(self) -> Part:
        return self.copies[0].part

    @property
    def offset(self) -> int:
        return self.copies[0].offset

    def leased(self) -> Job:
        """The handle of this lease."""
        job = self.job
        return Job(
            job.stage, job.lane, job.tenant, self.lease, job.id, job.attempts + self.claims, job.payload, job.key
        )


class Window:
    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Entry] = {}
        """By tenant and id."""
        self.ready = 0
        self.paused = False
        self._turns: OrderedDict[str, deque[Entry]] = OrderedDict()
        self._ends: list[tuple[int, int, Entry]] = []
        self._count = 0
        self._came = asyncio.Event()

    def add(self, job: Job, copy: Copy) -> None:
        """A second copy of a job that is here joins the first."""
        part, offset, _ = copy
        entry = self.entries.get((job.tenant, job.id))
        if entry is not None:
            entry.copies.append(copy)
            part.at[offset] = entry
            return
        entry = part.at[offset] = self.entries[job.tenant, job.id] = Entry(job, copy)
        self._queue(entry)

    def _queue(self, entry: Entry) -> None:
        self._turns.setdefault(entry.job.tenant, deque()).append(entry)
        self.ready += 1
        self._came.set()

    async def wait(self, seconds: float) -> None:
        """Until a job comes, so long at most."""
        self._came.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._came.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        self._came.set()

    def take(self, n: int, now: int) -> list[Entry]:
        """Up to `n`: those whose lease ended first, then ready ones, tenants in turn."""
        taken = self._lapsed(n, now)
        while len(taken) < n and self._turns:
            tenant, waiting = self._turns.popitem(last=False)
            if not waiting:
                continue
            entry = waiting.popleft()
            if waiting:
                self._turns[tenant] = waiting
            if not entry.gone:
                self.ready -= 1
                taken.append(entry)
        return taken

    def _lapsed(self, n: int, now: int) -> list[Entry]:
        taken: list[Entry] = []
        while self._ends and self._ends[0][0] <= now and len(taken) < n:
            end, _, entry = heappop(self._ends)
            if entry.gone or entry.lease != end:
                continue
            if entry.part.assigned:
                taken.append(entry)
            else:
                self.drop(entry)  # whoever has the partition next reads it again
        return taken

    def pick(self, ids: set[str]) -> list[Entry]:
        """Those of these ids that are ready: taken."""
        picked = [entry for (_, id_), entry in self.entries.items() if id_ in ids and not entry.lease]
        for waiting in self._turns.values():
            for entry in picked:
                with suppress(ValueError):
                    waiting.remove(entry)
        self.ready -= len(picked)
        return picked

    def give_back(self, entries: Iterable[Entry]) -> None:
        """Taken and not leased after all."""
        for entry in entries:
            if entry.gone:
                continue
            if entry.lease:
                self._remember(entry)
            else:
                self._queue(entry)

    def hold(self, entry: Entry, end: int) -> None:
        entry.lease = end
        entry.part.holding.add(entry)
        self._remember(entry)

    def _remember(self, entry: Entry) -> None:
        self._count += 1
        heappush(self._ends, (entry.lease, self._count, entry))
        if len(self._ends) > 2 * len(self.entries) + _ENDS_KEPT:
            # Most leases end long before their time: what was done under one must not stay as long.
            self._ends = [end for end in self._ends if not end[2].gone and end[2].lease == end[0]]
            heapify(self._ends)

    def drop(self, entry: Entry, *, queued: bool = False) -> None:
        """It is done, withdrawn or another's. `queued`: it was ready and not taken."""
        if entry.gone:
            return
        entry.gone = True
        self.ready -= queued
        self.entries.pop((entry.job.tenant, entry.job.id), None)
        for part, offset, _ in entry.copies:
            part.at.pop(offset, None)
            part.holding.discard(entry)

    def finish(self, entry: Entry) -> None:
        """Done, as its row says. A copy that came while its outcome was written is a job anew."""
        if entry.gone:
            return
        self.drop(entry)
        left = [copy for copy in entry.copies if copy.offset not in copy.part.progress]
        for copy in left:
            self.add(entry.job, copy)

    def held(self, job: Job) -> Entry | None:
        """By the handle of its present lease."""
        entry = self.entries.get((job.tenant, job.id))
        return entry if entry is not None and entry.lease == job.due_at and entry.lease else None
