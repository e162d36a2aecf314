"""A job of the store stage that comes again, long after its message was stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse.inbound.model import STORE
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.records.base import Records
from tests.conftest import ManualClock
from tests.contract.accept_house import local_blobs
from tests.contract.directory_house import ACME
from tests.contract.inbound_house import Inn


@pytest.fixture
async def inn(records: Records, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Inn]:
    blobs = await local_blobs(tmp_path / "blobs")
    made = await Inn(records, blobs, clock).open()
    yield made
    await made.close()
    await blobs.close()


async def test_a_late_copy_stores_nothing(inn: Inn, clock: ManualClock) -> None:
    await inn.account()
    name = await inn.receive()
    before = [await inn.post.rows(f"SELECT count(*) FROM {table}") for table in ("email", "membership", "job")]
    outcome = await inn.outcome(name)
    for _ in range(2):
        await inn.queue.put([Job(STORE, Lane.TRANSACTIONAL, ACME, clock(), name)])
        await inn.work()
    assert [await inn.post.rows(f"SELECT count(*) FROM {table}") for table in ("email", "membership", "job")] == before
    assert await inn.outcome(name) == outcome
