"""The queue through brokers that want TLS and a login, as operators run them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from posthouse.errors import StorageUnavailable
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.kafka import producer, topics, wire
from posthouse.storage.records.base import Records
from tests.conftest import SERVICES_DIR, ManualClock
from tests.kafka_queues import SettledQueue

Open = Callable[..., SettledQueue]


@pytest.fixture
async def open_secure(
    kafka_server: str, postgres_records: Records, local_blobs: Blobs, clock: ManualClock
) -> AsyncIterator[Open]:
    host, _, port = kafka_server.rpartition(":")

    async with AsyncExitStack() as stack:

        def make(login: str = "posthouse:secret@", **options: Any) -> SettledQueue:
            given = {"tls": "true", "ca": str(SERVICES_DIR / "kafka" / "tls.crt"), "partitions": "2"} | options
            query = "&".join(f"{name}={value}" for name, value in given.items() if value)
            url = f"kafka://{login}{host}:{int(port) + 400}?prefix=test-{secrets.token_hex(6)}&{query}"
            queue = SettledQueue(postgres_records, local_blobs, wire.options(url), clock=clock)
            stack.push_async_callback(queue.close)
            return queue

        yield make


@pytest.mark.parametrize("sasl", ["SCRAM-SHA-512", "PLAIN"])
async def test_jobs_go_through_tls_with_a_login(open_secure: Open, clock: ManualClock, sasl: str) -> None:
    queue = open_secure(sasl=sasl)
    await queue.ready()
    await queue.put([Job("render", Lane.BULK, "t", clock.at, f"job{n}") for n in range(20)])
    jobs = await queue.claim("render", Lane.BULK, 100, lease=30)
    assert sorted(job.id for job in jobs) == sorted(f"job{n}" for n in range(20))
    assert await queue.done(jobs) == 20
    assert sum(depth.ready for depth in await queue.depths()) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"login": "posthouse:guess@"}, {"login": "posthouse:guess@", "sasl": "PLAIN"}, {"ca": ""}, {"tls": "", "ca": ""}],
    ids=["password", "plain password", "authority", "no tls"],
)
async def test_who_may_not_enter_is_told_that_storage_is_away(
    open_secure: Open, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    monkeypatch.setattr(topics, "_SECONDS", 1.0)
    monkeypatch.setattr(producer, "SECONDS", 1.0)
    queue = open_secure(**wrong)
    with pytest.raises(StorageUnavailable) as raised:
        await queue.ready()
    assert "guess" not in raised.value.detail
