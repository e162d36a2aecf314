"""`open_records(url)`: the one place that maps a URL to an engine."""

from __future__ import annotations

from posthouse.storage.records.address import SqliteAddress, parse
from posthouse.storage.records.base import Records
from posthouse.storage.records.sqlite import SqliteRecords


async def open_records(
    url: str,
    *,
    exclusive: bool = False,
    read_only: bool = False,
) -> Records:
    address = parse(url)
    assert isinstance(address, SqliteAddress)
    return await SqliteRecords.open(address, exclusive=exclusive, read_only=read_only)
