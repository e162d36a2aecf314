"""The upgrade itself, by Alembic: imported only when a schema is not at its head (`run.py`)."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg
import sqlalchemy as sa
import structlog
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from posthouse import errors
from posthouse.storage.records.address import PostgresAddress, SqliteAddress
from posthouse.storage.records.migrations.postgres import CONNECT_TIMEOUT
from posthouse.storage.records.migrations.revision import VERSIONS, head
from posthouse.storage.records.postgres_hosts import Hosts

_LOCK = 0x706F7374_686F7573
"""Advisory lock of PostgreSQL that one upgrade at a time holds ("posthous")."""

log = structlog.get_logger("migration")

_running: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def _one_at_a_time() -> asyncio.Lock:
    """Alembic's `op` is one for the whole process: two upgrades at once would use each other's connection."""
    return _running.setdefault(asyncio.get_running_loop(), asyncio.Lock())


async def upgrade(address: SqliteAddress | PostgresAddress) -> str:
    """As `run.migrate`, whatever revision it is at."""
    try:
        async with _one_at_a_time():
            if isinstance(address, SqliteAddress):
                return await asyncio.to_thread(_migrate_sqlite, address)
            return await _migrate_postgres(address)
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise errors.StorageUnavailable(detail=f"migration: {error}") from error


def scripts() -> ScriptDirectory:
    return ScriptDirectory(str(VERSIONS.parent), version_locations=[str(VERSIONS)])


def _upgrade(connection: sa.Connection) -> str:
    known = scripts()
    newest = head()
    current = MigrationContext.configure(connection).get_current_revision()
    if current == newest:
        return newest
    if current is not None and current not in {script.revision for script in known.walk_revisions()}:
        if _floor(connection) <= newest:
            log.warning("schema_is_newer", schema=current, known=newest)
            return newest
        raise errors.Misconfigured(
            f"the database has schema {current}, and this release ({newest}) is too old for it;"
            " install the release that made it",
            code="schema_too_new",
        )

    def steps(revision: Any, _context: MigrationContext) -> Any:
        return known._upgrade_revs(newest, revision)  # pyright: ignore[reportPrivateUsage] - as Alembic's own commands do

    with EnvironmentContext(Config(), known, fn=steps, destination_rev=newest) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
    return newest


def _floor(connection: sa.Connection) -> str:
    """The oldest revision whose code works on this schema; revisions sort as text."""
    if not sa.inspect(connection).has_table("schema_floor"):
        return "9999"
    return str(connection.execute(sa.text("SELECT max(revision) FROM schema_floor")).scalar())


def _migrate_sqlite(address: SqliteAddress) -> str:
    address.create()
    engine = sa.create_engine(f"sqlite:///{address.path}", poolclass=sa.NullPool)

    # The driver must not open and close transactions by itself around DDL.
    @event.listens_for(engine, "connect")
    def _autocommit(connection: Any, _record: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        with engine.begin() as connection:
            return _upgrade(connection)
    finally:
        engine.dispose()


async def _migrate_postgres(address: PostgresAddress) -> str:
    hosts = Hosts(address, writes=True)
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=sa.NullPool,
        async_creator=lambda: hosts.connect(timeout=CONNECT_TIMEOUT),
    )
    try:
        async with engine.begin() as connection:
            await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            return await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()
