"""What one process of a cluster does: of two servers on one PostgreSQL one does it, then the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from posthouse.app.parts import Parts, opened
from posthouse.clock import now
from posthouse.config import Settings
from posthouse.storage.records.base import Records
from posthouse.storage.records.partitions import AHEAD, MESSAGE, Partitions
from tests.contract.ledger_rows import message


@pytest.fixture
async def two(records_url: str, tmp_path: Path) -> AsyncIterator[list[Parts]]:
    """As many as the engine lets: SQLite is one process's."""
    async with AsyncExitStack() as stack:
        made: list[Parts] = []
        for n in range(1 if records_url.startswith("sqlite:") else 2):
            settings = Settings(data_dir=tmp_path / str(n), hostname="mail.a.example", records={"url": records_url})  # type: ignore[arg-type]
            (tmp_path / str(n)).mkdir()
            made.append(await stack.enter_async_context(opened(settings)))
        yield made


async def recovered(records: Records) -> int:
    rows = await records.read(lambda tx: tx.rows("SELECT message_id FROM event WHERE type = 'recovered'"))
    return len(rows)


async def test_one_of_them_does_it_for_all(two: list[Parts], records: Records) -> None:
    await message(records, now() - 10**10, "queued")
    running = [asyncio.create_task(parts.duties.run(schedule=True)) for parts in two]
    async with asyncio.timeout(20):
        while await recovered(records) == 0:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    assert await recovered(records) == 1, "not once for each"
    for parts in two:
        parts.duties.stop()
    await asyncio.wait_for(asyncio.gather(*running), 20)


@pytest.mark.parametrize("records_url", ["postgres_url"], indirect=True)
async def test_it_goes_to_another_when_its_process_stops(two: list[Parts], records: Records) -> None:
    async def holder() -> str:
        rows = await records.read(lambda tx: tx.rows("SELECT holder FROM lease WHERE until > 0"))
        return rows[0][0] if rows else ""

    running = [asyncio.create_task(parts.duties.run(schedule=True)) for parts in two]
    async with asyncio.timeout(30):
        while not (first := await holder()):
            await asyncio.sleep(0.05)
        one = next(parts for parts in two if _holds(parts, first))
        one.duties.stop()
        while await holder() in ("", first):
            await asyncio.sleep(0.05)
    for parts in two:
        parts.duties.stop()
    await asyncio.wait_for(asyncio.gather(*running), 20)


@pytest.mark.parametrize("records_url", ["postgres_url"], indirect=True)
async def test_a_process_without_the_role_does_not_stand_for_it(two: list[Parts], records: Records) -> None:
    parts = two[0]
    running = asyncio.create_task(parts.duties.run(schedule=False))
    await asyncio.sleep(0.5)
    assert await records.read(lambda tx: tx.rows("SELECT 1 FROM lease")) == []
    assert len(await Partitions(records, now).parts(MESSAGE)) == AHEAD + 1
    parts.duties.stop()
    await asyncio.wait_for(running, 20)


def _holds(parts: Parts, holder: str) -> bool:
    return parts.duties.holder == holder
