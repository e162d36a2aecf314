"""S3's own: large ones in parts, one of many who put wins, a server that is busy, slow, lies or stops."""

from __future__ import annotations

import asyncio
import mmap
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse import errors
from posthouse.storage.blobs.base import Blobs, key_of
from posthouse.storage.blobs.s3 import PART, S3Blobs
from tests.conftest import S3_ACCESS_KEY, S3_BUCKET, S3_SECRET_KEY
from tests.contract.front import Front, Rule, front

LARGE = 3 * PART + 12_345


def opened(endpoint: str, prefix: str, **bounds: float) -> Blobs:
    keys = {"access_key": S3_ACCESS_KEY, "secret_key": S3_SECRET_KEY}
    return S3Blobs(S3_BUCKET, prefix=prefix, endpoint=endpoint, **keys, **bounds)  # type: ignore[arg-type]


@pytest.fixture
async def before(s3_server: str) -> AsyncIterator[Front]:
    async with front(s3_server) as made:
        yield made


@pytest.fixture
def prefix() -> str:
    return f"p{secrets.token_hex(6)}"


@pytest.fixture
async def through(before: Front, prefix: str) -> AsyncIterator[Blobs]:
    blobs = opened(before.url, prefix, request_timeout=2.0, timeout=8.0)
    yield blobs
    await blobs.close()


def sent(before: Front, what: str) -> int:
    return sum(what in each for each in before.seen)


async def test_a_large_one_goes_in_parts_and_once(through: Blobs, before: Front) -> None:
    data = os.urandom(LARGE)
    key = await through.put(data)
    assert sent(before, "partNumber=") == 4
    assert await through.get(key) == data
    assert await through.get_range(key, PART - 5, 10) == data[PART - 5 : PART + 5]
    before.seen.clear()
    assert await through.put(data) == key
    assert [each.split(" ")[0] for each in before.seen] == ["HEAD"], "asked for, and not sent again"


async def test_a_mapped_file_is_not_read_whole(s3_server: str, prefix: str) -> None:
    """Of 160 MB no more lies in memory at once than the parts on their way."""
    size = 160 * 1024 * 1024
    blobs = opened(s3_server, prefix)
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        for at in range(0, size, PART):
            file.seek(at)
            file.write(secrets.token_bytes(16))
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped:
            most = 0
            putting = asyncio.create_task(blobs.put(mapped))
            lowest = _anonymous()
            while not putting.done():
                most = max(most, _anonymous() - lowest)
                await asyncio.sleep(0.01)
            key = await putting
    assert most < size // 2
    assert await blobs.exists(key)
    assert len(await blobs.get_range(key, size - 100, 200)) == 100
    await blobs.delete(key)


