"""One SQLite connection: how it is set up, what its errors mean, and the transaction over it.

Python's sqlite3 releases the GIL at every step of the engine and takes it again after. While
another thread runs Python, each such hand-over may cost up to the switch interval, so the
steps are counted: lists of rows are one statement (`sql.values`), and a SELECT that gave
many rows is read as one JSON text from then on (`sql.aggregated`).
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from posthouse import errors
from posthouse.storage.records import sql as sqltext
from posthouse.storage.records.base import Row, Value, Work

T = TypeVar("T")

_AGGREGATE_FROM = 8
"""Rows from which one JSON text is cheaper than a step for each."""

_BACKSTOP = 4
"""A log so many times as long as it should be is moved by the commit that finds it so."""

_ENGINE_TROUBLE = {
    sqlite3.SQLITE_BUSY: "the database is locked by another process",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_INTERRUPT: "the statement took too long",
    sqlite3.SQLITE_IOERR: "input/output error",
    sqlite3.SQLITE_CORRUPT: "the database file is corrupt",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_PROTOCOL: "locking failed",
    sqlite3.SQLITE_NOTADB: "the file is not a database",
    sqlite3.SQLITE_PERM: "no permission",
    sqlite3.SQLITE_AUTH: "no permission",
}

_rows_from_json = msgspec.json.Decoder(list[tuple[str | int | None, ...]]).decode


def translate(error: sqlite3.Error) -> Exception:
    """What a caller of the port sees. Wrong SQL stays what it is: our own mistake."""
    if isinstance(error, sqlite3.IntegrityError):
        return errors.Conflict(detail=str(error))
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _ENGINE_TROUBLE:
        return errors.StorageUnavailable(detail=f"SQLite: {_ENGINE_TROUBLE[code]} ({error})")
    return error


@dataclass(frozen=True, slots=True)
class Setup:
    """How connections to one file are opened."""

    path: Path
    busy_timeout: float
    """Seconds to wait for another process's lock."""
    checkpoint_pages: int
    """Pages in the log after which they are moved into the database file."""
    cache_bytes: int = 64 * 1024 * 1024
    journal_limit: int = 256 * 1024 * 1024
    """Bytes to which the log is cut after it grew past them."""


class Engine:
    """One connection, used only by the thread that made it."""

    __slots__ = ("_blobs", "_broken", "_connection", "_durable", "_setup", "_widths", "_writer", "tx")

    def __init__(self, setup: Setup, *, writer: bool) -> None:
        """:raises StorageUnavailable: the file cannot be opened or is no database."""
        self._widths: dict[str, int] = {}  # text → columns when aggregated, 0 when it cannot be
        self._blobs: dict[str, tuple[int, ...]] = {}  # text → those of them that gave bytes
        self._setup = setup
        self._writer = writer
        self.tx = SqliteTx(self)
        self._open()

    def _open(self) -> None:
        self._broken = False
        self._durable = True
        try:
            self._connection = _connect(self._setup, writer=self._writer)
        except sqlite3.Error as error:
            raise translate(error) from error

    def begin(self, *, immediate: bool, durable: bool = True) -> None:
        if self._broken:
            self._connection.close()
            self._open()
        try:
            if durable is not self._durable:
                self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._connection.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
        except sqlite3.Error as error:
            raise translate(error) from error

    def control(self, statement: str) -> None:
        """COMMIT, SAVEPOINT and the like."""
        try:
            self._connection.execute(statement)
        except sqlite3.Error as error:
            raise translate(error) from error

    def rollback(self) -> None:
        """Whatever state the connection is in: the engine may have rolled back by itself,
        and a connection that cannot is replaced before the next transaction."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._broken = True

    def interrupt(self) -> None:
        """From any thread: the running statement fails as one that took too long."""
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()

    def checkpoint(self) -> None:
        """Move what the log holds into the database file, as far as readers allow."""
        self.control("PRAGMA wal_checkpoint(PASSIVE)")

    def query(self, sql: str, params: Sequence[Value]) -> list[Row]:
        statement = sqltext.plain(sql)
        filled = sqltext.encode_lists(statement.lists, params)
        try:
            return self._fetch(statement.text, filled, aggregate=statement.reads)
        except sqlite3.Error as error:
            raise translate(error) from error

    def run(self, sql: str, params: Sequence[Value]) -> int:
        before = self._connection.total_changes
        self.query(sql, params)
        return self._connection.total_changes - before

    def spread(self, sql: str, rows: Sequence[Row], params: Sequence[Value]) -> list[Row]:
        statement = sqltext.spread(sql)
        width = len(statement.columns)
        most = sqltext.most_rows(width)
        found: list[Row] = []
        try:
            for start in range(0, len(rows), most):
                chunk = rows[start : start + most]
                size = sqltext.size_for(len(chunk), width)
                filled = sqltext.values_params(statement, size, chunk, params)
                found += self._fetch(sqltext.values(sql, size), filled, aggregate=statement.reads)
        except sqlite3.Error as error:
            raise translate(error) from error
        return found

    def run_spread(self, sql: str, rows: Sequence[Row], params: Sequence[Value]) -> int:
        before = self._connection.total_changes
        self.spread(sql, rows, params)
        return self._connection.total_changes - before

    def _fetch(self, text: str, params: Sequence[Any], *, aggregate: bool) -> list[Row]:
        if aggregate and self._widths.get(text):
            rows = self._fetch_aggregated(text, params)
            if rows is not None:
                return rows
        cursor = self._connection.execute(text, params)
        rows = cursor.fetchall()
        if aggregate and text not in self._widths and len(rows) >= _AGGREGATE_FROM:
            width = len(cursor.description)
            known = self._blobs.get(text, ())
            blobs = (i for i in range(width) if i in known or any(type(row[i]) is bytes for row in rows))
            self._blobs[text] = tuple(blobs)
            self._widths[text] = width
        return rows

    def _fetch_aggregated(self, text: str, params: Sequence[Any]) -> list[Row] | None:
        """None when the rows hold what JSON does not: floats to the last bit, or bytes where
        there were none so far (then the plain rows tell)."""
        blobs = self._blobs[text]
        try:
            (answer,) = self._connection.execute(sqltext.aggregated(text, self._widths[text], blobs), params).fetchone()
            rows: list[Row] = _rows_from_json(answer)  # type: ignore[assignment]
            return [_with_bytes(row, blobs) for row in rows] if blobs else rows
        except msgspec.ValidationError:
            self._widths[text] = 0
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            if "BLOB" in str(error):
                del self._widths[text]
            else:
                self._widths[text] = 0
        return None


def _with_bytes(row: Row, blobs: tuple[int, ...]) -> Row:
    values = list(row)
    for i in blobs:
        if values[i] is not None:
            values[i] = bytes.fromhex(values[i])
    return tuple(values)


class SqliteTx:
    """`base.Tx` over an engine. Its methods never suspend, so a thread drives the work."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def rows(self, sql: str, *params: Value) -> list[Row]:
        return self._engine.query(sql, params)

    async def row(self, sql: str, *params: Value) -> Row | None:
        rows = self._engine.query(sql, params)
        return rows[0] if rows else None

    async def run(self, sql: str, *params: Value) -> int:
        return self._engine.run(sql, params)

    async def each(self, sql: str, rows: Sequence[Row], *params: Value) -> list[Row]:
        return self._engine.spread(sql, rows, params)

    async def run_each(self, sql: str, rows: Sequence[Row], *params: Value) -> int:
        return self._engine.run_spread(sql, rows, params)


