"""`open_records(url)`: the one place that maps a URL to an engine."""

from __future__ import annotations

from posthouse.storage.records.address import Holder, SqliteAddress, parse
from posthouse.storage.records.base import Records
from posthouse.storage.records.sqlite import SqliteRecords


async def open_records(
    url: str,
    *,
    exclusive: Holder | None = None,
    read_only: bool = False,
    connections: int = 10,
    wait: float = 5.0,
    statement_timeout: float = 30.0,
) -> Records:
    """
    :param url: `sqlite:///relative/path`, `sqlite:////absolute/path`, `postgresql://…`.
    :param exclusive: SQLite: who opens it so; refused while another process has it.
    :param read_only: writes raise StorageUnavailable.
    :param connections: PostgreSQL: at most so many.
    :param wait: seconds to wait for a lock (SQLite) or a connection (PostgreSQL).
    :param statement_timeout: PostgreSQL: seconds after which the server ends a statement.
    :raises Misconfigured: the URL is wrong, or another process owns the database.
    :raises StorageUnavailable: SQLite: the file cannot be opened.
    """
    address = parse(url)
    if isinstance(address, SqliteAddress):
        return await SqliteRecords.open(address, exclusive=exclusive, read_only=read_only, busy_timeout=wait)
    # Only where it is used, as its driver.
    from posthouse.storage.records.postgres import PostgresRecords  # noqa: PLC0415

    return await PostgresRecords.open(
        address,
        read_only=read_only,
        connections=connections,
        connect_timeout=wait,
        statement_timeout=statement_timeout,
    )
