"""Records on SQLite: one writer thread with group commit, a few reader threads.

Writes that wait while a commit is on its way to the disk share the next one: the writer
takes all that wait (up to `GROUP_AT_MOST`), runs them one after the other in one
transaction, commits once, then answers all. A work that fails must not hurt its group; a
savepoint around each would cost every work two statements, so the group runs without, and
only when one fails is it rolled back and run again, then with savepoints.

Moving the log into the database file takes an fsync of that file, which no writer should
wait for. A thread beside the writer does it, and the writer then moves only what came in
meanwhile, so that the log can begin anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from posthouse import errors
from posthouse.storage.records.address import Holder, SqliteAddress
from posthouse.storage.records.base import Capabilities, Tx, Work
from posthouse.storage.records.sqlite_engine import Engine, LogIndex, Setup, drive

T = TypeVar("T")

GROUP_AT_MOST = 256
WAITING_AT_MOST = 20_000
_LOOK_SECONDS = 0.1
"""Between looks at the log's length and at what runs."""
_CAREFUL_GROUPS = 64
"""After a failed work, so many groups run with savepoints: failures come in bursts."""


@dataclass(slots=True)
class _Request:
    work: Work[Any]
    durable: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


def _resolve(requests: list[_Request]) -> None:
    for request in requests:
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.result)


def _answer(requests: list[_Request]) -> None:
    """One wake-up of each loop for all; a loop that is closed has nobody waiting."""
    if not requests:
        return
    loop = requests[0].loop
    here = [request for request in requests if request.loop is loop]
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_resolve, here)
    if len(here) < len(requests):
        _answer([request for request in requests if request.loop is not loop])


class _Worker(ABC):
    """A thread with a connection of its own, fed by a queue; None in the queue ends it."""

    def __init__(self, name: str, waiting: SimpleQueue[_Request | None], open_engine: Callable[[], Engine]) -> None:
        self.opened: Future[None] = Future()
        self._waiting = waiting
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self._busy_since = 0.0  # monotonic; 0: idle
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _main(self) -> None:
        try:
            engine = self._open_engine()
        except BaseException as error:
            self.opened.set_exception(error)
            return
        self._engine = engine
        self.opened.set_result(None)
        try:
            self._serve(engine)
        finally:
            engine.close()

    @abstractmethod
    def _serve(self, engine: Engine) -> None: ...

    def interrupt_after(self, seconds: float) -> None:
        """From another thread: end what has run for longer."""
        since = self._busy_since
        if since and self._engine is not None and time.monotonic() - since > seconds:
            self._engine.interrupt()


class _Reader(_Worker):
    def _serve(self, engine: Engine) -> None:
        while (request := self._waiting.get()) is not None:
            if not request.future.cancelled():
                self._read(engine, request)
                _answer([request])
            del request

    def _read(self, engine: Engine, request: _Request) -> None:
        self._busy_since = time.monotonic()
        try:
            engine.begin(immediate=False)
            request.result = drive(request.work, engine.tx)
            engine.control("COMMIT")
        except BaseException as error:
            request.error = error
            engine.rollback()
        finally:
            self._busy_since = 0.0


class _Keeper(_Worker):
    """Empties the log while the writer goes on writing, then has the writer move the rest;
    and ends what runs for too long."""

    def __init__(self, setup: Setup, writer: _Writer, readers: list[_Reader], seconds: float) -> None:
        super().__init__("records-keeper", SimpleQueue(), lambda: Engine(setup, writer=True))
        self._most = setup.checkpoint_pages
        self.log = LogIndex(setup.path)
        self._writer = writer
        self._watched = [writer, *readers]
        self._seconds = seconds

    def end(self) -> None:
        self._waiting.put(None)
        _join(self)

    def _serve(self, engine: Engine) -> None:
        while not self._ended():
            for worker in self._watched:
                worker.interrupt_after(self._seconds)
            if self.log.pages() < self._most:
                continue
            with contextlib.suppress(errors.StorageUnavailable):  # the next write will say so
                engine.checkpoint()
                engine.checkpoint()  # what came meanwhile: the writer, who waits for the rest, finds little
            self._writer.checkpoint_due = True

    def _ended(self) -> bool:
        try:
            return self._waiting.get(timeout=_LOOK_SECONDS) is None
        except Empty:
            return False


