"""A streaming replica: reads that may lag, and what becomes of the rest when it is promoted."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from posthouse.clock import SECOND, now
from posthouse.errors import StorageUnavailable
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.lease import Lease
from posthouse.storage.records.migrations.run import head, migrate
from posthouse.storage.records.replica import Lagging
from posthouse.storage.records.server_clock import ServerClock
from tests.conftest import Service
from tests.contract.test_postgres import free_port


@dataclass
class Pair:
    primary: Service
    standby: Service
    primary_url: str
    standby_url: str

    @property
    def url(self) -> str:
        """Of both, the standby first: the one that takes writes must be looked for."""
        hosts = [url.split("@")[1].split("/")[0] for url in (self.standby_url, self.primary_url)]
        return f"postgresql://postgres@{','.join(hosts)}/postgres"


@pytest.fixture
def make(postgres_server: str) -> Iterator[Callable[..., Service]]:
    """Servers of this test; with the shared one there, their programs are too."""
    made: list[tuple[Service, Path]] = []

    def one(**environment: str) -> Service:
        directory = Path(tempfile.mkdtemp(prefix="posthouse-"))
        directory.chmod(0o755)
        service = Service("postgres", directory, {"POSTGRES_PORT": str(free_port()), **environment})
        made.append((service, directory))
        return service

    yield one
    for service, directory in reversed(made):
        service.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def pair(make: Callable[..., Service]) -> Pair:
    primary = make()
    primary_url = await asyncio.to_thread(primary.start)
    await migrate(primary_url)
    standby = make(POSTGRES_PRIMARY=primary_url)
    return Pair(primary, standby, primary_url, await asyncio.to_thread(standby.start))


async def add(records: Records, day: int) -> None:
    await records.write(
        lambda tx: tx.run(
            "INSERT INTO usage (tenant_id, day, messages) VALUES ('a', $1, 1) ON CONFLICT DO NOTHING", day
        )
    )


async def days(records: Records) -> list[int]:
    return [row[0] for row in await records.read(lambda tx: tx.rows("SELECT day FROM usage ORDER BY day"))]


async def seen(records: Records, wanted: list[int]) -> None:
    async with asyncio.timeout(20):
        while await days(records) != wanted:
            await asyncio.sleep(0.05)


class Counting:
    """Records that count the reads they answer."""

    def __init__(self, records: Records) -> None:
        self.capabilities = records.capabilities
        self.read_count = 0
        self._records = records

    async def read(self, work: object) -> object:
        self.read_count += 1
        return await self._records.read(work)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._records, name)


async def test_reads_go_to_the_replica_while_it_streams(pair: Pair) -> None:
    primary = Counting(await open_records(pair.primary_url))
    replica = await open_records(pair.standby_url, read_only=True, wait=2)
    lagging = Lagging(primary, replica, look_every=0.2)  # type: ignore[arg-type]
    await add(lagging, 1)
    await seen(lagging, [1])
    assert primary.read_count == 0
    with pytest.raises(StorageUnavailable):
        await add(replica, 2)

    await asyncio.to_thread(pair.standby.stop)
    await add(lagging, 2)
    began = time.monotonic()
    assert await days(lagging) == [1, 2], "at once, from the primary"
    assert time.monotonic() - began < 30
    assert primary.read_count == 1
    await lagging.ready()

    await asyncio.to_thread(pair.standby.start)
    async with asyncio.timeout(20):
        while (count := primary.read_count) == primary.read_count:
            await asyncio.sleep(0.1)
            if await days(lagging) == [1, 2] and primary.read_count == count:
                break
    await lagging.close()
    await primary.close()  # type: ignore[operator]


async def test_a_replica_that_streams_no_more_is_left(pair: Pair) -> None:
    primary = await open_records(pair.primary_url)
    lagging = Lagging(primary, await open_records(pair.standby_url, read_only=True, wait=2), look_every=0.0)
    await add(primary, 1)
    await seen(lagging, [1])
    await asyncio.to_thread(pair.standby.call, "promote", 60)
    await add(primary, 2)
    assert await days(lagging) == [1, 2], "one that goes its own way tells the past"
    await lagging.close()
    await primary.close()


async def test_the_promoted_server_is_found(pair: Pair) -> None:
    """Of two hosts, whichever takes writes: at the start, and after a failover, by itself."""
    assert await migrate(pair.url) == head()
    records = await open_records(pair.url, wait=4)
    queue = RecordsQueue(records)
    lease = Lease(records, "x")
    clock = ServerClock(records)
    await add(records, 1)
    await queue.put([Job("send", Lane.BULK, "t", now() - SECOND, "job")])
    assert await lease.take()
    async with asyncio.timeout(20):
        standby = await open_records(pair.standby_url, read_only=True)
        await seen(standby, [1])
        await standby.close()

    await asyncio.to_thread(pair.primary.stop)
    with pytest.raises(StorageUnavailable):
        await add(records, 2)
    await asyncio.to_thread(pair.standby.call, "promote", 60)
    async with asyncio.timeout(30):
        while True:
            with suppress(StorageUnavailable):
                await add(records, 3)
                break
    assert await days(records) == [1, 3]
    assert [job.id for job in await queue.claim("send", Lane.BULK, 5, lease=30)] == ["job"]
    assert await lease.take()
    assert lease.fence == 1
    await clock.measure()
    await records.ready()
    await records.close()


async def test_a_connection_to_a_server_that_became_read_only_is_given_up(postgres_url: str) -> None:
    """A primary that was demoted in place: the next connection is made anew."""
    records = await open_records(postgres_url, connections=1)
    await add(records, 1)

    async def demoted(tx: Tx) -> None:
        await tx.run("SET SESSION default_transaction_read_only = on")

    await records.write(demoted)
    with pytest.raises(StorageUnavailable):
        await add(records, 2)
    await add(records, 3)
    assert await days(records) == [1, 3]
    await records.close()
