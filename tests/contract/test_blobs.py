"""What `storage.blobs.base` promises, on each store."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse import errors
from posthouse.storage.blobs.base import Blobs, key_of
from posthouse.storage.blobs.factory import open_blobs
from tests.conftest import S3_ACCESS_KEY, S3_BUCKET, S3_SECRET_KEY, SERVICES_DIR, Service
from tests.contract import processes


@pytest.mark.parametrize("size", [0, 1, 1000, 6_000_000, 40_000_001])
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


# The local directory's own.


def only_file(directory: Path) -> Path:
    (path,) = [path for path in directory.glob("*/*/*") if path.is_file()]
    return path


async def test_damaged_bytes_are_corrupt_and_put_again_when_cut(local_blobs: Blobs, tmp_path: Path) -> None:
    key = await local_blobs.put(b"important")
    path = only_file(tmp_path / "blobs")
    path.write_bytes(b"1mportant")
    with pytest.raises(errors.Corrupt):
        await local_blobs.get(key)
    path.write_bytes(b"imp")
    with pytest.raises(errors.Corrupt):
        await local_blobs.get(key)
    await local_blobs.put(b"important")
    assert await local_blobs.get(key) == b"important"


async def test_only_the_owner_may_read(local_blobs: Blobs, tmp_path: Path) -> None:
    key = await local_blobs.put(b"private")
    path = only_file(tmp_path / "blobs")
    assert path == tmp_path / "blobs" / key[:2] / key[2:4] / key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for directory in list(path.parents)[:3]:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_a_full_disk_is_unavailable_and_leaves_nothing(local_blobs: Blobs, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(errors.StorageUnavailable):
            await local_blobs.put(b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
    assert await local_blobs.exists(await local_blobs.put(b"x" * 10_000))


async def test_what_a_crash_left_is_swept_and_what_is_new_is_not(tmp_path: Path) -> None:
    temporary = tmp_path / "blobs" / "tmp"
    temporary.mkdir(parents=True)
    (temporary / "old").write_bytes(b"half")
    (temporary / "new").write_bytes(b"being written by another")
    os.utime(temporary / "old", (0, 0))
    blobs = await open_blobs(f"file://{tmp_path / 'blobs'}")
    assert [path.name for path in temporary.iterdir()] == ["new"]
    assert [key async for key in blobs.keys()] == []  # noqa: SIM118
    await blobs.close()
    with pytest.raises(errors.StorageUnavailable):
        await blobs.put(b"closed")


async def test_a_directory_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.Misconfigured, match="cannot be used"):
        await open_blobs(f"file://{tmp_path / 'file' / 'blobs'}")


async def test_what_a_killed_process_acknowledged_is_there(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'blobs'}"
    keys = await asyncio.to_thread(processes.kill_after, processes.start("blobs", url), 50)
    assert len(keys) >= 50
    blobs = await open_blobs(url)
    for key in keys:
        await blobs.get(key)
    await blobs.close()


# S3's own.


@pytest.fixture
def own_server(s3_server: str) -> Iterator[Service]:
    """A server that a test may stop, from the programs of the shared one."""
    directory = Path(tempfile.mkdtemp(prefix="posthouse-"))
    programs = os.environ.get("S3_PROGRAMS") or str(SERVICES_DIR.absolute() / "s3" / "bin")
    service = Service("s3", directory, {"S3_PROGRAMS": programs})
    yield service
    service.stop()
    shutil.rmtree(directory, ignore_errors=True)


async def open_s3(endpoint: str, **options: str) -> Blobs:
    keys = {"access_key": S3_ACCESS_KEY, "secret_key": S3_SECRET_KEY, **options}
    return await open_blobs(f"s3://{S3_BUCKET}/p{secrets.token_hex(4)}?endpoint={endpoint}", **keys)


async def test_a_server_that_stops_and_starts(own_server: Service) -> None:
    endpoint = await asyncio.to_thread(own_server.start)
    own_server.environment["S3_PORT"] = endpoint.rsplit(":", 1)[1]
    blobs = await open_s3(endpoint)
    key = await blobs.put(b"data")
    await asyncio.to_thread(own_server.stop)
    began = time.monotonic()
    with pytest.raises(errors.StorageUnavailable):
        await blobs.ready()
    with pytest.raises(errors.StorageUnavailable):
        await blobs.get(key)
    with pytest.raises(errors.StorageUnavailable):
        await blobs.put(b"more")
    assert time.monotonic() - began < 90
    await asyncio.to_thread(own_server.start)
    await blobs.ready()
    assert await blobs.get(key) == b"data"


async def test_damaged_objects_are_corrupt(own_server: Service) -> None:
    blobs = await open_s3(await asyncio.to_thread(own_server.start))
    key = await blobs.put(b"important")
    (path,) = [path for path in (own_server.directory / "s3" / "data").rglob(key) if path.is_file()]
    path.write_bytes(b"1mportant")
    with pytest.raises(errors.Corrupt):
        await blobs.get(key)


async def test_wrong_credentials_are_unavailable(s3_server: str) -> None:
    blobs = await open_s3(s3_server, secret_key="wrong")
    with pytest.raises(errors.StorageUnavailable) as raised:
        await blobs.put(b"data")
    assert "wrong" not in raised.value.detail


async def test_a_missing_bucket_is_unavailable(s3_server: str) -> None:
    blobs = await open_blobs(f"s3://nothing?endpoint={s3_server}", access_key=S3_ACCESS_KEY, secret_key=S3_SECRET_KEY)
    with pytest.raises(errors.StorageUnavailable):
        await blobs.ready()
    with pytest.raises(errors.StorageUnavailable):
        await blobs.put(b"data")