class _Writer(_Worker):
    """`commits` counts transactions, for metrics and tests."""

    commits = 0
    checkpoint_due = False
    _careful = 0

    def _serve(self, engine: Engine) -> None:
        more = True
        while more:
            group, more = self._next_group()
            group = [request for request in group if not request.future.cancelled()]
            if self.checkpoint_due:
                self.checkpoint_due = False
                with contextlib.suppress(errors.StorageUnavailable):
                    engine.checkpoint()
            if group:
                self._commit(engine, group)
                _answer(group)
            del group

    def _next_group(self) -> tuple[list[_Request], bool]:
        """All that wait; False once the queue has ended."""
        group: list[_Request] = []
        request = self._waiting.get()
        while request is not None:
            group.append(request)
            if len(group) == GROUP_AT_MOST:
                return group, True
            try:
                request = self._waiting.get_nowait()
            except Empty:
                return group, True
        return group, False

    def _commit(self, engine: Engine, group: list[_Request]) -> None:
        alone = len(group) == 1
        if not alone and not self._careful and self._attempt(engine, group, savepoints=False):
            return
        self._careful = max(0, self._careful - 1)
        self._attempt(engine, group, savepoints=not alone)

    def _attempt(self, engine: Engine, group: list[_Request], *, savepoints: bool) -> bool:
        """One transaction over the group. False: a work failed, all is rolled back, and the
        group is to be run again with savepoints (or, alone, it has its error)."""
        self._busy_since = time.monotonic()
        try:
            engine.begin(immediate=True, durable=any(request.durable for request in group))
            for request in group:
                if not self._run(engine, request, savepoint=savepoints):
                    engine.rollback()
                    self._careful = _CAREFUL_GROUPS if len(group) > 1 else self._careful
                    return False
            engine.control("COMMIT")
            self.commits += 1
        except BaseException as error:
            # Whatever it was, nothing is committed, and the thread must live to say so.
            engine.rollback()
            detail = error.detail if isinstance(error, errors.Error) else repr(error)
            for request in group:
                request.error = errors.StorageUnavailable(detail=detail)
        finally:
            self._busy_since = 0.0
        return True

    @staticmethod
    def _run(engine: Engine, request: _Request, *, savepoint: bool) -> bool:
        """:raises StorageUnavailable: the engine failed, so the whole transaction has."""
        request.result, request.error = None, None
        if savepoint:
            engine.control("SAVEPOINT work")
        try:
            request.result = drive(request.work, engine.tx)
        except errors.StorageUnavailable:
            raise
        except BaseException as error:
            request.error = error
            if not savepoint:
                return False
            engine.control("ROLLBACK TO work")
        if savepoint:
            engine.control("RELEASE work")
        return True


