"""Messages into every index that is written now, each line's answer minded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from posthouse.storage.search.base import unavailable
from posthouse.storage.search.opensearch import answers, bulk
from posthouse.storage.search.opensearch.arrangement import Arrangement
from posthouse.storage.search.opensearch.bulk import Item, Outcome
from posthouse.storage.search.opensearch.client import Client, Refused, pause

log = structlog.get_logger("search")

_TRIES = 5
"""Of lines that the server is too busy for: some five seconds."""
_LOOKS = 5
"""At the arrangement: it moves twice in a rebuild."""
_ANSWER = "items.*.status,items.*.error.type,items.*.error.reason"


class _MovedError(Exception):
    """An alias that was written through is gone."""


class Writing:
    def __init__(self, client: Client, arrangement: Arrangement) -> None:
        self._client = client
        self._arrangement = arrangement

    async def add(self, items: Sequence[Item]) -> int:
        """How many the newest index did not have. While one is rebuilt, the older gets what it
        has not: most of a rebuild lies there already.

        :raises StorageUnavailable: `search_unavailable`.
        """
        added: set[tuple[str, str]] = set()

        async def into_all() -> None:
            state = await self._arrangement.known()
            for number, alias in sorted(state.written.items(), reverse=True):
                if number == state.newest:
                    added.update((one.account, one.email) for one in await self._send(alias, items))
                else:
                    await self._send(alias, await self._missing(alias, items))

        await self._where_it_is(into_all)
        return len(added)

    async def remove(self, items: Sequence[Item]) -> None:
        """:raises StorageUnavailable: `search_unavailable`."""

        async def from_all() -> None:
            for alias in (await self._arrangement.known()).written.values():
                await self._send(alias, items)

        await self._where_it_is(from_all)

    async def _where_it_is(self, work: Callable[[], Awaitable[None]]) -> None:
        for look in range(_LOOKS):
            try:
                return await work()
            except _MovedError:
                self._arrangement.forget()
                if look:
                    await pause(look - 1)
        raise unavailable("OpenSearch: the index moves all the time")

    async def _missing(self, alias: str, items: Sequence[Item]) -> list[Item]:
        missing: list[Item] = []
        for part in bulk.requests(items):
            docs = [{"_id": bulk.id_of(one.account, one.email), "routing": bulk.routing(one.account)} for one in part]
            answer = await self._call(f"/{alias}/_mget", {"docs": docs}, "docs.found,docs.error.type")
            got = answers.read(answer, answers.Gotten).docs if answer is not None else []
            if any(about.error is not None for about in got) or len(got) != len(part):
                raise _MovedError
            missing += [one for one, about in zip(part, got, strict=True) if not about.found]
        return missing

    async def _send(self, alias: str, items: Sequence[Item]) -> list[Item]:
        """Those that were not so before.

        :raises _MovedError: the alias is gone; some may be written.
        """
        done: list[Item] = []
        for part in bulk.requests(items):
            done += await self._part(alias, part)
        return done

    async def _part(self, alias: str, items: list[Item]) -> list[Item]:
        done: list[Item] = []
        why = ""
        for attempt in range(_TRIES):
            if attempt:
                await pause(attempt)
            busy: list[Item] = []
            for item, (outcome, reason) in zip(items, await self._outcomes(alias, items), strict=True):
                if outcome is Outcome.MOVED:
                    raise _MovedError
                if outcome is Outcome.DONE:
                    done.append(item)
                elif outcome is Outcome.BUSY:
                    busy.append(item)
                    why = reason
                elif outcome is Outcome.POISON:
                    log.error("message_not_indexed", account=item.account, email=item.email, reason=reason[:300])
            if not busy:
                return done
            items = busy
        raise unavailable(f"OpenSearch: {why[:300]}")

    async def _outcomes(self, alias: str, items: list[Item]) -> list[tuple[Outcome, str]]:
        """One for each item, in order."""
        body = b"".join([item.lines for item in items])
        try:
            answer = await self._call(f"/{alias}/_bulk", body, _ANSWER, require_alias="true")
        except Refused as refused:
            if refused.status != 413:
                raise unavailable(f"OpenSearch: {refused}") from None
            if len(items) == 1:
                return [(Outcome.POISON, str(refused))]
            half = len(items) // 2
            return await self._outcomes(alias, items[:half]) + await self._outcomes(alias, items[half:])
        if answer is None:
            raise _MovedError
        lines = [next(iter(about.values())) for about in answers.read(answer, answers.Bulk).items if about]
        if len(lines) != len(items):
            raise unavailable(f"OpenSearch: {len(lines)} answers to {len(items)} lines")
        return [bulk.outcome(line) for line in lines]

    async def _call(
        self, path: str, body: object, answer: str, **params: str
    ) -> dict[str, list[dict[str, object]]] | None:
        """None: there is no such alias."""
        try:
            return await self._client.call("POST", path, body, params={"filter_path": answer, **params})
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
