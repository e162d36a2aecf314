"""The render processes: who works on what, which contexts each knows, what happens when one dies.

Batches wait by lane and the most urgent goes first, so bulk costs a critical message at most
the batch that a process is at.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import cast

import msgspec
import structlog
from prometheus_client import Counter

from posthouse.errors import Unavailable
from posthouse.rendering.process import LENGTH, Answer, Context, Failure, Request, Setup, Task
from posthouse.storage.queue.base import Lane

log = structlog.get_logger("render")

TASKS_IN_BATCH = 32
"""About ten milliseconds of signatures: what an urgent message waits for at most."""
_CHILD = "import sys; from posthouse.rendering.process import main; main(int(sys.argv[1]))"
_AHEAD = 2
"""Batches given to a process at once, so that it never waits for the next."""
_CONTEXTS = 256
_SOCKET_BUFFER = 4 * 1024 * 1024
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
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        try:
            child = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module; fork and exec take a millisecond
                [sys.executable, "-c", _CHILD, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for the server, which ends us when it has finished
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        process = _Process(self, child)
        self._processes.append(process)
        await asyncio.get_running_loop().create_unix_connection(lambda: process, sock=ours)
        process.write(msgspec.msgpack.encode(self._setup))
        if self._closed:
            process.close()


class _Process(asyncio.Protocol):
    """One render process: its socket, its batches in order, the contexts it knows."""

    def __init__(self, pool: RenderPool, child: subprocess.Popen[bytes]) -> None:
        self._pool = pool
        self._child = child
        self.pid = child.pid
        self.batches: OrderedDict[int, _Batch] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._number = 0
        self.ready = False
        """It has read its setup. Until then it is given nothing: a process that cannot even
        start must not be held against a message."""
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = LENGTH.size
        self._in_body = False
        self._decode = msgspec.msgpack.Decoder(Answer).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_SOCKET_BUFFER)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._child.kill()
        self._child.wait()
        self._pool.died(self)

    def send(self, batch: _Batch) -> None:
        fresh: list[Context] = []
        for name in {task.context: None for task in batch.tasks}:
            if name in self._known:
                self._known.move_to_end(name)
            else:
                self._known[name] = None
                fresh.append(batch.contexts[name])
        drop = [self._known.popitem(last=False)[0] for _ in range(len(self._known) - _CONTEXTS - TASKS_IN_BATCH)]
        self._number += 1
        self.batches[self._number] = batch
        self.write(self._encode(Request(self._number, drop, fresh, list(batch.tasks))))
        if self._watch is None:
            self._expect()

    def _expect(self) -> None:
        self._watch = asyncio.get_running_loop().call_later(_PATIENCE, self._hung)

    def _hung(self) -> None:
        log.error("render_process_hung", pid=self.pid)
        if self._transport is not None:
            self._transport.abort()

    def write(self, frame: bytes) -> None:
        assert self._transport is not None
        self._transport.writelines([LENGTH.pack(len(frame)), frame])

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._have += len(data)
        while self._have >= self._need:
            buffer = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            frame, rest = buffer[: self._need], buffer[self._need :]
            self._pieces = [rest] if rest else []
            self._have = len(rest)
            if self._in_body:
                self._need, self._in_body = LENGTH.size, False
                self._answered(self._decode(frame))
            else:
                self._need, self._in_body = LENGTH.unpack(frame)[0], True

    def _answered(self, answer: Answer) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if not self.ready:
            self.ready = True
            self._pool.began()
            return
        batch = self.batches.pop(answer.number)
        if self.batches:
            self._expect()
        self._pool.answered(batch, answer.results)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def reap(self) -> None:
        """The child ends by itself when its socket closes."""
        for _ in range(50):
            if self._child.poll() is not None:
                return
            await asyncio.sleep(0.02)
        self._child.kill()
        self._child.wait()
