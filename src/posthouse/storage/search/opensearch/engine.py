"""The port on OpenSearch. Made by `open`, which asks nothing of the server: it may be away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from posthouse.storage.search import base
from posthouse.storage.search.base import (
    LIMIT_AT_MOST,
    Capabilities,
    Doc,
    Page,
    Size,
    parse_position,
    position,
    unavailable,
)
from posthouse.storage.search.opensearch import answers, bulk, dsl
from posthouse.storage.search.opensearch.address import Address
from posthouse.storage.search.opensearch.arrangement import Arrangement
from posthouse.storage.search.opensearch.client import Client, Refused
from posthouse.storage.search.opensearch.refreshing import Refreshing
from posthouse.storage.search.opensearch.writing import Writing
from posthouse.storage.search.prepare import batches, prepare
from posthouse.storage.search.query import Node, Query

log = structlog.get_logger("search")

_COUNTED = 1000
"""Matches up to which a page tells their total."""
_ANSWER = "timed_out,hits.total,hits.hits.sort"


class OpenSearch:
    """`base.Search`."""

    capabilities = Capabilities(engine="opensearch", batch=500, gapless=True)

    def __init__(self, address: Address, *, read_only: bool = False) -> None:
        """:raises Misconfigured: the file of certificates cannot be read."""
        self._client = Client(address)
        self._arrangement = Arrangement(self._client, address)
        self._writing = Writing(self._client, self._arrangement)
        self._refreshing = Refreshing(self._client, self._arrangement)
        self._read_only = read_only

    async def index(self, docs: Sequence[Doc]) -> int:
        found = batches(docs)
        self._check_writable()
        added = 0
        for batch in found:
            added += await self._writing.add([bulk.creation(each) for each in await prepare(batch)])
            await self._refreshing()
        return added

    async def remove(self, account: str, emails: Sequence[str]) -> None:
        self._check_writable()
        known = [email for email in dict.fromkeys(emails) if email.isprintable() and len(email) <= 150]
        if known and account.isprintable():
            await self._writing.remove([bulk.deletion(account, email) for email in known])
            await self._refreshing()

    async def query(self, account: str, query: Query, *, limit: int = 50, before: str | None = None) -> Page:
        start = parse_position(before) if before is not None else None
        if query.root is None or not account.isprintable():
            return Page((), total=0)
        most = max(1, min(limit, LIMIT_AT_MOST))
        try:
            async with asyncio.timeout(base.SECONDS_AT_MOST):
                answer = await self._search(account, query.root, most + 1, start)
        except TimeoutError:
            raise unavailable("the query took too long") from None
        return _page(answers.read(answer, answers.Found), most, first=start is None)

    async def clear(self) -> None:
        self._check_writable()
        await self._arrangement.begin()

    async def rebuilt(self) -> None:
        self._check_writable()
        await self._arrangement.finish()

    async def size(self) -> Size:
        state = await self._arrangement.looked(make=not self._read_only)
        number = state.due[0] if state.due is not None else state.read
        if number is None:
            raise unavailable("OpenSearch: there is no index")
        name = self._arrangement.layout.index(number)
        await self._client.call("POST", f"/{name}/_refresh", params={"filter_path": "_none"})
        answer = await self._client.call("GET", f"/{name}/_stats/docs,store", params={"filter_path": "_all.primaries"})
        counted = answers.read(answer, answers.Stats).every.primaries
        why = state.due[1] if state.due is not None else None
        return Size(counted.docs.count, counted.docs.deleted, counted.store.size_in_bytes, why)

    async def ready(self) -> None:
        if not (await self._arrangement.looked(make=not self._read_only)).whole:
            raise unavailable("OpenSearch: there is no index")
        path = f"/_cluster/health/{self._arrangement.layout.read}"
        answer = await self._client.call("GET", path, params={"filter_path": "status"})
        if answers.read(answer, answers.Health).status == "red":
            raise unavailable("OpenSearch: a shard of the index is missing (red)")

    async def close(self) -> None:
        await self._refreshing.close()
        await self._client.close()

    def _check_writable(self) -> None:
        if self._read_only:
            raise unavailable("OpenSearch: opened read-only")

    async def _search(self, account: str, root: Node, size: int, start: tuple[int, str] | None) -> Any:
        seconds = base.SECONDS_AT_MOST
        body: dict[str, Any] = {
            "size": size,
            "query": dsl.within(account, root),
            "sort": [{"at": "desc"}, {"email": "desc"}],
            "track_total_hits": False if start is not None else _COUNTED,
            "timeout": f"{max(1, round(seconds * 1000))}ms",
            "_source": False,
            "stored_fields": "_none_",
        }
        if start is not None:
            body["search_after"] = list(start)
        params = {
            "routing": bulk.routing(account),
            "allow_partial_search_results": "false",
            "cancel_after_time_interval": f"{max(1, round(seconds))}s",
            "filter_path": _ANSWER,
        }
        path = f"/{self._arrangement.layout.read}/_search"
        try:
            return await self._client.call("POST", path, body, params=params, seconds=seconds, tries=2)
        except Refused as refused:
            if refused.status != 404:
                raise unavailable(f"OpenSearch: {refused}") from None
        # Between two indexes: the alias was resolved just before its index went. Or there is none yet.
        await self._arrangement.looked(make=not self._read_only)
        try:
            return await self._client.call("POST", path, body, params=params, seconds=seconds, tries=1)
        except Refused as refused:
            raise unavailable(f"OpenSearch: {refused}") from None


def _page(found: answers.Found, most: int, *, first: bool) -> Page:
    """:raises StorageUnavailable: only a part of the index was looked at."""
    if found.timed_out:
        raise unavailable("the query took too long")
    hits = [hit.sort for hit in found.hits.hits]
    following = position(*hits[most - 1]) if len(hits) > most else None
    total = found.hits.total if first else None
    counted = total.value if total is not None and total.relation == "eq" else None
    return Page(tuple(email for _, email in hits[:most]), following, counted)
