"""`open_search(url)`: the one place that maps a URL to a search index."""

from __future__ import annotations

from posthouse.storage.records.address import SqliteAddress, parse
from posthouse.storage.search.base import Search
from posthouse.storage.search.fts5 import Fts5Search


async def open_search(url: str, *, read_only: bool = False) -> Search:
    address = parse(url)
    if isinstance(address, SqliteAddress):
        return await Fts5Search.open(address.path, read_only=read_only)
    raise NotImplementedError
