"""Processes that examine messages, so that another core does what would hold up the loop.

A batch goes to the process that has the least to do. One at which a process ends is given to the
next; what two have died at is taken apart, and a message at which one more dies is stored plainly,
with its octets as one text.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

import structlog
from prometheus_client import Counter

from posthouse.errors import Unavailable
from posthouse.inbound.examine import LARGE, Examined, Given, examine, plain
from posthouse.inbound.examiner import ANSWER, encode
from posthouse.net.child import Child, code, launch

log = structlog.get_logger("examine")

MESSAGES_AT_ONCE = 32
"""In one batch: about five milliseconds of a process."""
OCTETS_AT_ONCE = 1024 * 1024
_AHEAD = 2
"""Batches given to a process at once, so that it never waits for the next."""
_MOST = 4
"""Processes; more than these have nothing to do behind one loop."""
_PATIENCE = 20.0
"""Seconds for one batch; past it the process is taken for hung."""
_WAIT = 120.0
"""Seconds for all batches of a call."""
_CHILD = code("posthouse.inbound.examiner")
_ENDED = "the processes that examine messages are stopped"
_FATAL = "processes ended while they examined it"

DEATHS = Counter("posthouse_examine_process_deaths_total", "Examining processes that ended by themselves or hung.")


class _Batch:
    """`deaths`: processes that ended at it."""

    __slots__ = ("deaths", "done", "given")

    def __init__(self, given: Sequence[Given], deaths: int = 0) -> None:
        self.given = given
        self.done: asyncio.Future[list[Examined]] = asyncio.get_running_loop().create_future()
        self.deaths = deaths


def processes_for(cores: int) -> int:
    """How many are worth it: accept, the loop and the records need a core as well."""
    return min(cores - 1, _MOST)


class ExaminePool:
    """`inbound.examine.Examine`, by `processes` processes."""

    def __init__(self, processes: int) -> None:
        self._count = processes
        self._processes: list[_Process] = []
        self._waiting: deque[_Batch] = deque()
        self._started = False
        self._closed = False
        self._restarts: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def start(self) -> None:
        """Before the first use; a second call does nothing."""
        if not self._started:
            self._started = True
            for _ in range(self._count):
                await self._relaunch(0.0)

    async def __call__(self, given: Sequence[Given]) -> list[Examined]:
        """Large ones in a thread, so that no frame is.

        :raises Unavailable: the pool was closed, or its processes do not start.
        """
        await self.start()
        if self._closed:
            raise Unavailable(detail=_ENDED)
        large = {n for n, one in enumerate(given) if one.arrival.size > LARGE}
        batches = [_Batch(part) for part in _in_batches([one for n, one in enumerate(given) if n not in large])]
        self._waiting.extend(batches)
        self._feed()
        threads = [asyncio.to_thread(examine, given[n]) for n in sorted(large)]
        try:
            async with asyncio.timeout(_WAIT):
                aside = await asyncio.gather(*threads)
                parts = await asyncio.gather(*[batch.done for batch in batches])
        except TimeoutError:
            raise Unavailable(detail="the processes that examine messages do not answer") from None
        found, apart = chain(*parts), iter(aside)
        return [next(apart) if n in large else next(found) for n in range(len(given))]

    async def close(self) -> None:
        """What waits fails as `Unavailable`."""
        self._closed = True
        for batch in [*self._waiting, *chain(*(process.batches for process in self._processes))]:
            if not batch.done.done():
                batch.done.set_exception(Unavailable(detail=_ENDED))
        closing = list(self._processes)
        for process in closing:
            process.close()
        for process in closing:
            await process.reap()

    # -- feeding -----------------------------------------------------------------------------

    def _feed(self) -> None:
        while self._waiting:
            ready = (process for process in self._processes if process.ready)
            process = min(ready, key=lambda one: len(one.batches), default=None)
            if process is None or len(process.batches) >= _AHEAD:
                return
            batch = self._waiting.popleft()
            if not batch.done.done():  # somebody still waits
                process.send(batch)

    def began(self) -> None:
        self._feed()

    def answered(self, batch: _Batch, found: list[Examined]) -> None:
        if not batch.done.done():
            batch.done.set_result(found)
        self._feed()

    def died(self, process: _Process) -> None:
        self._processes.remove(process)
        if self._closed:
            return
        DEATHS.inc()
        log.error("examine_process_died", pid=process.pid, batches=len(process.batches))
        batches = list(process.batches)
        if batches:
            batches[0].deaths += 1  # it answers in order: the others were not begun
        for batch in reversed(batches):
            self._again(batch)
        task = asyncio.get_running_loop().create_task(self._relaunch(0.0 if process.ready else 1.0))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)
        self._feed()

    def _again(self, batch: _Batch) -> None:
        if batch.done.done():
            return
        if batch.deaths < 2:
            self._waiting.appendleft(batch)
        elif len(batch.given) == 1:
            batch.done.set_result([plain(batch.given[0], _FATAL)])
        else:
            singles = [_Batch([one], batch.deaths - 1) for one in batch.given]
            self._waiting.extendleft(reversed(singles))
            together = asyncio.gather(*[single.done for single in singles])
            together.add_done_callback(lambda done: _collect(batch, done))

    async def _relaunch(self, pause: float) -> None:
        """Until it succeeds: the machine may be out of processes or memory for a while."""
        await asyncio.sleep(pause)
        pause = 0.1
        while not self._closed:
            try:
                await self._launch()
            except OSError as error:
                log.warning("examine_process_not_started", error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)
            else:
                return

    async def _launch(self) -> None:
        process = await launch(_CHILD, lambda child: self._adopt(_Process(self, child)), b"")
        if self._closed:
            process.close()

    def _adopt(self, process: _Process) -> _Process:
        self._processes.append(process)
        return process


class _Process(Child):
    """One process, and the batches that it was given, in order."""

    def __init__(self, pool: ExaminePool, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process, _PATIENCE)
        self._pool = pool
        self.batches: deque[_Batch] = deque()

    def send(self, batch: _Batch) -> None:
        self.batches.append(batch)
        self.write(encode(batch.given))

    def began(self) -> None:
        self._pool.began()

    def answered(self, frame: bytes) -> bool:
        found = ANSWER.decode(frame)  # first: what cannot be read ends the process, which still has its batch
        self._pool.answered(self.batches.popleft(), found)
        return bool(self.batches)

    def died(self) -> None:
        self._pool.died(self)

    def hung(self) -> None:
        log.error("examine_process_hung", pid=self.pid)


def _collect(batch: _Batch, done: asyncio.Future[list[list[Examined]]]) -> None:
    """The answer of a batch that was taken apart."""
    if batch.done.done() or done.cancelled():
        return
    error = done.exception()
    if error is not None:
        batch.done.set_exception(error)
    else:
        batch.done.set_result([part[0] for part in done.result()])


def _in_batches(given: Sequence[Given]) -> Iterator[list[Given]]:
    batch: list[Given] = []
    octets = 0
    for one in given:
        octets += one.arrival.size
        if batch and (len(batch) == MESSAGES_AT_ONCE or octets > OCTETS_AT_ONCE):
            yield batch
            batch, octets = [], one.arrival.size
        batch.append(one)
    if batch:
        yield batch
