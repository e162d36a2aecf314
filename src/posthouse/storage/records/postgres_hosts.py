"""Connect to the server of several that takes writes: the one that did last, then the others."""

from __future__ import annotations

from typing import Any

import asyncpg
import structlog

from posthouse.storage.records.address import PostgresAddress

log = structlog.get_logger("records")


_REFUSED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Hosts:
    """For a pool's `connect`. A host that swallows packets must not use up the time of the
    others, so each has its share; asyncpg itself gives the first all of it."""

    def __init__(self, address: PostgresAddress, *, writes: bool) -> None:
        """:param writes: of several, one that takes writes, unless the URL asks for something else."""
        self._urls = list(address.each)
        self._attributes: dict[str, str] = {}
        if writes and len(self._urls) > 1 and "target_session_attrs=" not in address.url:
            self._attributes["target_session_attrs"] = "read-write"

    async def connect(self, *_dsn: object, timeout: float = 10.0, **options: Any) -> Any:
        """:raises OSError, PostgresError, InterfaceError, InternalClientError: no host would have us."""
        failed: Exception | None = None
        share = timeout / len(self._urls)
        for url in tuple(self._urls):
            try:
                connection = await asyncpg.connect(url, timeout=share, **self._attributes, **options)  # pyright: ignore[reportArgumentType] - a float is fine
            except _REFUSED as error:
                # What a server that is alive says tells more than one that does not answer.
                failed = error if failed is None or isinstance(failed, OSError) else failed
                continue
            if url != self._urls[0]:
                log.warning("database_host_changed", position=self._urls.index(url))
                self._urls.remove(url)
                self._urls.insert(0, url)
            return connection
        assert failed is not None
        raise failed
