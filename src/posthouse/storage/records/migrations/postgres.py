"""The revision of a schema on PostgreSQL, read with asyncpg alone."""

from __future__ import annotations

import asyncpg

from posthouse import errors
from posthouse.storage.records.address import PostgresAddress
from posthouse.storage.records.migrations.revision import READ
from posthouse.storage.records.postgres_hosts import Hosts

CONNECT_TIMEOUT = 10.0


async def revision(address: PostgresAddress) -> str | None:
    """None: the database has no schema of ours.

    :raises StorageUnavailable: it is away.
    """
    try:
        connection = await Hosts(address, writes=True).connect(timeout=CONNECT_TIMEOUT)
        try:
            return await connection.fetchval(READ, timeout=CONNECT_TIMEOUT)
        except asyncpg.UndefinedTableError:
            return None
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise errors.StorageUnavailable(detail=f"migration: {error}") from error
