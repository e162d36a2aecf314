"""Blobs in a directory: `ab/cd/<key>`, written beside and renamed into place.

The bytes are on disk before the name is, and the name before `put` returns: fsync of the
file, rename, fsync of its directory (and once in a process, of each directory's parent).
A crash leaves at most a file under `tmp/`, which a later open removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from pathlib import Path
from typing import TypeVar

from posthouse import errors
from posthouse.storage.blobs.base import Capabilities, Key, check_content, check_key, is_key, key_of, not_found

T = TypeVar("T")

_ABANDONED = 600.0
"""Seconds after which a temporary file belongs to nobody: no write takes so long."""


class LocalBlobs:
    """`base.Blobs` over a directory. Made by `open`."""

    def __init__(self, root: Path, *, threads: int = 4) -> None:
        self.capabilities = Capabilities(local=True)
        self._root = root
        self._temporary = root / "tmp"
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="blobs")
        # Directories whose names are durable as far as we know, by their number at each depth.
        self._settled = (bytearray(16**2), bytearray(16**4))

    @classmethod
    async def open(cls, root: Path) -> LocalBlobs:
        """:raises Misconfigured: the directory cannot be made or written."""
        blobs = cls(root)
        try:
            await blobs._call(blobs._prepare)
        except errors.StorageUnavailable as error:
            await blobs.close()
            raise errors.Misconfigured(
                f"the blobs directory {root} cannot be used: {error.detail}", code="blobs_unreachable"
            ) from error
        return blobs

    async def put(self, data: bytes | mmap) -> Key:
        key = key_of(data)
        await self._call(lambda: self._put(key, data))
        return key

    async def get(self, key: Key) -> bytes:
        check_key(key)
        return await self._call(lambda: self._get(key))

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        check_key(key)
        return await self._call(lambda: self._get_range(key, start, length))

    async def exists(self, key: Key) -> bool:
        return is_key(key) and await self._call(self._path(key).exists)

    async def delete(self, key: Key) -> None:
        if is_key(key):
            await self._call(lambda: self._path(key).unlink(missing_ok=True))

    async def keys(self) -> AsyncIterator[Key]:
        for directory in await self._call(lambda: _names(self._root)):
            for inner in await self._call(lambda d=directory: _names(self._root / d)):
                for name in await self._call(lambda d=directory, i=inner: _names(self._root / d / i)):
                    if is_key(name):
                        yield name

    async def ready(self) -> None:
        await self._call(lambda: self._write_temporary(b"ready").unlink())

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.shutdown)

    async def _call(self, action: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, action)
        except OSError as error:
            raise errors.StorageUnavailable(detail=f"blobs: {error}") from error
        except RuntimeError as error:  # the pool is shut down
            raise errors.StorageUnavailable(detail="blobs: closed") from error

    def _path(self, key: Key) -> Path:
        return self._root / key[:2] / key[2:4] / key

    def _prepare(self) -> None:
        missing = [made for made in self._root.parents if not made.exists()]
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._temporary.mkdir(mode=0o700, exist_ok=True)
        for directory in (self._root, self._root.parent, *(made.parent for made in missing)):
            with contextlib.suppress(PermissionError):  # of one above, that we may pass and not read
                _fsync(directory)
        long_ago = time.time() - _ABANDONED
        for entry in list(os.scandir(self._temporary)):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < long_ago:
                    Path(entry.path).unlink()

    def _put(self, key: Key, data: bytes | mmap) -> None:
        path = self._path(key)
        if not _has_size(path, len(data)):
            self._make_directories(key)
            temporary = self._write_temporary(data)
            try:
                temporary.replace(path)  # another's identical bytes at the most
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        # Also when it lay there: whoever is writing it may not have come to this yet.
        _fsync(path.parent)

    def _make_directories(self, key: Key) -> None:
        """One that is there may be another's, who has not come to its fsync yet, or died before it."""
        for settled, digits in zip(self._settled, (2, 4), strict=True):
            made = self._root / key[:2] if digits == 2 else self._root / key[:2] / key[2:4]
            number = int(key[:digits], 16)
            try:
                made.mkdir(mode=0o700)
            except FileExistsError:
                if settled[number]:
                    continue
            _fsync(made.parent)
            settled[number] = 1

    def _write_temporary(self, data: bytes | mmap) -> Path:
        path = self._temporary / f"{os.getpid()}-{secrets.token_hex(12)}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return path

    def _get(self, key: Key) -> bytes:
        try:
            return check_content(key, self._path(key).read_bytes())
        except FileNotFoundError:
            raise not_found(key) from None

    def _get_range(self, key: Key, start: int, length: int) -> bytes:
        try:
            with self._path(key).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except FileNotFoundError:
            raise not_found(key) from None


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 - names are all that is needed
    except (FileNotFoundError, NotADirectoryError):
        return []


def _fsync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
