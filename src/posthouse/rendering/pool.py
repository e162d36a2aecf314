"""The render processes: who works on what, which contexts each knows, what happens when one dies.

Batches wait by lane and the most urgent goes first, so bulk costs a critical message at most
the batch that a process is at.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import msgspec
import structlog
from prometheus_client import Counter

from posthouse.errors import Unavailable
from posthouse.net.child import Child, code, launch
from posthouse.rendering.process import Answer, Context, Failure, Request, Setup, Task
from posthouse.storage.queue.base import Lane

log = structlog.get_logger("render")

TASKS_IN_BATCH = 32
"""About ten milliseconds of signatures: what an urgent message waits for at most."""
_CHILD = code("posthouse.rendering.process")
_AHEAD = 2
"""Batches given to a process at once, so that it never waits for the next."""
_CONTEXTS = 288
_CONTEXT_OCTETS = 64 * 1024 * 1024
"""Bounds of what a process keeps of the messages' common parts."""
_PATIENCE = 60.0
"""Seconds for one batch; past it the process is taken for hung."""

DEATHS = Counter("posthouse_render_process_deaths_total", "Render processes that ended by themselves or hung.")
RENDERED = Counter("posthouse_rendered_total", "Messages rendered, by result.", ["result"])

Result = bytes | Failure


@dataclass(slots=True, eq=False)
class _Batch:
    lane: int
    tasks: Sequence[Task]
    contexts: Mapping[str, Context]
    done: asyncio.Future[list[Result]] = field(repr=False)
    deaths: int = 0