class SqliteRecords:
    """`base.Records` over one file. Made by `open`."""

    def __init__(
        self,
        *,
        writer: _Writer | None,
        keeper: _Keeper | None,
        readers: list[_Reader],
        queues: _Queues,
        lock: int | None,
    ) -> None:
        self.capabilities = Capabilities(engine="sqlite", exclusive=lock is not None, concurrent_writes=False)
        self._writer = writer
        self._keeper = keeper
        self._readers = readers
        self._queues = queues
        self._lock = lock
        self._closed = False

    @classmethod
    async def open(
        cls,
        address: SqliteAddress,
        *,
        exclusive: Holder | None = None,
        read_only: bool = False,
        readers: int = 3,
        busy_timeout: float = 5.0,
        statement_timeout: float = 30.0,
        checkpoint_pages: int = 16000,
    ) -> SqliteRecords:
        """
        :param exclusive: who holds `<path>.lock` until closed.
        :param read_only: for commands beside a `serve`; writes raise StorageUnavailable.
        :param busy_timeout: seconds to wait for another process's transaction.
        :param statement_timeout: seconds after which a read or a group of writes is ended.
        :raises Misconfigured: another process holds the lock, or the path cannot be made.
        :raises StorageUnavailable: the file cannot be opened.
        """
        lock = await asyncio.to_thread(_prepare, address, exclusive=exclusive, read_only=read_only)
        setup = Setup(address.path, busy_timeout, checkpoint_pages)
        queues = _Queues(SimpleQueue(), SimpleQueue())
        writer = keeper = None
        if not read_only:
            writer = _Writer("records-writer", queues.writes, lambda: Engine(setup, writer=True))
        pool = [
            _Reader(f"records-reader-{i}", queues.reads, lambda: Engine(setup, writer=False)) for i in range(readers)
        ]
        if writer is not None:
            keeper = _Keeper(setup, writer, pool, statement_timeout)
        records = cls(writer=writer, keeper=keeper, readers=pool, queues=queues, lock=lock)
        try:
            # The writer first: it turns the log on, which readers need.
            for worker in filter(None, [writer, keeper, *pool]):
                worker.start()
                await asyncio.wrap_future(worker.opened)
        except BaseException:
            await records.close()
            raise
        return records

    @property
    def commits(self) -> int:
        """Transactions committed so far; fewer than writes when they share."""
        return self._writer.commits if self._writer else 0

    async def read(self, work: Work[T]) -> T:
        return await self._submit(self._queues.reads, work, durable=False)

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        if self._writer is None:
            raise errors.StorageUnavailable(detail="SQLite: opened read-only")
        return await self._submit(self._queues.writes, work, durable=durable)

    async def _submit(self, queue: SimpleQueue[_Request | None], work: Work[T], *, durable: bool) -> T:
        if self._closed:
            raise errors.StorageUnavailable(detail="SQLite: closed")
        if queue.qsize() >= WAITING_AT_MOST:
            raise errors.StorageUnavailable(detail=f"SQLite: {WAITING_AT_MOST} transactions wait", retry_after=1.0)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        queue.put(_Request(work, durable, loop, future))
        return await future

    async def ready(self) -> None:
        if self._writer is None:
            await self.read(_look)
        else:
            await self.write(_touch, durable=False)

    async def close(self) -> None:
        """What waits is finished first. Again is fine."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        # Readers first: the last connection to close, the writer's, empties the log.
        for _ in self._readers:
            self._queues.reads.put(None)
        for reader in self._readers:
            _join(reader)
        if self._keeper is not None:
            self._keeper.end()
        if self._writer is not None:
            self._queues.writes.put(None)
            _join(self._writer)
        if self._keeper is not None:
            self._keeper.log.close()
        if self._lock is not None:
            os.close(self._lock)


@dataclass(frozen=True, slots=True)
class _Queues:
    reads: SimpleQueue[_Request | None]
    writes: SimpleQueue[_Request | None]


def _join(worker: _Worker) -> None:
    with contextlib.suppress(RuntimeError):  # never started
        worker.join()


async def _look(tx: Tx) -> None:
    await tx.row("SELECT count(*) FROM sqlite_schema")


async def _touch(tx: Tx) -> None:
    """Dirties one page, so that a full or a read-only disk shows; nothing uses the number."""
    await tx.run("PRAGMA user_version = 1")


def _prepare(address: SqliteAddress, *, exclusive: Holder | None, read_only: bool) -> int | None:
    """The file, and the lock when it is asked for."""
    if read_only:
        return None
    address.create()
    return address.lock(exclusive) if exclusive is not None else None
