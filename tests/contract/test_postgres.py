"""PostgreSQL's own: connections that die, a server that stops and starts, several processes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from posthouse import errors
from posthouse.clock import now
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations.run import migrate
from tests.conftest import FreshDatabase, Service
from tests.contract import processes


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Records]:
    records = await open_records(postgres_url)
    yield records
    await records.close()


@pytest.fixture
def own_server(postgres_server: str) -> Iterator[Service]:
    """A cluster that a test may stop; with the shared one there, its programs are too."""
    directory = Path(tempfile.mkdtemp(prefix="posthouse-"))
    directory.chmod(0o755)  # the server's user must get in
    service = Service("postgres", directory, {"POSTGRES_PORT": str(free_port())})
    yield service
    service.stop()
    shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def add(day: int) -> Any:
    async def work(tx: Tx) -> int:
        return await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ('a', $1, 1)", day)

    return work


async def count(records: Records) -> int:
    async def work(tx: Tx) -> Row | None:
        return await tx.row("SELECT count(*) FROM usage")

    row = await records.read(work)
    assert row is not None
    return row[0]


async def terminate_all(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()


async def test_a_read_sees_one_moment(postgres: Records) -> None:
    begun, written = asyncio.Event(), asyncio.Event()

    async def work(tx: Tx) -> tuple[int, int]:
        before = len(await tx.rows("SELECT day FROM usage"))
        begun.set()
        await written.wait()
        return before, len(await tx.rows("SELECT day FROM usage"))

    reading = asyncio.ensure_future(postgres.read(work))
    await begun.wait()
    await postgres.write(add(1))
    written.set()
    assert await reading == (0, 0)


async def test_connections_that_died_in_the_pool_are_made_again(postgres: Records, postgres_url: str) -> None:
    await asyncio.gather(*(postgres.write(add(day)) for day in range(30)))
    await terminate_all(postgres_url)
    await asyncio.gather(*(postgres.write(add(100 + day)) for day in range(30)))
    assert await count(postgres) == 60


async def test_a_connection_that_dies_in_a_transaction_is_unavailable(postgres: Records, postgres_url: str) -> None:
    async def work(tx: Tx) -> None:
        await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ('a', 1, 1)")
        await terminate_all(postgres_url)
        await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ('a', 2, 1)")

    with pytest.raises(errors.StorageUnavailable):
        await postgres.write(work)
    assert await count(postgres) == 0


async def test_a_statement_that_takes_too_long_is_ended(postgres: Records) -> None:
    async def work(tx: Tx) -> None:
        await tx.run("SET LOCAL statement_timeout = '50ms'")
        await tx.row("SELECT pg_sleep(100)")

    began = time.monotonic()
    with pytest.raises(errors.StorageUnavailable):
        await postgres.read(work)
    assert time.monotonic() - began < 60


async def test_a_canceled_work_gives_its_connection_back(postgres_url: str) -> None:
    records = await open_records(postgres_url, connections=1)

    async def work(tx: Tx) -> None:
        await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ('a', 1, 1)")
        await tx.row("SELECT pg_sleep(100)")

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(records.write(work), 0.1)
    assert await count(records) == 0
    await records.close()


async def test_no_free_connection_is_unavailable_in_time(postgres_url: str) -> None:
    records = await open_records(postgres_url, connections=1, wait=0.2)
    release = asyncio.Event()

    async def hold(_: Tx) -> None:
        await release.wait()

    holder = asyncio.ensure_future(records.write(hold))
    await asyncio.sleep(0.1)
    with pytest.raises(errors.StorageUnavailable):
        await records.write(add(1))
    release.set()
    await holder
    await records.write(add(1))
    await records.close()


async def test_a_server_that_is_read_only_is_not_ready(fresh_database: FreshDatabase) -> None:
    url = await fresh_database()
    connection = await asyncpg.connect(url)
    await connection.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET default_transaction_read_only = on")
    await connection.close()
    records = await open_records(url)
    with pytest.raises(errors.StorageUnavailable) as raised:
        await records.ready()
    assert "read-only" in raised.value.detail
    with pytest.raises(errors.StorageUnavailable):
        await records.write(add(1))
    await records.close()


async def test_read_only_records_are_ready(postgres_url: str) -> None:
    records = await open_records(postgres_url, read_only=True)
    await records.ready()
    await records.close()


class Cut:
    """Between us and the server: the answer to a COMMIT never comes, once `armed`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname, parts.port)
        self.armed = False
        self.cut = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._to)
        losing = asyncio.Event()
        self._tasks |= {
            asyncio.ensure_future(self._pass(reader, back, losing, watch=True)),
            asyncio.ensure_future(self._pass(there, writer, losing)),
        }

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, losing: asyncio.Event, *, watch: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if watch and self.armed and b"COMMIT" in data:
                    self.armed = False
                    self.cut += 1
                    losing.set()
                if not watch and losing.is_set():
                    break  # it has answered: it is done, and nobody hears of it
                sink.write(data)
                await sink.drain()
        sink.close()


