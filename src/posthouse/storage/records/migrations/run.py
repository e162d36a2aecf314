"""Bring a database to the newest schema: `migrate(url)`.

Nearly every start finds the schema at its head already. So its revision is read first, and only
another one is worth the CPU that importing SQLAlchemy and Alembic takes: most of a second.
"""

from __future__ import annotations

import asyncio

from posthouse.storage.records.address import SqliteAddress, parse
from posthouse.storage.records.migrations.revision import head, of_sqlite

__all__ = ["head", "migrate"]


async def migrate(url: str) -> str:
    """Upgrade and return the revision reached; at the newest already, nothing is written. A
    schema of a later release is left as it is, when this release's code works on it
    (`schema_floor`): so processes of two releases run beside each other during an upgrade.

    :raises StorageUnavailable: the database is away, locked, or not a database.
    :raises Misconfigured: the URL is wrong, or the schema is newer than this release.
    """
    address = parse(url)
    if isinstance(address, SqliteAddress):
        found = await asyncio.to_thread(of_sqlite, address)
    else:
        from posthouse.storage.records.migrations.postgres import revision  # noqa: PLC0415 - asyncpg where it is asked

        found = await revision(address)
    if found == (newest := head()):
        return newest
    from posthouse.storage.records.migrations.upgrade import upgrade  # noqa: PLC0415 - see above

    return await upgrade(address)
