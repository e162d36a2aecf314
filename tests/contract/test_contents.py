"""What `storage.contents` promises, on both engines, with a directory of blobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

import pytest

from posthouse.clock import SECOND
from posthouse.errors import Corrupt, NotFound
from posthouse.storage.blobs.base import Blobs, Key, key_of
from posthouse.storage.contents import GRACE, Content, Contents
from posthouse.storage.records.base import Records, Tx
from tests.conftest import ManualClock

SMALL, LARGE = b"small", b"large" * 100


@pytest.fixture
async def contents(records: Records, local_blobs: Blobs, clock: ManualClock) -> AsyncIterator[Contents]:
    yield Contents(records, local_blobs, small=100, clock=clock)


async def keep(records: Records, contents: Contents, *given: tuple[Content, int], anew: bool = False) -> frozenset[Key]:
    return await records.write(lambda tx: contents.keep(tx, given, anew=anew))


async def kept(records: Records, contents: Contents, data: bytes, refs: int = 1) -> Key:
    content = await contents.put(data)
    assert not await keep(records, contents, (content, refs))
    return content.key


async def release(records: Records, contents: Contents, *counts: tuple[Key, int]) -> None:
    await records.write(lambda tx: contents.add(tx, counts))


async def rows(records: Records) -> list[tuple[Key, int]]:
    async def work(tx: Tx) -> list[tuple[Key, int]]:
        return [(key, refs) for key, refs in await tx.rows("SELECT key, refs FROM content ORDER BY key")]

    return await records.read(work)


@pytest.mark.parametrize("data", [SMALL, LARGE, b""])
async def test_what_is_kept_is_got(records: Records, contents: Contents, data: bytes) -> None:
    key = await kept(records, contents, data)
    assert await contents.get(key) == data
    assert await contents.get_range(key, 1, 3) == data[1:4]
    assert await contents.get_range(key, 1000, 3) == b""
    assert await contents.get_many([key, key, "0" * 64]) == {key: data}


async def test_a_map_is_kept_like_bytes(records: Records, contents: Contents, tmp_path: Path) -> None:
    for data in (SMALL, LARGE):
        (tmp_path / "spool").write_bytes(data)
        with (tmp_path / "spool").open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
            content = await contents.put(mapped)
        await keep(records, contents, (content, 1))
        assert await contents.get(content.key) == data


async def test_small_ones_lie_in_the_records_alone(records: Records, contents: Contents, local_blobs: Blobs) -> None:
    small, large = [await kept(records, contents, data) for data in (SMALL, LARGE)]
    assert [key async for key in local_blobs.keys()] == [large]  # noqa: SIM118 - not a dict
    assert not await local_blobs.exists(small)


async def test_references_are_counted(records: Records, contents: Contents) -> None:
    content = await contents.put(SMALL)
    await keep(records, contents, (content, 1), (content, 2))
    await keep(records, contents, (content, 1))
    assert await rows(records) == [(content.key, 4)]
    await release(records, contents, (content.key, -1), (content.key, -2))
    assert await rows(records) == [(content.key, 1)]


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_what_nobody_refers_to_is_collected_after_a_while(
    records: Records, contents: Contents, local_blobs: Blobs, clock: ManualClock, data: bytes
) -> None:
    key = await kept(records, contents, data)
    clock.advance(2 * GRACE / SECOND)
    assert await contents.collect() == 0
    await release(records, contents, (key, -1))
    assert await contents.collect() == 0, "too early"
    clock.advance(1 + GRACE / SECOND)
    assert await contents.collect() == 1
    assert not await local_blobs.exists(key)
    clock.advance(1 + GRACE / SECOND)
    await contents.collect()
    assert await rows(records) == []
    with pytest.raises(NotFound):
        await contents.get(key)


async def test_one_that_comes_again_while_it_is_removed_is_put_anew(
    records: Records, contents: Contents, clock: ManualClock
) -> None:
    key = await kept(records, contents, LARGE)
    await release(records, contents, (key, -1))
    again = await contents.put(LARGE)  # nothing is written: it is still there
    clock.advance(1 + GRACE / SECOND)
    await contents.collect()
    assert await keep(records, contents, (again, 1)) == {key}
    assert await rows(records) == [(key, 0)]
    await contents.put(LARGE)
    assert not await keep(records, contents, (again, 1), anew=True)
    clock.advance(3 * GRACE / SECOND)
    await contents.collect()
    assert await contents.get(key) == LARGE
    assert await rows(records) == [(key, 1)]


async def test_condemned_but_not_yet_removed_is_never_counted(
    records: Records, contents: Contents, clock: ManualClock
) -> None:
    key = await kept(records, contents, LARGE)
    await release(records, contents, (key, -1))
    await records.write(lambda tx: tx.run("UPDATE content SET condemned_at = 1"))
    content = await contents.put(LARGE)
    assert await keep(records, contents, (content, 1)) == {key}
    assert await keep(records, contents, (content, 1), anew=True) == {key}


async def test_collecting_beside_deliveries_never_takes_what_is_in_use(
    records: Records, contents: Contents, clock: ManualClock
) -> None:
    """Each delivery follows the protocol; whatever was acknowledged can be read at the end."""
    datas = [os.urandom(size) for size in (50, 50, 400, 400)]
    balance = dict.fromkeys(range(4), 0)
    stop = False

    async def deliver(seed: int) -> None:
        for step in range(30):
            place = (seed + step) % 4
            content = await contents.put(datas[place])
            if await keep(records, contents, (content, 1)):
                await contents.put(datas[place])
                if await keep(records, contents, (content, 1), anew=True):
                    continue  # the peer comes again
            balance[place] += 1
            if (seed + step) % 3:
                balance[place] -= 1
                await release(records, contents, (content.key, -1))

    async def collect() -> None:
        while not stop:
            clock.advance(1 + GRACE / SECOND / 40)
            await contents.collect(most=3)
            await asyncio.sleep(0)

    collector = asyncio.create_task(collect())
    await asyncio.gather(*(deliver(seed) for seed in range(8)))
    stop = True
    await collector
    counted = dict(await rows(records))
    assert sum(balance.values()) > 20
    for place, data in enumerate(datas):
        assert counted[key_of(data)] == balance[place]
        assert await contents.get(key_of(data)) == data


async def test_damage_is_seen(records: Records, contents: Contents) -> None:
    key = await kept(records, contents, SMALL)
    await records.write(lambda tx: tx.run("UPDATE content SET data = $1", b"other"))
    with pytest.raises(Corrupt):
        await contents.get(key)