async def test_a_connection_that_is_lost_in_a_commit_leaves_it_unknown(postgres_url: str) -> None:
    """It is said so, and is not done again by itself: whoever knows the ids may do that."""
    cut = Cut(postgres_url)
    async with cut as port:
        records = await open_records(postgres_url.replace(f":{urlsplit(postgres_url).port}/", f":{port}/"))
        await records.write(add(1))
        cut.armed = True
        with pytest.raises(errors.StorageUnavailable):
            await records.write(add(2))
        assert cut.cut == 1
        assert await count(records) == 2, "it had been written"
        with pytest.raises(errors.Conflict):
            await records.write(add(2))
        await records.close()


async def test_who_loses_a_race_runs_again_and_not_for_ever(postgres: Records) -> None:
    await postgres.write(add(1))
    ran = 0

    def fail(code: str, times: int) -> Any:
        async def work(tx: Tx) -> None:
            nonlocal ran
            ran += 1
            await tx.run("UPDATE usage SET messages = messages + 1")
            if ran <= times:
                await tx.run(f"DO $$ BEGIN RAISE EXCEPTION 'race' USING ERRCODE = '{code}'; END $$")

        return work

    for code in ("40001", "40P01"):
        ran = 0
        await postgres.write(fail(code, 2))
        assert ran == 3
    assert (await postgres.read(lambda tx: tx.row("SELECT messages FROM usage"))) == (3,)
    ran = 0
    with pytest.raises(errors.StorageUnavailable, match="Storage"):
        await postgres.write(fail("40001", 100))
    assert 1 < ran < 10


async def test_two_that_wait_for_each_other_both_end(postgres: Records) -> None:
    await postgres.write(add(1))
    await postgres.write(add(2))
    met = asyncio.Barrier(2)
    first = True

    def both(*order: int) -> Any:
        async def work(tx: Tx) -> None:
            nonlocal first
            for place, day in enumerate(order):
                await tx.run("UPDATE usage SET messages = messages + 1 WHERE day = $1", day)
                if place == 0 and first:
                    await met.wait()
            first = False

        return work

    await asyncio.wait_for(asyncio.gather(postgres.write(both(1, 2)), postgres.write(both(2, 1))), 30)
    assert (await postgres.read(lambda tx: tx.row("SELECT sum(messages)::int FROM usage"))) == (6,)


async def test_text_that_cannot_be_stored_is_the_callers_mistake(postgres: Records) -> None:
    async def work(tx: Tx) -> None:
        await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ($1, 1, 1)", "a\x00b")

    with pytest.raises(errors.Invalid):
        await postgres.write(work)


async def test_a_wrong_url_is_misconfigured() -> None:
    with pytest.raises(errors.Misconfigured):
        await open_records("postgresql://127.0.0.1:not-a-port/x")


async def test_a_server_that_stops_and_starts(own_server: Service) -> None:
    url = await asyncio.to_thread(own_server.start)
    await migrate(url)
    records = await open_records(url, wait=2)
    await records.write(add(1))
    await asyncio.to_thread(own_server.stop)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(errors.StorageUnavailable):
            await records.write(add(2))
    with pytest.raises(errors.StorageUnavailable):
        await records.ready()
    with pytest.raises(errors.StorageUnavailable):
        await migrate(url)
    assert time.monotonic() - began < 60
    await asyncio.to_thread(own_server.start)
    await records.ready()
    await records.write(add(3))
    assert await count(records) == 2
    await records.close()


async def test_two_processes_never_hold_one_job(postgres: Records, postgres_url: str) -> None:
    queue = RecordsQueue(postgres)
    jobs = [Job("send", Lane.BULK, f"t{i % 3}", now() - 10**6 + i, f"job-{i:05}") for i in range(2000)]
    await queue.put(jobs)
    workers = [processes.start("claim", postgres_url) for _ in range(2)]
    outputs = await asyncio.gather(*(asyncio.to_thread(worker.communicate) for worker in workers))
    assert [worker.returncode for worker in workers] == [0, 0]
    held = [line for output, _ in outputs for line in output.split()]
    assert sorted(held) == [job.id for job in jobs]


async def test_what_a_killed_process_acknowledged_is_there(postgres: Records, postgres_url: str) -> None:
    acknowledged = await asyncio.to_thread(processes.kill_after, processes.start("write", postgres_url), 200)

    async def work(tx: Tx) -> tuple[list[Row], list[Row]]:
        days = "SELECT day FROM usage WHERE tenant_id = $1 ORDER BY day"
        return await tx.rows(days, "a"), await tx.rows(days, "b")

    a, b = await postgres.read(work)
    assert a == b
    assert {int(line) for line in acknowledged} <= {day for (day,) in a}
