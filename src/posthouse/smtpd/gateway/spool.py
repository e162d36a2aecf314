"""Where the octets of a message are until it is whole: in memory while they are few, then in a
file without a name. All bodies share one budget of memory and one file system."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from posthouse.smtp.answers import simple
from posthouse.smtp.reply import Reply
from posthouse.smtpd.gateway import metrics
from posthouse.smtpd.gateway.options import Spooling

log = structlog.get_logger("gateway")

NO_ROOM = simple(452, "4.3.1", "No room for the message now; try again later")
_PREFIX, _SUFFIX = "posthouse-", ".spool"
_LOOK_EVERY = 1.0  # seconds between two looks at the file system
_THREADS = 2  # write files, so that a busy disk does not hold the loop
_MODE = 0o600


class Spool:
    """:raises OSError: the directory cannot be made or written to."""

    def __init__(self, options: Spooling) -> None:
        self.in_memory = options.in_memory
        self._directory = options.directory
        self._memory = options.memory
        self._least_free = options.least_free
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_stale()
        os.close(self.open())
        self._pool = ThreadPoolExecutor(_THREADS, "spool")
        self.used = 0
        self._free = 0
        self._looked = -_LOOK_EVERY

    @property
    def crowded(self) -> bool:
        """Memory for bodies is used up."""
        return self.used >= self._memory

    def refusal(self, size: int | None) -> Reply | None:
        """Whether a transaction may begin. :param size: as the client announced it."""
        if self.crowded:
            metrics.NO_ROOM.labels("memory").inc()
            return NO_ROOM
        if self._room() < max(1, size or 0):
            metrics.NO_ROOM.labels("disk").inc()
            return NO_ROOM
        return None

    def open(self) -> int:
        """A descriptor of a new file that no name leads to; it is gone when it is closed."""
        with suppress(OSError):  # some file systems have no O_TMPFILE
            return os.open(self._directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _MODE)
        path = self._directory / f"{_PREFIX}{secrets.token_hex(12)}{_SUFFIX}"
        found = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        path.unlink()
        return found

    def run(self, work: Callable[[], None]) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    def _room(self) -> int:
        """Octets that may still be written, not counting what others write."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            try:
                state = os.statvfs(self._directory)
                self._free = state.f_bavail * state.f_frsize - self._least_free
            except OSError as error:
                log.warning("gateway.spool_unusable", error=_name(error))
                self._free = -1
        return self._free

    def _remove_stale(self) -> None:
        """What a crash left between a file's making and its unlinking."""
        for path in self._directory.glob(f"{_PREFIX}*{_SUFFIX}"):
            path.unlink(missing_ok=True)


class Body:
    """One message on its way in.

    :param wake: called when `busy` has ended.
    """

    __slots__ = ("_counted", "_data", "_descriptor", "_spool", "_wake", "_writing", "failed", "size")

    def __init__(self, spool: Spool, wake: Callable[[], None]) -> None:
        self._spool = spool
        self._wake = wake
        self._data: bytes | bytearray = b""
        self._descriptor = -1
        self._writing: asyncio.Future[None] | None = None
        self._counted = 0  # octets that the budget knows of: in memory, or being written
        self.size = 0
        self.failed = False

    @property
    def busy(self) -> bool:
        """A write is on its way: feed no more, or it is kept in memory."""
        return self._writing is not None

    @property
    def spooled(self) -> bool:
        return self._descriptor >= 0

    def add(self, piece: bytes) -> None:
        if self.failed:
            return
        self.size += len(piece)
        self._count(len(piece))
        if not self._data:
            self._data = piece
        else:
            if type(self._data) is not bytearray:
                self._data = bytearray(self._data)  # small pieces would cost more than they hold
            self._data += piece
        if (len(self._data) > self._spool.in_memory or self._spool.crowded) and self._writing is None:
            self._spill()

    def whole(self) -> bytes:
        """The message, when it is in memory alone."""
        return bytes(self._data)

    async def mapped(self) -> mmap.mmap:
        """The message, when it is spooled: the rest is written, and all of it mapped.

        :raises OSError: it could not be written.
        """
        while self._writing is not None:
            await asyncio.wait([self._writing])  # `_written` has run when it returns
        if self._data and not self.failed:
            try:
                await self._spool.run(self._writer(self._take()))
            except OSError as error:
                self._fail(error)
            self._count(-self._counted)
        if self.failed:
            raise OSError(errno.EIO, "the message could not be spooled")
        return mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)

    def drop(self) -> None:
        """Give back memory and file. A map stays good until it is closed."""
        self.failed = True
        self._data = b""
        if self._writing is None:  # else `_written` comes back here
            self._count(-self._counted)
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _count(self, octets: int) -> None:
        self._counted += octets
        self._spool.used += octets

    def _take(self) -> bytes | bytearray:
        data, self._data = self._data, b""
        return data

    def _spill(self) -> None:
        try:
            if self._descriptor < 0:
                self._descriptor = self._spool.open()
                metrics.SPOOLED.inc()
        except OSError as error:
            self._fail(error)
            return
        self._writing = self._spool.run(self._writer(self._take()))
        self._writing.add_done_callback(self._written)

    def _writer(self, data: bytes | bytearray) -> Callable[[], None]:
        descriptor = self._descriptor

        def write() -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

        return write

    def _written(self, done: asyncio.Future[None]) -> None:
        self._writing = None
        error = None if done.cancelled() else done.exception()
        if self.failed:  # dropped meanwhile
            self.drop()
            return
        self._count(len(self._data) - self._counted)
        if error is not None:
            self._fail(error)
        elif len(self._data) > self._spool.in_memory:
            self._spill()
        self._wake()

    def _fail(self, error: BaseException) -> None:
        log.error("gateway.spool_failed", error=_name(error))
        metrics.NO_ROOM.labels("write").inc()
        self.failed = True
        self._data = b""
        self._count(-self._counted)


def _name(error: BaseException) -> str:
    return errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__)
