"""Fixtures shared by every suite: real servers, a database or a bucket of its own for each test.

    records_url   a migrated database, on each engine in turn (a param: "sqlite", "postgresql")
    records       the same, opened
    queue, clock  a queue over `records`, under a clock that the test moves
    kafka_queue   a queue on Kafka over PostgreSQL, under the same clock
    blobs         a store: local, S3, and S3 behind copies in memory, in turn
    opensearch_url              an index of its own
    sqlite_url, postgres_url, fresh_database, s3_server    one engine only

The servers are those of `scripts/services`, started when a collected test needs them and
stopped by the last session that uses them. One that cannot be had skips its tests, with the
reason; with CI=true it fails them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import asyncpg
import httpx
import pytest
from xdist.scheduler.loadgroup import LoadGroupScheduling

from posthouse.clock import SECOND
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.blobs.cached import CachedBlobs, Memory
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations.run import migrate
from tests.kafka_queues import SettledQueue, fresh_options

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts" / "services"
SERVICES_DIR = Path(os.environ.get("SERVICES_DIR") or ROOT / ".services")
START_SECONDS = 900  # the first start may build or install the server

S3_ACCESS_KEY, S3_SECRET_KEY, S3_BUCKET = "test", "testsecret", "test"

# The fixtures, and the params naming them, by which a test shows that it needs a service.
SERVICES = {
    "postgres": {"postgres_server", "postgres_url", "kafka_queue"},
    "s3": {"s3_server", "s3_blobs", "cached_blobs"},
    "kafka": {"kafka_server", "kafka_queue"},
    "redis": {"redis_server"},
    "opensearch": {"opensearch_server", "opensearch_url"},
}


TOGETHER = {"tests/crash/test_cluster.py"}


@dataclass
class Service:
    """One of `scripts/services`, with a directory of its own."""

    name: str
    directory: Path = SERVICES_DIR
    environment: dict[str, str] = field(default_factory=dict)

    def call(self, verb: str, seconds: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(SCRIPTS / f"{self.name}.sh"), verb],
            env={**os.environ, "SERVICES_DIR": str(self.directory), **self.environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def start(self) -> str:
        """Its URL.

        :raises RuntimeError: with what the script said.
        """
        try:
            done = self.call("start")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"{self.name}: {error}") from error
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-2000:])
        return done.stdout.strip()

    def stop(self) -> None:
        self.call("stop", 60)


class Shared:
    """A service that sessions and xdist workers share: a file for each user, under a lock."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._users = service.directory / "users" / service.name
        self._mine = self._users / str(os.getpid())
        self.url: str | None = None
        self.reason = "not started"

    def begin(self) -> None:
        with self._locked():
            if not self._others():
                # Ours to stop only if nobody had it running before.
                running = self.service.call("status", 30).returncode == 0
                (self._users / "keep").unlink(missing_ok=True)
                if running:
                    (self._users / "keep").touch()
            self._mine.touch()
        for _ in range(2):  # again if somebody took the port just before
            try:
                self.url = self.service.start()
            except RuntimeError as error:
                self.reason = str(error)
            else:
                return

    def end(self) -> None:
        with self._locked():
            self._mine.unlink(missing_ok=True)
            if not self._others() and not (self._users / "keep").exists():
                self.service.stop()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._users.mkdir(parents=True, exist_ok=True)
        with (self._users / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _others(self) -> list[int]:
        pids = [int(path.name) for path in self._users.iterdir() if path.name.isdigit()]
        return [pid for pid in pids if pid != os.getpid() and Path(f"/proc/{pid}").exists()]


_shared: dict[str, Shared] = {}
_NONE = SimpleNamespace(params={})


class Together(LoadGroupScheduling):
    """Tests one by one, but those of `TOGETHER` in one process: they share a cluster. (The mark
    `xdist_group` is without effect under pytest 9.)"""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path in TOGETHER else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together | None:
    return Together(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Servers start here, not in a fixture: a build must not count against a test's time."""
    if session.config.option.collectonly:
        return
    wanted: set[object] = set()
    for item in session.items:
        wanted.update(getattr(item, "fixturenames", ()))
        wanted.update(v for v in getattr(item, "callspec", _NONE).params.values() if isinstance(v, str))
    for name, fixtures in SERVICES.items():
        if fixtures & wanted:
            _shared[name] = Shared(Service(name))
            _shared[name].begin()


def pytest_sessionfinish(session: pytest.Session) -> None:
    for shared in _shared.values():
        shared.end()


def _url_of(name: str) -> str:
    shared = _shared[name]
    if shared.url is not None:
        return shared.url
    reason = f"no {name}: {shared.reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """On a loop of another thread, so that the test's own is left alone."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


class ManualClock:
    """A clock that stands until it is moved."""

    def __init__(self, at: int = 1_800_000_000 * SECOND) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at

    def advance(self, seconds: float) -> int:
        self.at += round(seconds * SECOND)
        return self.at


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a running PostgreSQL, as its superuser."""
    return _url_of("postgres")


@pytest.fixture(scope="session")
def s3_server() -> str:
    """The endpoint of a running S3 server with the bucket S3_BUCKET."""
    return _url_of("s3")


@pytest.fixture(scope="session")
def kafka_server() -> str:
    """`HOST:PORT` of a running Kafka of one node."""
    return _url_of("kafka")


@pytest.fixture(scope="session")
def redis_server() -> str:
    """The URL of a running Redis."""
    return _url_of("redis")


@pytest.fixture(scope="session")
def opensearch_server() -> str:
    """The URL of a running OpenSearch of one node."""
    return _url_of("opensearch")


@pytest.fixture
def opensearch_url(opensearch_server: str) -> Iterator[str]:
    """An index of its own, of several shards so that routing matters."""
    name = f"test-{secrets.token_hex(6)}"
    yield f"{opensearch_server}/{name}?shards=2&replicas=0"
    _run(_drop_indexes(opensearch_server, name))


async def _drop_indexes(server: str, name: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        names = (await client.get(f"{server}/{name}-*/_alias")).json()
        for index in names if isinstance(names, dict) else ():
            if index.startswith(name):
                await client.delete(f"{server}/{index}")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "posthouse.db"
    _run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a migrated database to copy."""
    name = f"template_{secrets.token_hex(6)}"
    _run(_administer(postgres_server, f"CREATE DATABASE {name}"))
    _run(migrate(_database(postgres_server, name)))
    yield name
    _run(_administer(postgres_server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    directory = tmp_path / "records"
    directory.mkdir()
    shutil.copy(sqlite_template, directory / "posthouse.db")
    return f"sqlite:///{directory / 'posthouse.db'}"


FreshDatabase = Callable[[], Awaitable[str]]


@pytest.fixture
async def fresh_database(postgres_server: str, postgres_template: str) -> AsyncIterator[FreshDatabase]:
    """Call it for the URL of one more migrated database on PostgreSQL."""
    made: list[str] = []

    async def make() -> str:
        name = f"test_{secrets.token_hex(8)}"
        await _administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
        made.append(name)
        return _database(postgres_server, name)

    yield make
    for name in made:
        await _administer(postgres_server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
async def postgres_url(fresh_database: FreshDatabase) -> str:
    return await fresh_database()


def _database(server: str, name: str) -> str:
    return f"{server.rsplit('/', 1)[0]}/{name}"


async def _administer(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(params=[pytest.param("sqlite_url", id="sqlite"), pytest.param("postgres_url", id="postgresql")])
def records_url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
async def records(records_url: str) -> AsyncIterator[Records]:
    opened = await open_records(records_url)
    yield opened
    await opened.close()


@pytest.fixture
def queue(records: Records, clock: ManualClock) -> RecordsQueue:
    return RecordsQueue(records, clock=clock)


@pytest.fixture
async def postgres_records(postgres_url: str) -> AsyncIterator[Records]:
    opened = await open_records(postgres_url)
    yield opened
    await opened.close()


@pytest.fixture
async def kafka_queue(
    kafka_server: str, postgres_records: Records, local_blobs: Blobs, clock: ManualClock
) -> AsyncIterator[SettledQueue]:
    """Claims see all that was put before."""
    opened = SettledQueue(postgres_records, local_blobs, fresh_options(kafka_server), clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def local_blobs(tmp_path: Path) -> AsyncIterator[Blobs]:
    opened = await open_blobs(f"file://{tmp_path / 'blobs'}")
    yield opened
    await opened.close()


@pytest.fixture
async def s3_blobs(s3_server: str) -> AsyncIterator[Blobs]:
    opened = await open_blobs(
        f"s3://{S3_BUCKET}/{secrets.token_hex(8)}?endpoint={s3_server}&region=us-east-1",
        access_key=S3_ACCESS_KEY,
        secret_key=S3_SECRET_KEY,
    )
    yield opened
    await opened.close()


@pytest.fixture
def cached_blobs(s3_blobs: Blobs) -> Blobs:
    return CachedBlobs(s3_blobs, Memory(1_000_000))


@pytest.fixture(
    params=[
        pytest.param("local_blobs", id="local"),
        pytest.param("s3_blobs", id="s3"),
        pytest.param("cached_blobs", id="cached"),
    ]
)
def blobs(request: pytest.FixtureRequest) -> Blobs:
    return request.getfixturevalue(request.param)
