"""What `storage.blobs.base` promises, on each store."""

from __future__ import annotations

import asyncio
import os

import pytest

from posthouse import errors
from posthouse.storage.blobs.base import Blobs, key_of


@pytest.mark.parametrize("size", [0, 1, 1000, 6_000_000])
async def test_what_is_put_is_got(blobs: Blobs, size: int) -> None:
    data = os.urandom(size)
    key = await blobs.put(data)
    assert key == key_of(data)
    assert await blobs.exists(key)
    assert await blobs.get(key) == data


async def test_the_same_bytes_are_stored_once(blobs: Blobs) -> None:
    keys = await asyncio.gather(*(blobs.put(b"the same") for _ in range(10)))
    assert len(set(keys)) == 1
    assert [key async for key in blobs.keys()] == keys[:1]  # noqa: SIM118 - not a dict


async def test_ranges(blobs: Blobs) -> None:
    key = await blobs.put(bytes(range(100)))
    assert await blobs.get_range(key, 0, 10) == bytes(range(10))
    assert await blobs.get_range(key, 90, 10) == bytes(range(90, 100))
    assert await blobs.get_range(key, 90, 1000) == bytes(range(90, 100))
    assert await blobs.get_range(key, 100, 10) == b""
    assert await blobs.get_range(key, 1000, 10) == b""
    assert await blobs.get_range(key, 5, 0) == b""


async def test_what_is_missing_is_not_found(blobs: Blobs) -> None:
    for key in (key_of(b"never put"), "../../etc/passwd", "", "A" * 64, "é" * 64):
        assert not await blobs.exists(key)
        await blobs.delete(key)
        with pytest.raises(errors.NotFound) as raised:
            await blobs.get(key)
        assert raised.value.code == "blob_not_found"
        with pytest.raises(errors.NotFound):
            await blobs.get_range(key, 0, 1)


async def test_deleted_is_gone_and_may_come_again(blobs: Blobs) -> None:
    key = await blobs.put(b"data")
    await blobs.delete(key)
    await blobs.delete(key)
    assert not await blobs.exists(key)
    assert await blobs.put(b"data") == key
    assert await blobs.get(key) == b"data"


async def test_keys_lists_all(blobs: Blobs) -> None:
    put = {await blobs.put(str(i).encode()) for i in range(60)}
    assert {key async for key in blobs.keys()} == put  # noqa: SIM118


async def test_ready(blobs: Blobs) -> None:
    await blobs.ready()
    assert [key async for key in blobs.keys()] == []  # noqa: SIM118
