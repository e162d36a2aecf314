"""A pool of child processes: who works on what, and what happens when one ends.

Items come in batches. Batches wait by lane, the most urgent lane goes first, and each goes to the
process that has the least to do. One at which a process ends is given to the next; what two have
died at is taken apart, and an item at which one more dies has the owner's `fatal` result.
"""

from __future__ import annotations

import asyncio
import subprocess
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import structlog
from prometheus_client import Counter

from posthouse.errors import Unavailable
from posthouse.net.child import Child, launch

_AHEAD = 2
"""Batches given to a process at once, so that it never waits for the next."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Codec(ABC, Generic[ItemT, ResultT]):
    """Frames of one process; it may remember what its process knows."""

    @abstractmethod
    def encode(self, items: Sequence[ItemT]) -> bytes: ...

    @abstractmethod
    def decode(self, frame: bytes) -> list[ResultT]:
        """One result an item, in order. What it raises ends the process."""


@dataclass(frozen=True, slots=True)
class Work(Generic[ItemT, ResultT]):
    """What the processes of a pool do."""

    name: str
    """Of the log, and the first word of its events."""
    run: str
    """See `child.code`."""
    setup: bytes
    codec: Callable[[], Codec[ItemT, ResultT]]
    """One for each process."""
    fatal: Callable[[ItemT], ResultT]
    """The result of an item that processes died at."""
    deaths: Counter
    stopped: str
    """What `Unavailable` says when the pool is closed."""
    patience: float
    """Seconds for one batch; past it the process is taken for hung."""
    lanes: int = 1


class _Batch(Generic[ItemT, ResultT]):
    """`deaths`: processes that ended at it."""

    __slots__ = ("deaths", "done", "items", "lane")

    def __init__(self, lane: int, items: Sequence[ItemT], deaths: int = 0) -> None:
        self.lane = lane
        self.items = items
        self.done: asyncio.Future[list[ResultT]] = asyncio.get_running_loop().create_future()
        self.deaths = deaths


class Pool(Generic[ItemT, ResultT]):
    """:param processes: how many."""

    def __init__(self, work: Work[ItemT, ResultT], processes: int) -> None:
        self._work = work
        self._count = processes
        self._processes: list[_Process[ItemT, ResultT]] = []
        self._waiting: tuple[deque[_Batch[ItemT, ResultT]], ...] = tuple(deque() for _ in range(work.lanes))
        self._started = False
        self._closed = False
        self._restarts: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger(work.name)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def start(self) -> None:
        """Before the first use; a second call does nothing."""
        if not self._started:
            self._started = True
            for _ in range(self._count):
                await self._relaunch(0.0)

    async def give(self, batches: Iterable[Sequence[ItemT]], lane: int = 0) -> list[asyncio.Future[list[ResultT]]]:
        """The results of each batch, to be waited for. A batch whose future is cancelled before a
        process has it costs nothing.

        :param lane: the smaller the more urgent.

        :raises Unavailable: the pool was closed; the futures raise it too.
        """
        await self.start()
        if self._closed:
            raise Unavailable(detail=self._work.stopped)
        given = [_Batch[ItemT, ResultT](lane, items) for items in batches]
        self._waiting[lane].extend(given)
        self._feed()
        return [batch.done for batch in given]

    async def close(self) -> None:
        """What waits fails as `Unavailable`."""
        self._closed = True
        for batch in [*chain(*self._waiting), *chain(*(process.batches for process in self._processes))]:
            if not batch.done.done():
                batch.done.set_exception(Unavailable(detail=self._work.stopped))
        closing = list(self._processes)
        for process in closing:
            process.close()
        for process in closing:
            await process.reap()

    # -- feeding -----------------------------------------------------------------------------

    def began(self) -> None:
        self._feed()

    def answered(self, batch: _Batch[ItemT, ResultT], results: list[ResultT]) -> None:
        if not batch.done.done():
            batch.done.set_result(results)
        self._feed()

    def _feed(self) -> None:
        """Give the most urgent batches to the least busy processes."""
        while any(self._waiting):
            ready = (process for process in self._processes if process.ready)
            process = min(ready, key=lambda one: len(one.batches), default=None)
            if process is None or len(process.batches) >= _AHEAD:
                return
            batch = next(waiting.popleft() for waiting in self._waiting if waiting)
            if not batch.done.done():  # somebody still waits
                process.send(batch)

    # -- ends and starts ---------------------------------------------------------------------

    def hung(self, process: _Process[ItemT, ResultT]) -> None:
        self._log.error(f"{self._work.name}_process_hung", pid=process.pid)

    def died(self, process: _Process[ItemT, ResultT]) -> None:
        self._processes.remove(process)
        if self._closed:
            return
        self._work.deaths.inc()
        self._log.error(f"{self._work.name}_process_died", pid=process.pid, batches=len(process.batches))
        batches = list(process.batches)
        if batches:
            batches[0].deaths += 1  # it answers in order: the others were not begun
        for batch in reversed(batches):
            self._again(batch)
        task = asyncio.get_running_loop().create_task(self._relaunch(0.0 if process.ready else 1.0))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)
        self._feed()

    def _again(self, batch: _Batch[ItemT, ResultT]) -> None:
        if batch.done.done():
            return  # nobody waits any more
        if batch.deaths < 2:
            self._waiting[batch.lane].appendleft(batch)
        elif len(batch.items) == 1:
            batch.done.set_result([self._work.fatal(batch.items[0])])
        else:
            self._take_apart(batch)

    def _take_apart(self, batch: _Batch[ItemT, ResultT]) -> None:
        singles = [_Batch[ItemT, ResultT](batch.lane, [item], batch.deaths - 1) for item in batch.items]
        self._waiting[batch.lane].extendleft(reversed(singles))
        together = asyncio.gather(*[single.done for single in singles])

        def collect(done: asyncio.Future[list[list[ResultT]]]) -> None:
            if batch.done.done() or done.cancelled():
                return
            error = done.exception()
            if error is not None:
                batch.done.set_exception(error)
            else:
                batch.done.set_result([part[0] for part in done.result()])

        together.add_done_callback(collect)

    async def _relaunch(self, pause: float) -> None:
        """Until it succeeds: the machine may be out of processes or memory for a while."""
        await asyncio.sleep(pause)
        pause = 0.1
        while not self._closed:
            try:
                await self._launch()
            except OSError as error:
                self._log.warning(f"{self._work.name}_process_not_started", error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)
            else:
                return

    async def _launch(self) -> None:
        process = await launch(self._work.run, self._adopt, self._work.setup)
        if self._closed:
            process.close()

    def _adopt(self, child: subprocess.Popen[bytes]) -> _Process[ItemT, ResultT]:
        process = _Process(self, child, self._work)
        self._processes.append(process)
        return process


class _Process(Child, Generic[ItemT, ResultT]):
    """One process, and the batches that it was given, in order."""

    def __init__(
        self, pool: Pool[ItemT, ResultT], process: subprocess.Popen[bytes], work: Work[ItemT, ResultT]
    ) -> None:
        super().__init__(process, work.patience)
        self._pool = pool
        self._codec = work.codec()
        self.batches: deque[_Batch[ItemT, ResultT]] = deque()

    def send(self, batch: _Batch[ItemT, ResultT]) -> None:
        self.batches.append(batch)
        self.write(self._codec.encode(batch.items))

    def began(self) -> None:
        self._pool.began()

    def answered(self, frame: bytes) -> bool:
        results = self._codec.decode(frame)  # first: what cannot be read ends the process, which still has its batch
        self._pool.answered(self.batches.popleft(), results)
        return bool(self.batches)

    def died(self) -> None:
        self._pool.died(self)

    def hung(self) -> None:
        self._pool.hung(self)
