"""Several sinks on one port (SO_REUSEPORT), each in a process of its own, seen as one.

The kernel spreads connections. `defer-N@` and `greylist@` are remembered by each process
alone, so a retry that meets another process starts anew there.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Self

import uvloop

from posthouse.smtpd.sink.counts import Counts, add
from posthouse.smtpd.sink.listener import Sink
from posthouse.smtpd.sink.options import Options

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0


class Group:
    """`async with Group(options, 2) as group`: `port`, `counts()`, `reset()`.

    :raises ValueError: fewer than one process, or an option is wrong.
    :raises OSError: (on entering) a process could not start listening.
    """

    def __init__(self, options: Options, processes: int) -> None:
        if processes < 1:
            raise ValueError("a group needs at least one process")
        self._options = options
        self._number = processes
        self._members: list[tuple[SpawnProcess, Connection]] = []
        self._asking = asyncio.Lock()
        self._socket: socket.socket | None = None
        self.port = options.port

    async def __aenter__(self) -> Self:
        self._socket = _reserve(self._options)
        self.port = int(self._socket.getsockname()[1])
        options = replace(self._options, port=self.port, reuse_port=True, memory=0)
        context = multiprocessing.get_context("spawn")
        for _ in range(self._number):
            ours, theirs = context.Pipe()
            process = context.Process(target=_member, args=(options, theirs), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))
        try:
            async with asyncio.timeout(_START_SECONDS):
                _all_ready(await self._each(_receive))
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def counts(self) -> Counts:
        """The sum of all processes now. A process that is gone no longer counts."""
        answers = await self._ask("counts")
        return add([answer for answer in answers if isinstance(answer, Counts)])

    async def reset(self) -> None:
        await self._ask("reset")

    async def stop(self) -> None:
        """Stop all processes; their logs are written out."""
        await self._ask("stop")
        for process, pipe in self._members:
            await asyncio.to_thread(process.join, _STOP_SECONDS)
            if process.is_alive():
                process.kill()
            pipe.close()
        self._members.clear()
        if self._socket is not None:
            self._socket.close()

    async def _ask(self, question: str) -> list[object]:
        async with self._asking:
            return await self._each(lambda pipe: _exchange(pipe, question))

    async def _each(self, call: Callable[[Connection], object]) -> list[object]:
        return list(await asyncio.gather(*(asyncio.to_thread(call, pipe) for _, pipe in self._members)))


def _reserve(options: Options) -> socket.socket:
    """A bound socket that does not listen: it holds the port, and gets no connections."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        holder.bind((options.host, options.port))
    except OSError:
        holder.close()
        raise
    return holder


def _all_ready(answers: list[object]) -> None:
    for answer in answers:
        if answer != "ready":
            raise OSError(f"a process of the sink did not start: {answer}")


def _receive(pipe: Connection) -> object:
    try:
        return pipe.recv() if pipe.poll(_START_SECONDS) else "silent"
    except (EOFError, OSError):
        return "gone"


def _exchange(pipe: Connection, question: str) -> object:
    with suppress(OSError):
        pipe.send(question)
        return _receive(pipe)
    return "gone"


def _member(options: Options, pipe: Connection) -> None:
    # The parent decides when to stop; an interrupt from the terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_serve(options, pipe))


async def _serve(options: Options, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    try:
        async with Sink(options) as sink:
            loop.add_reader(pipe.fileno(), _listen(sink, pipe, over))
            pipe.send("ready")
            await over.wait()
            loop.remove_reader(pipe.fileno())
    except (OSError, ValueError) as error:
        pipe.send(str(error))
        return
    with suppress(OSError):
        pipe.send("stopped")


def _listen(sink: Sink, pipe: Connection, over: asyncio.Event) -> Callable[[], None]:
    def asked() -> None:
        try:
            question = pipe.recv()
        except (EOFError, OSError):  # the parent is gone
            over.set()
            return
        if question == "stop":
            over.set()
            return
        if question == "reset":
            sink.counts.reset()
        pipe.send(sink.counts)

    return asked