def _anonymous() -> int:
    """Octets in memory of ours that are no file's."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_of_many_who_put_at_once_the_store_has_one(s3_server: str, prefix: str, size: int) -> None:
    data = os.urandom(size)
    many = [opened(s3_server, prefix) for _ in range(8)]
    keys = await asyncio.gather(*(each.put(data) for each in many[: 8 if size < PART else 3]))
    assert set(keys) == {key_of(data)}
    assert [key async for key in many[0].keys()] == [key_of(data)]  # noqa: SIM118
    assert await many[0].get(key_of(data)) == data


async def test_one_put_of_many_writes(through: Blobs, before: Front) -> None:
    await asyncio.gather(*(through.put(b"the same") for _ in range(5)))
    conditional = [each for each in before.seen if each.startswith("PUT")]
    assert len(conditional) == 5
    before.seen.clear()
    before.rules.append(Rule(method="PUT", status=412, body=b"<Error><Code>PreconditionFailed</Code></Error>"))
    await through.put(b"the same")


async def test_connections_are_used_again(through: Blobs, before: Front) -> None:
    for n in range(20):
        key = await through.put(b"%d" % n)
        await through.get(key)
    assert before.connections == 1


@pytest.mark.parametrize("status", [500, 503])
async def test_a_busy_server_is_tried_again(through: Blobs, before: Front, status: int) -> None:
    for method in ("PUT", "GET", "HEAD"):
        before.rules.append(Rule(method=method, status=status, times=2))
    key = await through.put(b"data")
    assert await through.get(key) == b"data"
    assert await through.exists(key)
    large = await through.put(os.urandom(LARGE))
    before.rules.append(Rule(method="GET", status=status, times=2))
    assert key_of(await through.get(large)) == large


async def test_one_that_stays_busy_is_given_up(through: Blobs, before: Front) -> None:
    before.rules.append(Rule(status=503, body=b"<Error><Code>SlowDown</Code></Error>"))
    for attempt in (through.put(b"data"), through.get(key_of(b"data")), through.exists(key_of(b"data"))):
        began = time.monotonic()
        with pytest.raises(errors.StorageUnavailable):
            await attempt
        assert time.monotonic() - began < 60
    assert len(before.seen) <= 12, "four tries each"


async def test_a_slow_server_is_given_up_in_time(before: Front, prefix: str) -> None:
    blobs = opened(before.url, prefix, request_timeout=0.4, timeout=1.5)
    key = await blobs.put(b"data")
    before.rules.append(Rule(slow=100))
    for attempt in (blobs.get(key), blobs.put(b"more"), blobs.get_range(key, 0, 1), blobs.ready()):
        began = time.monotonic()
        with pytest.raises(errors.StorageUnavailable):
            await attempt
        assert time.monotonic() - began < 60
    before.rules.clear()
    assert await blobs.get(key) == b"data"


async def test_one_slow_answer_is_asked_for_again(before: Front, prefix: str) -> None:
    blobs = opened(before.url, prefix, request_timeout=0.5, timeout=5)
    key = await blobs.put(b"data")
    before.rules.append(Rule(method="GET", slow=30, times=1))
    assert await blobs.get(key) == b"data"


async def test_octets_that_changed_on_the_way_are_asked_for_again(through: Blobs, before: Front) -> None:
    key = await through.put(b"important")
    before.rules.append(Rule(method="GET", change=lambda body: b"1" + body[1:], times=1))
    assert await through.get(key) == b"important"
    before.rules.append(Rule(method="GET", change=lambda body: b"1" + body[1:]))
    with pytest.raises(errors.Corrupt):
        await through.get(key)


async def test_a_connection_that_breaks_is_made_again(through: Blobs, before: Front) -> None:
    key = await through.put(b"data")
    before.rules.append(Rule(method="GET", cut=True, times=2))
    assert await through.get(key) == b"data"


async def test_a_server_that_stops_in_the_middle_of_a_large_one(through: Blobs, before: Front, prefix: str) -> None:
    """Nothing of it is seen, and putting it again makes it whole."""
    data = os.urandom(LARGE)
    before.rules.append(Rule(path="partNumber=1", times=1))
    before.rules.append(Rule(path="partNumber=", cut=True))
    before.rules.append(Rule(method="GET", cut=True))
    before.rules.append(Rule(method="HEAD", times=1))
    began = time.monotonic()
    with pytest.raises(errors.StorageUnavailable):
        await through.put(data)
    assert time.monotonic() - began < 100
    assert sent(before, "partNumber=") >= 2
    before.rules.clear()
    assert not await through.exists(key_of(data))
    assert [key async for key in through.keys()] == []  # noqa: SIM118
    key = await through.put(data)
    assert await through.get(key) == data


async def test_what_is_told_says_what_to_do(s3_server: str) -> None:
    with pytest.raises(errors.StorageUnavailable) as raised:
        await S3Blobs("nothing", endpoint=s3_server, access_key=S3_ACCESS_KEY, secret_key=S3_SECRET_KEY).ready()
    assert "no bucket nothing: make it, or correct blobs.url" in raised.value.detail
    blobs = S3Blobs(S3_BUCKET, endpoint=s3_server, access_key=S3_ACCESS_KEY, secret_key="a-wrong-secret")
    with pytest.raises(errors.StorageUnavailable) as raised:
        await blobs.put(b"data")
    assert "blobs.access_key" in raised.value.detail
    assert "a-wrong-secret" not in raised.value.detail