class RenderPool:
    def __init__(self, setup: Setup, processes: int) -> None:
        self._setup = setup
        self._count = processes
        self._processes: list[_Process] = []
        self._waiting: tuple[deque[_Batch], ...] = tuple(deque() for _ in Lane)
        self._started = False
        self._closed = False
        self._restarts: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Before the first use; a second call does nothing."""
        if not self._started:
            self._started = True
            for _ in range(self._count):
                await self._launch()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def render(self, lane: int, tasks: Sequence[Task], contexts: Mapping[str, Context]) -> list[Result]:
        """Results in the order of `tasks`; `contexts` holds each task's context.

        :raises Unavailable: the pool was closed.
        """
        await self.start()
        if self._closed:
            raise Unavailable(detail="the render processes are stopped")
        loop = asyncio.get_running_loop()
        batches = [
            _Batch(lane, tasks[at : at + TASKS_IN_BATCH], contexts, loop.create_future())
            for at in range(0, len(tasks), TASKS_IN_BATCH)
        ]
        self._waiting[lane].extend(batches)
        self._feed()
        parts = await asyncio.gather(*(batch.done for batch in batches))
        results = [result for part in parts for result in part]
        failed = sum(1 for result in results if isinstance(result, Failure))
        RENDERED.labels("ok").inc(len(results) - failed)
        RENDERED.labels("failed").inc(failed)
        return results

    async def close(self) -> None:
        """What waits fails as `Unavailable`."""
        self._closed = True
        for batch in [*chain(*self._waiting), *chain(*(process.batches.values() for process in self._processes))]:
            if not batch.done.done():
                batch.done.set_exception(Unavailable(detail="the render processes are stopped"))
        closing = list(self._processes)
        for process in closing:
            process.close()
        for process in closing:
            await process.reap()

    # Feeding.

    def _feed(self) -> None:
        """Give the most urgent batches to the least busy processes."""
        while True:
            ready = (process for process in self._processes if process.ready)
            process = min(ready, key=lambda p: len(p.batches), default=None)
            if process is None or len(process.batches) >= _AHEAD:
                return
            batch = next((waiting.popleft() for waiting in self._waiting if waiting), None)
            if batch is None:
                return
            if not batch.done.done():
                process.send(batch)

    def began(self) -> None:
        """A process is ready for work."""
        self._feed()

    def answered(self, batch: _Batch, results: list[Result]) -> None:
        if not batch.done.done():
            batch.done.set_result(results)
        self._feed()

    def died(self, process: _Process) -> None:
        """Its batches go to others; one that killed two processes is taken apart, and a single
        task that two died at is tried again later."""
        self._processes.remove(process)
        if self._closed:
            return
        DEATHS.inc()
        log.error("render_process_died", pid=process.pid, batches=len(process.batches))
        batches = list(process.batches.values())
        if batches:
            batches[0].deaths += 1  # it answers in order: the others were not begun
        for batch in reversed(batches):
            self._again(batch)
        task = asyncio.get_running_loop().create_task(self._relaunch(0.0 if process.ready else 1.0))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _relaunch(self, pause: float) -> None:
        """Until it succeeds: the machine may be out of processes or memory for a while."""
        await asyncio.sleep(pause)
        pause = 0.1
        while not self._closed:
            try:
                await self._launch()
            except OSError as error:
                log.warning("render_process_not_started", error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)
            else:
                return

    def _again(self, batch: _Batch) -> None:
        if batch.done.done():
            return  # nobody waits any more
        if batch.deaths < 2:
            self._waiting[batch.lane].appendleft(batch)
        elif len(batch.tasks) == 1:
            # For now: what killed them may have come from outside (memory ran out, an operator).
            text = "the render process ended twice at this message"
            batch.done.set_result([Failure("render_crashed", text, True)])
        else:
            self._split(batch)

    def _split(self, batch: _Batch) -> None:
        loop = asyncio.get_running_loop()
        singles = [_Batch(batch.lane, [task], batch.contexts, loop.create_future()) for task in batch.tasks]
        self._waiting[batch.lane].extendleft(reversed(singles))
        together = asyncio.gather(*(single.done for single in singles))

        def collect(done: asyncio.Future[list[list[Result]]]) -> None:
            if batch.done.done() or done.cancelled():
                return
            error = done.exception()
            if error is not None:
                batch.done.set_exception(error)
            else:
                batch.done.set_result([part[0] for part in done.result()])

        together.add_done_callback(collect)

    async def _launch(self) -> None:
        setup = msgspec.msgpack.encode(self._setup)
        process = await launch(_CHILD, lambda child: self._adopt(_Process(self, child)), setup)
        if self._closed:
            process.close()

    def _adopt(self, process: _Process) -> _Process:
        self._processes.append(process)
        return process


class _Process(Child):
    """One render process: its batches in order, the contexts it knows."""

    def __init__(self, pool: RenderPool, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process, _PATIENCE)
        self._pool = pool
        self.batches: OrderedDict[int, _Batch] = OrderedDict()
        self._known: OrderedDict[str, int] = OrderedDict()
        """Contexts that the process keeps, the least used first, with about the octets that each takes."""
        self._kept = 0
        self._number = 0
        self._decode = msgspec.msgpack.Decoder(Answer).decode
        self._encode = msgspec.msgpack.Encoder().encode

    def send(self, batch: _Batch) -> None:
        fresh: list[Context] = []
        names = {task.context: None for task in batch.tasks}
        for name in names:
            if name in self._known:
                self._known.move_to_end(name)
            else:
                fresh.append(batch.contexts[name])
                self._known[name] = _weight(fresh[-1])
                self._kept += self._known[name]
        drop = self._drop(len(names))
        self._number += 1
        self.batches[self._number] = batch
        self.write(self._encode(Request(self._number, drop, fresh, list(batch.tasks))))

    def _drop(self, needed: int) -> list[str]:
        """Contexts to be forgotten; never the `needed` ones used last."""
        drop: list[str] = []
        while len(self._known) > needed and (len(self._known) > _CONTEXTS or self._kept > _CONTEXT_OCTETS):
            name, weight = self._known.popitem(last=False)
            self._kept -= weight
            drop.append(name)
        return drop

    def began(self) -> None:
        self._pool.began()

    def answered(self, frame: bytes) -> bool:
        answer = self._decode(frame)
        self._pool.answered(self.batches.pop(answer.number), answer.results)
        return bool(self.batches)

    def died(self) -> None:
        self._pool.died(self)

    def hung(self) -> None:
        log.error("render_process_hung", pid=self.pid)


def _weight(context: Context) -> int:
    """Octets it takes in its process, about: an attachment is there as it is and encoded."""
    compiled = context.compiled.size() if context.compiled is not None else 0
    inline = len(context.html or "") + len(context.text or "")
    return compiled + inline + sum(ref.size for ref in context.attachments) * 12 // 5
