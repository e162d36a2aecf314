"""Which indexes there are, as last seen, and the steps between arrangements (`layout`)."""

from __future__ import annotations

import asyncio
import random

import structlog

from posthouse.storage.search.base import unavailable
from posthouse.storage.search.opensearch import answers
from posthouse.storage.search.opensearch.address import Address
from posthouse.storage.search.opensearch.client import Client, Refused
from posthouse.storage.search.opensearch.layout import Action, Layout, State, definition

log = structlog.get_logger("search")

_STEPS_AT_MOST = 5
"""Tries of a step that others take at the same moment."""


class Arrangement:
    def __init__(self, client: Client, address: Address) -> None:
        self._client = client
        self._address = address
        self.layout = Layout(address.index)
        self._seen: State | None = None

    async def known(self) -> State:
        """As last seen; made where there was none.

        :raises StorageUnavailable: `search_unavailable`.
        """
        return self._seen if self._seen is not None else await self.looked()

    def forget(self) -> None:
        """What was seen is over."""
        self._seen = None

    async def looked(self, *, make: bool = True) -> State:
        """As it is now. :param make: an index where none can be read and written."""
        for _ in range(_STEPS_AT_MOST):
            try:
                answer = await self._client.call("GET", f"/{self.layout.every}/_alias")
            except Refused as refused:
                if refused.status != 404:
                    raise unavailable(f"OpenSearch: {refused}") from None
                answer = {}
            found = answers.read(answer, answers.Aliases)
            state = self.layout.state({name: about.aliases for name, about in found.items()})
            if state.whole or not make:
                self._seen = state if state.whole else None
                return state
            if mended := self.layout.mended(state):
                await self._step(mended)
            else:
                await self._make(state.next, self.layout.first_aliases(state))
        raise unavailable("OpenSearch: no index can be made")

    async def begin(self) -> None:
        """A new index beside the one that is read; every message that is stored when this returns
        has to be indexed again. :raises StorageUnavailable: `search_unavailable`."""
        for _ in range(_STEPS_AT_MOST):
            state = await self.looked()
            number = state.next
            if not await self._make(number, {}):
                continue
            if await self._step(self.layout.begin(state, number)):
                # Also what a process that died left; one who is only about to use it is refused, and tries anew.
                await self._delete([self.layout.index(old) for old in state.numbers if old != state.read])
                self.forget()
                log.info("index_begun", index=self.layout.index(number))
                return
            await self._delete([self.layout.index(number)])
        raise unavailable("OpenSearch: others change the index all the time")

    async def finish(self) -> None:
        """The new index answers from now on. :raises StorageUnavailable: `search_unavailable`."""
        for _ in range(_STEPS_AT_MOST):
            state = await self.looked()
            if state.due is None:
                return
            await self._refresh(self.layout.index(state.due[0]))
            if await self._step(self.layout.finish(state)):
                self.forget()
                log.info("index_whole", index=self.layout.index(state.due[0]))
                return
        raise unavailable("OpenSearch: others change the index all the time")

    async def _make(self, number: int, aliases: dict[str, object]) -> bool:
        """Whether this call made it: another process may have been first."""
        body = {**definition(self._address.shards, self._address.replicas), "aliases": aliases}
        try:
            await self._client.call("PUT", f"/{self.layout.index(number)}", body, tries=1)
        except Refused as refused:
            if refused.kind == "resource_already_exists_exception":
                await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - spreads load only
                return False
            raise unavailable(f"OpenSearch: {refused}") from None
        return True

    async def _step(self, actions: list[Action]) -> bool:
        """All of them or none; whether the arrangement still was as they expect."""
        try:
            await self._client.call("POST", "/_aliases", {"actions": actions}, tries=1)
        except Refused as refused:
            if refused.status == 404:
                self.forget()
                return False
            raise unavailable(f"OpenSearch: {refused}") from None
        return True

    async def _refresh(self, index: str) -> None:
        try:
            await self._client.call("POST", f"/{index}/_refresh", params={"filter_path": "_none"})
        except Refused as refused:
            raise unavailable(f"OpenSearch: {refused}") from None

    async def _delete(self, names: list[str]) -> None:
        for name in names:
            try:
                await self._client.call("DELETE", f"/{name}")
            except Refused as refused:
                if refused.status != 404:
                    raise unavailable(f"OpenSearch: {refused}") from None
