"""Processes agree on the time whatever their own clocks say."""

from __future__ import annotations

import asyncio
import time

import pytest

from posthouse.clock import SECOND, now
from posthouse.errors import StorageUnavailable
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records
from posthouse.storage.records.server_clock import ServerClock, cluster_clock
from tests.contract import processes

TEN_MINUTES = 600 * SECOND
ON_POSTGRES = pytest.mark.parametrize("records_url", ["postgres_url"], indirect=True)


@ON_POSTGRES
@pytest.mark.parametrize("off", [-TEN_MINUTES, TEN_MINUTES, 40 * 365 * 86_400 * SECOND])
async def test_a_clock_that_is_off_is_put_right(records: Records, off: int) -> None:
    clock = ServerClock(records, local=lambda: now() + off)
    assert abs(clock() - now() - off) < SECOND
    await clock.measure()
    assert abs(clock() - now()) < SECOND
    assert abs(clock.offset + off) < SECOND


@ON_POSTGRES
async def test_a_clock_that_is_set_while_we_run_changes_nothing(records: Records) -> None:
    off = 0
    clock = ServerClock(records, local=lambda: now() + off)
    await clock.measure()
    off = TEN_MINUTES
    assert abs(clock() - now()) < SECOND


@ON_POSTGRES
async def test_a_measure_that_is_as_exact_as_the_last_moves_nothing(records: Records) -> None:
    clock = ServerClock(records)
    await clock.measure()
    ahead = clock() - time.monotonic_ns() // 1000
    for _ in range(5):
        await clock.measure()
        assert abs(clock() - time.monotonic_ns() // 1000 - ahead) < SECOND // 10


@ON_POSTGRES
async def test_a_server_that_is_away_is_asked_again_later(records: Records) -> None:
    clock = ServerClock(records)
    await clock.measure()
    await records.close()
    with pytest.raises(StorageUnavailable):
        await clock.measure()
    await clock.round()
    assert abs(clock() - now()) < SECOND


async def test_where_one_process_owns_the_records_its_clock_is_the_clusters(records: Records) -> None:
    clock, measure = await cluster_clock(records)
    assert abs(clock() - now()) < SECOND
    assert (measure is None) == (records.capabilities.engine == "sqlite")


@ON_POSTGRES
@pytest.mark.parametrize("seconds", ["-600", "600"])
async def test_a_lease_of_a_process_whose_clock_is_off_holds_as_long_as_any(
    records: Records, records_url: str, seconds: str
) -> None:
    queue = RecordsQueue(records)
    await queue.put([Job("send", Lane.BULK, "t", now() - SECOND, "one")])
    process = processes.start("skewed", records_url, seconds)
    said, _ = await asyncio.to_thread(process.communicate)
    assert said.splitlines()[-1] == "one"  # after a line of the log about the clock
    assert await queue.claim("send", Lane.BULK, 1, lease=30) == []
    later = RecordsQueue(records, clock=lambda: now() + 31 * SECOND)
    assert [job.id for job in await later.claim("send", Lane.BULK, 1, lease=30)] == ["one"]
