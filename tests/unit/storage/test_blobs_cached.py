"""Copies in memory: what is served from them, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from posthouse import errors
from posthouse.storage.blobs.base import Blobs, Capabilities, Key, check_content, key_of, not_found
from posthouse.storage.blobs.cached import CachedBlobs, Memory, near


class Far:
    """A store that counts what it is asked, and answers when it is let."""

    capabilities = Capabilities(local=False)

    def __init__(self) -> None:
        self.objects: dict[Key, bytes] = {}
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failure: Exception | None = None

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        await self.open.wait()
        if self.failure is not None:
            raise self.failure

    async def put(self, data: bytes) -> Key:
        await self._ask("put")
        self.objects[key_of(data)] = bytes(data)
        return key_of(data)

    async def get(self, key: Key) -> bytes:
        await self._ask("get")
        if key not in self.objects:
            raise not_found(key)
        return check_content(key, self.objects[key])

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        await self._ask(f"range {start} {length}")
        if key not in self.objects:
            raise not_found(key)
        return self.objects[key][start : start + length]

    async def exists(self, key: Key) -> bool:
        await self._ask("exists")
        return key in self.objects

    async def delete(self, key: Key) -> None:
        await self._ask("delete")
        self.objects.pop(key, None)

    async def keys(self) -> AsyncIterator[Key]:
        for key in self.objects:
            yield key

    async def ready(self) -> None:
        await self._ask("ready")

    async def close(self) -> None:
        self.asked.append("close")


class Time:
    at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def far() -> Far:
    return Far()


@pytest.fixture
def blobs(far: Far) -> CachedBlobs:
    return CachedBlobs(far, Memory(1000), small=400)


def added(far: Far, data: bytes) -> Key:
    """As another process put it."""
    far.objects[key_of(data)] = data
    return key_of(data)


async def test_read_twice_asked_once(far: Far, blobs: CachedBlobs) -> None:
    key = added(far, b"data")
    assert [await blobs.get(key) for _ in range(3)] == [b"data"] * 3
    assert await blobs.get_range(key, 1, 2) == b"at"
    assert far.asked == ["get"]


async def test_what_was_put_is_near(far: Far, blobs: CachedBlobs) -> None:
    key = await blobs.put(b"data")
    assert await blobs.get(key) == b"data"
    assert await blobs.get_range(key, 3, 100) == b"a"
    assert await blobs.get_range(key, 4, 1) == b""
    assert far.asked == ["put"]


async def test_what_decides_asks_the_store(far: Far, blobs: CachedBlobs) -> None:
    key = await blobs.put(b"data")
    far.objects.clear()  # another process deleted it
    assert not await blobs.exists(key)
    assert [one async for one in blobs.keys()] == []  # noqa: SIM118
    await blobs.put(b"data")
    assert key in far.objects, "a copy in memory makes nothing durable"


async def test_a_part_of_a_small_one_brings_the_rest(far: Far, blobs: CachedBlobs) -> None:
    key = added(far, bytes(range(200)))
    assert await blobs.get_range(key, 10, 5) == bytes(range(10, 15))
    assert await blobs.get_range(key, 190, 50) == bytes(range(190, 200))
    assert await blobs.get_range(key, 10, 0) == b""
    assert await blobs.get(key) == bytes(range(200))
    assert far.asked == ["range 0 400"]


@pytest.mark.parametrize("size", [400, 401, 5000])
async def test_a_part_of_a_large_one_is_that_part(far: Far, blobs: CachedBlobs, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    key = added(far, data)
    for _ in range(2):
        assert await blobs.get_range(key, 10, 50) == data[10:60]
        assert await blobs.get_range(key, 350, 100) == data[350:450]
    assert far.asked == ["range 0 400", "range 350 100", "range 10 50", "range 350 100"]
    assert await blobs.put(data) == key
    assert await blobs.get(key) == data
    assert len(far.asked) == 6 if size > 400 else True


async def test_damaged_octets_are_not_kept(far: Far, blobs: CachedBlobs) -> None:
    key = added(far, b"important")
    far.objects[key] = b"1mportant"
    assert await blobs.get_range(key, 0, 3) == b"1mp", "a range is not checked"
    with pytest.raises(errors.Corrupt):
        await blobs.get(key)
    far.objects[key] = b"important"
    assert await blobs.get_range(key, 0, 3) == b"imp"
    assert await blobs.get(key) == b"important"


async def test_many_who_ask_at_once_ask_once(far: Far, blobs: CachedBlobs) -> None:
    key = added(far, b"data")
    far.open.clear()
    asking = [asyncio.create_task(blobs.get(key)) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the first gives up: the others still get it
    await asyncio.sleep(0)
    far.open.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [b"data"] * 49
    assert far.asked == ["get"]


async def test_a_failure_is_told_to_all_and_not_kept(far: Far, blobs: CachedBlobs) -> None:
    key = added(far, b"data")
    far.failure = errors.StorageUnavailable(detail="away")
    answers = await asyncio.gather(*(blobs.get(key) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, errors.StorageUnavailable) for each in answers)
    far.failure = None
    assert await blobs.get(key) == b"data"
    missing = key_of(b"none")
    for _ in range(2):
        with pytest.raises(errors.NotFound):
            await blobs.get(missing)
    assert far.asked == ["get"] * 4, "what is missing may come at any time"


async def test_a_read_that_a_deletion_overtakes_is_not_kept(far: Far, blobs: CachedBlobs) -> None:
    key = added(far, b"data")
    far.open.clear()
    reading = [asyncio.create_task(blobs.get(key)), asyncio.create_task(blobs.get_range(key, 0, 2))]
    await asyncio.sleep(0)
    deleting = asyncio.create_task(blobs.delete(key))
    await asyncio.sleep(0)
    late = asyncio.create_task(blobs.get(key))
    await asyncio.sleep(0)
    far.open.set()
    await asyncio.gather(*reading, deleting, late, return_exceptions=True)
    with pytest.raises(errors.NotFound):
        await blobs.get(key)
    with pytest.raises(errors.NotFound):
        await blobs.get_range(key, 0, 1)


async def test_a_deletion_that_fails_forgets_all_the_same(far: Far, blobs: CachedBlobs) -> None:
    key = await blobs.put(b"data")
    far.failure = errors.StorageUnavailable(detail="away")
    with pytest.raises(errors.StorageUnavailable):
        await blobs.delete(key)
    far.failure, far.asked = None, []
    assert await blobs.get(key) == b"data"
    assert far.asked == ["get"]


async def test_memory_is_bounded_and_the_longest_unused_goes(far: Far) -> None:
    memory = Memory(1000)
    blobs = CachedBlobs(far, memory, small=400)
    keys = [await blobs.put(bytes([n]) * 300) for n in range(3)]
    await blobs.get(keys[0])
    keys.append(await blobs.put(b"x" * 300))
    assert memory.held == 900
    far.asked.clear()
    for key in (keys[0], keys[2], keys[3]):
        await blobs.get(key)
    assert far.asked == []
    await blobs.get(keys[1])
    assert far.asked == ["get"]
    await blobs.close()
    assert memory.held == 0
    assert far.asked[-1] == "close"


async def test_a_copy_does_not_outlive_its_age(far: Far) -> None:
    now = Time()
    blobs = CachedBlobs(far, Memory(1000, age=60, monotonic=now), small=400)
    key = await blobs.put(b"data")
    now.at = 59
    await blobs.get(key)
    assert far.asked == ["put"]
    now.at = 60
    far.objects.clear()
    with pytest.raises(errors.NotFound):
        await blobs.get(key)


async def test_two_stores_in_one_memory_are_two(far: Far) -> None:
    memory, other = Memory(1000), Far()
    one, two = CachedBlobs(far, memory), CachedBlobs(other, memory)
    key = await one.put(b"data")
    with pytest.raises(errors.NotFound):
        await two.get(key)


async def test_what_waits_at_the_end_is_ended(far: Far, blobs: CachedBlobs) -> None:
    far.open.clear()
    key = added(far, b"data")
    reading = asyncio.create_task(blobs.get(key))
    await asyncio.sleep(0)
    await blobs.close()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_only_before_what_is_far(far: Far) -> None:
    assert isinstance(near(far, Memory(1000)), CachedBlobs)
    assert near(far, Memory(0)) is far
    local: Blobs = Far()
    local.capabilities = Capabilities(local=True)
    assert near(local, Memory(1000)) is local
