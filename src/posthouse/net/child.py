"""A process of ours at the other end of a socket: frames both ways, and an end to one that hangs.

A frame is its length (4 octets, big-endian) and that many octets. The child is a module's
`main(descriptor)`, by `serve`; it answers its first frame, the setup, when it is ready, and then each frame
in order. It ends when the socket closes.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar, cast

LENGTH = struct.Struct(">I")
SOCKET_BUFFER = 4 * 1024 * 1024
START = 120.0
"""Seconds that a start may take: on a machine without a core to spare it costs more than any work."""


class Child(asyncio.Protocol, ABC):
    """The parent's end. `ready`: it has answered its setup. Until then it should be given
    nothing: a process that cannot even start must not be held against what it was given.

    :param process: started, and ours to kill.
    :param patience: seconds for an answer; past it the process is taken for hung.
    :param start: the same for the answer to its setup.
    """

    def __init__(self, process: subprocess.Popen[bytes], patience: float, start: float = START) -> None:
        self._process = process
        self._patience = patience
        self._start = start
        self.pid = process.pid
        self.ready = False
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = LENGTH.size
        self._in_body = False
        self._watch: asyncio.TimerHandle | None = None

    # -- for subclasses ----------------------------------------------------------------------

    @abstractmethod
    def began(self) -> None:
        """It is ready for work."""

    @abstractmethod
    def answered(self, frame: bytes) -> bool:
        """The answer to the oldest frame; whether more are due."""

    @abstractmethod
    def died(self) -> None: ...

    @abstractmethod
    def hung(self) -> None:
        """It was silent for too long, and is killed now."""

    # -- talking -----------------------------------------------------------------------------

    def write(self, frame: bytes) -> None:
        assert self._transport is not None
        self._transport.writelines([LENGTH.pack(len(frame)), frame])
        if self._watch is None:
            self._expect()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def reap(self) -> None:
        """The child ends by itself when its socket closes."""
        for _ in range(50):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(0.02)
        self._process.kill()
        self._process.wait()

    def _expect(self) -> None:
        patience = self._patience if self.ready else self._start
        self._watch = asyncio.get_running_loop().call_later(patience, self._end)

    def _end(self) -> None:
        self.hung()
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=SOCKET_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._process.kill()
        self._process.wait()
        self.died()

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
                self._received(frame)
            else:
                self._need, self._in_body = LENGTH.unpack(frame)[0], True

    def _received(self, frame: bytes) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if not self.ready:
            self.ready = True
            self.began()
        elif self.answered(frame) and self._watch is None:  # what was given meanwhile is watched already
            self._expect()


ChildT = TypeVar("ChildT", bound=Child)


def code(module: str) -> str:
    """What runs `module.main` in a child, with the number of its socket."""
    return f"import sys; from {module} import main; main(int(sys.argv[1]))"


async def launch(run: str, make: Callable[[subprocess.Popen[bytes]], ChildT], setup: bytes) -> ChildT:
    """Start one and give it its first frame.

    :param run: see `code`.

    :raises OSError: the machine is out of processes or memory.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
    try:
        process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module; fork and exec take a millisecond
            [sys.executable, "-c", run, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the server, which ends us when it has finished
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    child = make(process)
    await asyncio.get_running_loop().create_unix_connection(lambda: child, sock=ours)
    child.write(setup)
    return child


# -- the child's end -------------------------------------------------------------------------------


def serve(descriptor: int, begin: Callable[[bytearray], Callable[[bytearray], bytes]]) -> None:
    """A child's whole life.

    :param begin: takes the setup, and gives what answers each frame.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sock = socket.socket(fileno=descriptor)
    frame = _read_frame(sock)
    if frame is None:
        return
    answer = begin(frame)
    said = b""  # ready
    while _write_frame(sock, said) and (frame := _read_frame(sock)) is not None:
        said = answer(frame)


def _read_frame(sock: socket.socket) -> bytearray | None:
    """None at the end of the stream: the server is gone, and so are we."""
    head = _read_exactly(sock, LENGTH.size)
    return None if head is None else _read_exactly(sock, LENGTH.unpack(head)[0])


def _write_frame(sock: socket.socket, frame: bytes) -> bool:
    """False: the server is gone."""
    try:
        sock.sendall(LENGTH.pack(len(frame)) + frame)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _read_exactly(sock: socket.socket, count: int) -> bytearray | None:
    data = bytearray(count)
    view = memoryview(data)
    while view.nbytes:
        got = sock.recv_into(view)
        if not got:
            return None
        view = view[got:]
    return data
