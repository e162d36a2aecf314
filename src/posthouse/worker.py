"""Claim a batch, hand it to a stage, keep its leases alive, give its room back.

One `Worker` serves one stage with one loop for each lane, so that no lane waits for another.
A lane holds at most `room` jobs: the hand-over to what follows is bounded, and a full lane
stops claiming (the jobs wait in the queue, on disk). Whoever finishes a job acknowledges it
in the queue in the same transaction as its outcome, then calls `release`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import structlog
from prometheus_client import Counter, Gauge

from posthouse.clock import SECOND, Clock
from posthouse.errors import Error, Unavailable
from posthouse.storage.queue.base import Job, Lane, Queue

Run = Callable[[Sequence[Job]], Awaitable[None]]
"""The stage: takes a batch of one lane. `Unavailable` puts the batch back; whatever else it
raises is taken for one job's doing, so each is run alone, and the one that raises again
comes back by its lease, `MOST_CLAIMS` times."""

log = structlog.get_logger("worker")

CLAIMED = Counter("posthouse_jobs_claimed_total", "Jobs leased from the queue.", ["stage", "lane"])
HELD = Gauge("posthouse_jobs_held", "Jobs leased and not yet finished.", ["stage", "lane"])
FAULTS = Counter("posthouse_stage_faults_total", "Batches that a stage raised for.", ["stage", "lane"])
BURIED = Counter("posthouse_jobs_buried_total", "Jobs set aside after too many claims.", ["stage", "lane"])

MOST_CLAIMS = 20
"""A job claimed more often than this without an outcome kills its workers: it is buried."""


class Worker:
    """Runs until `stop`; then claims nothing more, and `held` tells what is still in flight."""

    def __init__(
        self,
        stage: str,
        queue: Queue,
        run: Run,
        *,
        room: Mapping[Lane, int],
        lease: float,
        clock: Clock,
        batch: int = 256,
        poll: float = 1.0,
        gather: float = 0.0,
    ) -> None:
        """
        :param room: the most jobs held at once, by lane.
        :param batch: the most jobs of one claim.
        :param lease: seconds; renewed at a third of it.
        :param poll: seconds between looks at an empty queue that nobody has woken us for.
        :param gather: seconds to let jobs come together after a claim that was not full, for a
            stage whose batches cost more than its jobs.
        """
        self._stage = stage
        self._queue = queue
        self._run = run
        self._room = dict(room)
        self._worth = {lane: max(1, min(batch, most // 4)) for lane, most in room.items()}
        self._batch = batch
        self._lease = lease
        self._poll = poll
        self._clock = clock
        self._gather = gather
        self._held: dict[Lane, dict[str, Job]] = {lane: {} for lane in room}
        self._finished = dict.fromkeys(room, 0)
        self._wake = {lane: asyncio.Event() for lane in room}
        self._stopping = False
        self._stopped = asyncio.Event()
        self.leases = asyncio.Lock()
        """Held while leases change or are given up: an outcome names the lease's exact end."""
        self._batches: set[asyncio.Task[None]] = set()

    @property
    def held(self) -> int:
        return sum(len(jobs) for jobs in self._held.values())

    @property
    def stage(self) -> str:
        return self._stage

    def progress(self) -> dict[str, tuple[int, int]]:
        """By lane: jobs held now, and finished or given up since the start."""
        return {lane.name.lower(): (len(jobs), self._finished[lane]) for lane, jobs in self._held.items()}

    def holds(self, job_id: str) -> bool:
        return any(job_id in jobs for jobs in self._held.values())

    def current(self, job: Job) -> Job:
        """The job with its latest lease: what the queue's verbs must be given."""
        return self._held[Lane(job.lane)].get(job.id, job)

    def wake(self, lane: int) -> None:
        """There may be something to claim in this lane."""
        self._wake[Lane(lane)].set()

    def release(self, job: Job) -> None:
        """This job is finished (or given up); its room is free."""
        lane = Lane(job.lane)
        held = self._held[lane]
        held.pop(job.id, None)
        self._finished[lane] += 1
        if self._room[lane] - len(held) == self._worth[lane]:
            self._wake[lane].set()

    def stop(self) -> None:
        """What a batch has not handed on yet is given up; `hand_back_all` puts it back."""
        self._stopping = True
        self._stopped.set()
        for event in self._wake.values():
            event.set()
        for task in self._batches:
            task.cancel()

    async def hand_back_all(self) -> None:
        """At a stop: what is still held becomes due at once, for whoever comes next."""
        held = [job for jobs in self._held.values() for job in jobs.values()]
        if held:
            await self._hand_back(held, after=0)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            for lane in self._room:
                group.create_task(self._serve(lane))

    async def _serve(self, lane: Lane) -> None:
        claimed = CLAIMED.labels(self._stage, lane.name.lower())
        held = HELD.labels(self._stage, lane.name.lower())
        while not self._stopping:
            self._wake[lane].clear()
            jobs = await self._claim(lane)
            held.set(len(self._held[lane]))
            if jobs and not self._stopping:
                claimed.inc(len(jobs))
                self._start(lane, jobs)
                if self._gather and len(jobs) < self._batch:
                    await self._pause(self._gather)
            else:
                await self._sleep(lane)
        held.set(len(self._held[lane]))

    async def _claim(self, lane: Lane) -> list[Job]:
        """As many as there is room for, once a whole batch fits (where the room is small, a quarter of it)."""
        free = self._room[lane] - len(self._held[lane])
        if free < self._worth[lane]:
            return []
        try:
            jobs = await self._queue.claim(self._stage, lane, min(self._batch, free), lease=self._lease)
            held = self._held[lane]
            fresh = [job for job in jobs if job.id not in held]
            held.update((job.id, job) for job in jobs)  # one that lapsed while we work on it is ours again
            return await self._bury_hopeless(fresh)
        except Unavailable as error:
            log.warning("queue_unavailable", stage=self._stage, lane=lane.name.lower(), detail=error.detail)
            await asyncio.sleep(min(self._poll, 1.0))
            return []

    async def _bury_hopeless(self, jobs: list[Job]) -> list[Job]:
        """:raises Unavailable: all of `jobs` are released, for their leases to bring back."""
        hopeless = [job for job in jobs if job.attempts > MOST_CLAIMS]
        if not hopeless:
            return jobs
        try:
            await self._queue.bury([(job, f"claimed {job.attempts} times without an outcome") for job in hopeless])
        except Unavailable:
            for job in jobs:
                self.release(job)
            raise
        for job in hopeless:
            BURIED.labels(self._stage, Lane(job.lane).name.lower()).inc()
            log.error("job_buried", stage=self._stage, message_id=job.id, claims=job.attempts)
            self.release(job)
        return [job for job in jobs if job.attempts <= MOST_CLAIMS]

    def _start(self, lane: Lane, jobs: list[Job]) -> None:
        """Run batches side by side: the bound is the lane's room, not one batch at a time."""
        task = asyncio.get_running_loop().create_task(self._run_batch(lane, jobs))
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _run_batch(self, lane: Lane, jobs: Sequence[Job]) -> None:
        try:
            await self._run(jobs)
        except Unavailable as error:
            self._fault(lane, jobs, error)
            await self._hand_back(jobs)
        except Exception as error:
            self._fault(lane, jobs, error)
            if len(jobs) == 1:
                self.release(jobs[0])  # not put back: its claims go on counting
                return
            for job in jobs:
                if self.holds(job.id):
                    await self._run_batch(lane, [job])

    def _fault(self, lane: Lane, jobs: Sequence[Job], error: Exception) -> None:
        FAULTS.labels(self._stage, lane.name.lower()).inc()
        detail = error.detail if isinstance(error, Error) else repr(error)
        log.warning(
            "stage_fault",
            stage=self._stage,
            jobs=len(jobs),
            first=jobs[0].id,
            error=type(error).__name__,
            detail=detail,
        )

    async def _hand_back(self, jobs: Sequence[Job], after: int = 5 * SECOND) -> None:
        """Due again in a moment; if even that fails, when the lease ends."""
        async with self.leases:
            mine = [self.current(job) for job in jobs if self.holds(job.id)]
            soon = self._clock() + after
            try:
                await self._queue.later([(job, soon) for job in mine])
            except Error as error:
                log.warning("hand_back_failed", stage=self._stage, jobs=len(mine), detail=error.detail)
            for job in mine:
                self.release(job)

    async def _sleep(self, lane: Lane) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll):
                await self._wake[lane].wait()

    async def _pause(self, seconds: float) -> None:
        """So long, or until we stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _renew(self) -> None:
        """Leases in their last two thirds are renewed, all in one statement."""
        while not self._stopping:
            await self._pause(self._lease / 6)
            horizon = self._clock() + int(self._lease * SECOND * 2 / 3)
            async with self.leases:
                await self._renew_before(horizon)

    async def _renew_before(self, horizon: int) -> None:
        old = [job for jobs in self._held.values() for job in jobs.values() if job.due_at < horizon]
        if not old:
            return
        try:
            kept = await self._queue.extend(old, lease=self._lease)
        except Unavailable as error:
            log.warning("lease_renewal_failed", stage=self._stage, jobs=len(old), detail=error.detail)
            return
        for job in kept:
            if job.id in self._held[Lane(job.lane)]:
                self._held[Lane(job.lane)][job.id] = job
