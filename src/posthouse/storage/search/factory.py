"""`open_search(url)`: the one place that maps a URL to a search index."""

from __future__ import annotations

from pathlib import Path

from posthouse.storage.records.address import SqliteAddress, parse
from posthouse.storage.search.base import Search
from posthouse.storage.search.fts5 import Fts5Search

FILE = "search.db"


async def open_search(url: str, *, read_only: bool = False) -> Search:
    """
    :param url: `sqlite:///relative/search.db` or `sqlite:////absolute/search.db`, a file of
        its own; or the records' `postgresql://…`, whose migration makes the tables; or OpenSearch's
        `http(s)://[user:password@]host[:port][/index][?shards=…&replicas=…]`, which may be away.
    :param read_only: for commands beside a `serve`; changes raise StorageUnavailable.
    :raises Misconfigured: the URL is wrong.
    :raises StorageUnavailable: `search_unavailable`: the file cannot be opened.
    """
    if url.startswith(("http://", "https://")):
        # Here, since its client takes longer to import than all the rest of a command.
        from posthouse.storage.search.opensearch import OpenSearch, parse_address  # noqa: PLC0415

        return OpenSearch(parse_address(url), read_only=read_only)
    address = parse(url)
    if isinstance(address, SqliteAddress):
        return await Fts5Search.open(address.path, read_only=read_only)
    # Only where it is used, as its driver.
    from posthouse.storage.search.postgres import PostgresSearch  # noqa: PLC0415

    return await PostgresSearch.open(address, read_only=read_only)


def where(search_url: str, records_url: str) -> str:
    """The index's URL by both settings. :raises Misconfigured: one is wrong."""
    return beside(records_url) if search_url.startswith("records:") else search_url


def beside(records_url: str) -> str:
    """The URL of the index that belongs to these records: `search.db` in the database's
    directory, or the same PostgreSQL.

    :raises Misconfigured: the URL is wrong.
    """
    address = parse(records_url)
    if isinstance(address, SqliteAddress):
        return f"sqlite:///{Path(address.path).with_name(FILE)}"
    return address.url
