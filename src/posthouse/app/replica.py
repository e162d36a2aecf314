"""The records for reads that may lag."""

from __future__ import annotations

from contextlib import AsyncExitStack

from posthouse.config import Settings
from posthouse.storage.records.base import Records
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.replica import Lagging

_CONNECT = 2.0
"""Seconds: a replica that takes longer is left, and the primary asked."""


async def lagging_records(settings: Settings, primary: Records, stack: AsyncExitStack) -> Records:
    """The replica of `records.replica_url` with the primary behind it, closed with `stack`; the
    primary itself without one. A replica that is away does not stop the start."""
    if settings.records.replica_url is None:
        return primary
    replica = await open_records(
        settings.records.replica_url,
        read_only=True,
        connections=settings.records.pool_size,
        wait=_CONNECT,
        statement_timeout=settings.records.statement_timeout,
    )
    lagging = Lagging(primary, replica)
    stack.push_async_callback(lagging.close)
    return lagging
