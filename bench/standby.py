"""A second PostgreSQL that can take over: `records.url` names both, and what was committed is on both."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from bench.cluster import Engine

_SECONDS = 60.0


@dataclass
class Standby:
    """Beside `primary`; the two change places with every `take_over`."""

    primary: Engine
    other: Engine

    def both(self, database: str) -> str:
        """The URL with both hosts."""
        parts = urlsplit(database)
        user = parts.netloc.rpartition("@")[0]
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.other.port}"
        return urlunsplit(parts._replace(netloc=f"{user}@{hosts}" if user else hosts))

    def follow(self) -> None:
        """A fresh copy of the primary that every commit waits for.

        :raises RuntimeError: it does not stream in time.
        """
        shutil.rmtree(self.other.directory / "postgres" / "data", ignore_errors=True)
        self.other.variables = {"POSTGRES_PRIMARY": self.primary.address}
        self.other.start()
        _alone(self.primary.address, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        end = time.monotonic() + _SECONDS
        while _value(self.primary.address, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != 1:
            if time.monotonic() > end:
                raise RuntimeError("the standby does not stream")
            time.sleep(0.05)

    def take_over(self) -> None:
        """The standby takes writes from now on; the old primary is dead (`Engine.kill`)."""
        self.other.call("promote")
        _alone(self.other.address, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        self.primary, self.other = self.other, self.primary
        self.primary.variables = {}


def _alone(address: str, *statements: str) -> None:
    """One by one, outside any transaction."""

    async def work() -> None:
        connection = await asyncpg.connect(address, timeout=10)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(work())


def _value(address: str, query: str) -> object:
    async def work() -> object:
        connection = await asyncpg.connect(address, timeout=10)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(work())
