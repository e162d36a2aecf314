"""Records on PostgreSQL: a pool of connections, a transaction a piece of work.

Connections are made when needed and made again when they were lost, so a server that went
away and came back needs nothing from us. A transaction that fails to begin because its
connection had died is begun once more on another; one that loses a race (serialization
failure, deadlock) runs again after a short random wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg

from posthouse import errors
from posthouse.storage.records import sql as sqltext
from posthouse.storage.records.address import PostgresAddress
from posthouse.storage.records.base import Capabilities, Row, Tx, Value, Work
from posthouse.storage.records.postgres_hosts import Hosts

T = TypeVar("T")

_ATTEMPTS = 6
_FIRST_WAIT = 0.005  # seconds, doubled each time
_ROWS_AT_MOST = 10_000
"""Rows in one statement's arrays."""

_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_WRITE = "BEGIN"
_BEGIN_RELAXED = "BEGIN; SET LOCAL synchronous_commit = off"

# SQLSTATE classes and codes (PostgreSQL, appendix A) that say the server cannot serve us now.
_UNAVAILABLE_CLASSES = frozenset(
    {
        "08",  # connection
        "28",  # not let in
        "3D",  # no such database
        "53",  # disk full, out of memory, too many connections
        "57",  # shutting down, starting up, canceled by statement_timeout
        "58",  # input/output
        "XX",  # corrupt
    }
)
_READ_ONLY = "25006"
_UNAVAILABLE = frozenset({_READ_ONLY, "25P03", "55P03"})  # read-only, idle too long, lock_timeout
_AGAIN = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_NOT_TEXT = frozenset({"22021", "22P05"})  # NUL, or not in the server's encoding
_PLANS = {
    # Every statement of ours is a look-up by a key. A plan that was made while a table was
    # empty stays in the connection, and must not be a walk when the table has grown.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


class _LostRaceError(Exception):
    """The transaction may run again from its start."""


class PostgresTx:
    """`base.Tx` over a connection in a transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def rows(self, sql: str, *params: Value) -> list[Row]:
        return [tuple(row) for row in await self._connection.fetch(sql, *params)]

    async def row(self, sql: str, *params: Value) -> Row | None:
        row = await self._connection.fetchrow(sql, *params)
        return None if row is None else tuple(row)

    async def run(self, sql: str, *params: Value) -> int:
        return _touched(await self._connection.execute(sql, *params))

    async def each(self, sql: str, rows: Sequence[Row], *params: Value) -> list[Row]:
        found: list[Row] = []
        for text, arguments in _chunks(sql, rows, params):
            found += [tuple(row) for row in await self._connection.fetch(text, *arguments)]
        return found

    async def run_each(self, sql: str, rows: Sequence[Row], *params: Value) -> int:
        touched = 0
        for text, arguments in _chunks(sql, rows, params):
            touched += _touched(await self._connection.execute(text, *arguments))
        return touched


def _chunks(sql: str, rows: Sequence[Row], params: Sequence[Value]) -> list[tuple[str, list[Any]]]:
    """The statement's text and arguments, once for every `_ROWS_AT_MOST` rows."""
    text, width = sqltext.unnested(sql)
    chunks: list[tuple[str, list[Any]]] = []
    for start in range(0, len(rows), _ROWS_AT_MOST):
        columns = list(zip(*rows[start : start + _ROWS_AT_MOST], strict=True))
        if len(columns) != width:
            raise ValueError(f"rows of {len(columns)} values for {width} columns")
        chunks.append((text, [*params, *columns]))
    return chunks


def _touched(status: str) -> int:
    """`INSERT 0 5`, `UPDATE 5`: 5."""
    count = status.rsplit(" ", 1)[-1]
    return int(count) if count.isdigit() else 0


class PostgresRecords:
    """`base.Records` over a pool. Made by `open`."""

    def __init__(self, pool: Any, *, timeout: float, read_only: bool) -> None:
        self.capabilities = Capabilities(engine="postgresql", exclusive=False, concurrent_writes=True)
        self._pool = pool
        self._timeout = timeout
        self._read_only = read_only

    @classmethod
    async def open(
        cls,
        address: PostgresAddress,
        *,
        read_only: bool = False,
        connections: int = 10,
        connect_timeout: float = 10.0,
        statement_timeout: float = 30.0,
    ) -> PostgresRecords:
        """Connects at the first use, so it opens while the server is down.

        :param connections: at most so many at once.
        :param connect_timeout: seconds to connect, and to wait for a free connection.
        :param statement_timeout: seconds after which the server ends a statement.
        :raises Misconfigured: the URL cannot be understood.
        """
        settings = {
            "application_name": "posthouse",
            "statement_timeout": f"{statement_timeout:.3f}s",
            "lock_timeout": f"{statement_timeout / 2:.3f}s",
            "idle_in_transaction_session_timeout": f"{2 * statement_timeout:.3f}s",
            **_PLANS,
        }
        if read_only:
            settings["default_transaction_read_only"] = "on"
        hosts = Hosts(address, writes=not read_only)
        try:
            pool = asyncpg.create_pool(
                address.url,
                connect=hosts.connect,
                min_size=0,
                max_size=connections,
                timeout=connect_timeout,
                command_timeout=statement_timeout + 5.0,
                statement_cache_size=512,
                max_cached_statement_lifetime=0,
                max_queries=1_000_000,
                server_settings=settings,
                reset=_nothing_to_reset,
            )
            await pool
        except (ValueError, asyncpg.ClientConfigurationError) as error:
            raise errors.Misconfigured("the records URL cannot be understood", code="records_url") from error
        return cls(pool, timeout=connect_timeout, read_only=read_only)

    async def read(self, work: Work[T]) -> T:
        return await self._again(lambda: self._transaction(work, _BEGIN_READ))

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        begin = _BEGIN_WRITE if durable else _BEGIN_RELAXED
        return await self._again(lambda: self._transaction(work, begin))

    async def ready(self) -> None:
        await self.write(_look if self._read_only else _assign_id, durable=False)

    async def close(self) -> None:
        """Waits for what runs, up to the time to connect; then connections are cut."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def _again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for n in range(_ATTEMPTS):
            try:
                return await attempt()
            except _LostRaceError as race:
                if n == _ATTEMPTS - 1:
                    raise errors.StorageUnavailable(detail=f"PostgreSQL: {race.__cause__}") from race
            await asyncio.sleep(_FIRST_WAIT * 2**n * (0.5 + random.random()))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    async def _transaction(self, work: Work[T], begin: str) -> T:
        connection = await self._begun(begin)
        try:
            result = await work(PostgresTx(connection))
            await connection.execute("COMMIT")
        except Exception as error:
            if getattr(error, "sqlstate", None) == _READ_ONLY and not self._read_only:
                _terminate(connection)  # it was the primary once: the next connection asks anew
            else:
                await _roll_back(connection)
            raise _translate(error, connection) from error
        except BaseException:
            _terminate(connection)  # canceled in mid-statement: what it is doing is unknown
            raise
        finally:
            await self._release(connection)
        return result

    async def _begun(self, begin: str) -> Any:
        """A connection in a transaction. One that died while it lay in the pool shows here,
        before anything has happened, so others are tried: all may have died at once."""
        last: Exception | None = None
        for _ in range(self._pool.get_max_size() + 1):
            try:
                connection = await self._pool.acquire(timeout=self._timeout)
            except Exception as error:
                raise _translate(error, None) from error
            try:
                await connection.execute(begin)
            except BaseException as error:
                state = str(getattr(error, "sqlstate", None) or "")
                lost = isinstance(error, Exception) and (_is_closed(connection) or state[:2] in ("08", "57"))
                _terminate(connection)
                await self._release(connection)
                if not lost:
                    raise (_translate(error, connection) if isinstance(error, Exception) else error) from error
                last = error  # type: ignore[assignment]
            else:
                return connection
        raise errors.StorageUnavailable(detail=f"PostgreSQL: {last}")

    async def _release(self, connection: Any) -> None:
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await self._pool.release(connection)


async def _nothing_to_reset(_connection: Any) -> None:
    """The session's state is never changed, so the round trip that resets it is spared."""


async def _look(tx: Tx) -> None:
    await tx.row("SELECT 1")


async def _assign_id(tx: Tx) -> None:
    """Fails where writes would: an id is assigned on no standby."""
    row = await tx.row("SELECT pg_current_xact_id()::text, current_setting('transaction_read_only')")
    if row is None or row[1] == "on":
        raise errors.StorageUnavailable(detail="PostgreSQL: the server is read-only")


def _is_closed(connection: Any) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken it back because it was lost
        return True


async def _roll_back(connection: Any) -> None:
    if _is_closed(connection):
        return
    try:
        await connection.execute("ROLLBACK")
    except Exception:
        _terminate(connection)


def _terminate(connection: Any) -> None:
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


def _translate(error: Exception, connection: Any) -> Exception:
    """What a caller of the port sees; a work's own error and wrong SQL stay what they are."""
    if isinstance(error, errors.Error):
        return error
    state = str(getattr(error, "sqlstate", None) or "")
    if state in _AGAIN:
        race = _LostRaceError()
        race.__cause__ = error
        return race
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return errors.Conflict(detail=str(error))
    if state in _NOT_TEXT:
        return errors.Invalid("a text holds a character that cannot be stored", detail=str(error))
    away = (
        state[:2] in _UNAVAILABLE_CLASSES
        or state in _UNAVAILABLE
        or (connection is not None and _is_closed(connection))
        or (connection is None and isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError))
        or isinstance(error, OSError | TimeoutError | ConnectionError)
    )
    if away:
        return errors.StorageUnavailable(detail=f"PostgreSQL: {type(error).__name__}: {error}")
    return error