class LogIndex:
    """The WAL index of the database at `path`, read to learn how long the log is.

    Once opened it stays open: closing any descriptor of a file ends every lock that this
    process has on it, SQLite's too (fcntl(2)), and the next process to open the database
    would take the index for abandoned and empty it under our feet.
    """

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: Path) -> None:
        self._path = f"{path}-shm"
        self._descriptor: int | None = None

    def pages(self) -> int:
        """Pages in the log: `mxFrame`, the 32 bits at offset 16 (sqlite.org/walformat.html
        §2.1). 0 when there is no log."""
        try:
            if self._descriptor is not None and not os.fstat(self._descriptor).st_nlink:
                self.close()
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return int.from_bytes(os.pread(self._descriptor, 4, 16), sys.byteorder)
        except OSError:
            return 0

    def close(self) -> None:
        """For when no connection of this process is open, or the file is gone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def drive(work: Work[T], tx: SqliteTx) -> T:
    """Run the work to its end in this thread.

    :raises RuntimeError: it awaited something besides its transaction.
    """
    steps = work(tx).__await__()
    try:
        next(steps)
    except StopIteration as stop:
        return stop.value
    close = getattr(steps, "close", None)
    if close is not None:
        close()
    raise RuntimeError("the work of a transaction may await only its transaction")


def _connect(setup: Setup, *, writer: bool) -> sqlite3.Connection:
    mode = "rw" if writer else "ro"
    connection = sqlite3.connect(
        f"{setup.path.as_uri()}?mode={mode}",
        uri=True,
        timeout=setup.busy_timeout,
        isolation_level=None,
        cached_statements=256,
    )
    try:
        for pragma in _pragmas(setup, writer=writer):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _pragmas(setup: Setup, *, writer: bool) -> list[str]:
    shared = [
        f"cache_size=-{setup.cache_bytes // 1024 // (1 if writer else 4)}",
        "temp_store=MEMORY",
        "foreign_keys=OFF",
        "trusted_schema=OFF",
    ]
    if not writer:
        return [*shared, "query_only=ON"]
    return [
        "journal_mode=WAL",
        *shared,
        "synchronous=FULL",
        f"wal_autocheckpoint={setup.checkpoint_pages * _BACKSTOP}",
        f"journal_size_limit={setup.journal_limit}",
        "secure_delete=FAST",
    ]
