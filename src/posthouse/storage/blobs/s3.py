"""Blobs in a bucket of any server that speaks S3, through obstore.

Small ones are one conditional PUT: of many who put the same bytes at once, one writes. Large ones
go in parts, read from the mapped file as they are sent; whoever sees the name sees all of it. Parts
of an upload that its process did not end are the bucket's lifecycle rule to remove
(AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import timedelta
from mmap import mmap
from typing import Any, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from posthouse import errors
from posthouse.storage.blobs.base import Capabilities, Key, check_content, check_key, is_key, key_of, not_found

T = TypeVar("T")

PART = 8 * 1024 * 1024
"""Octets of one part (S3 wants 5 MiB at least, and 10,000 parts at most)."""
_PARTS_AT_ONCE = 4
_LARGE = 2 * PART
_SLOWEST = 1024 * 1024
"""Octets a second; what is slower than that is given up."""
_TRIES = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_IDLE = 60.0
"""Seconds for which a connection that nobody uses is kept."""
_SHOWN = 400


class S3Blobs:
    """`base.Blobs` over a bucket."""

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint: str | None = None,
        region: str = "us-east-1",
        access_key: str = "",
        secret_key: str = "",
        connect_timeout: float = 5.0,
        request_timeout: float = 20.0,
        timeout: float = 45.0,
    ) -> None:
        """
        :param request_timeout: seconds for one request, of one part at most.
        :param timeout: for an operation with all its tries; a large object has a second more for each MiB.
        :param prefix: before every key, so that a bucket can hold more than blobs.
        :param endpoint: `https://s3.example.com`; None: Amazon's for the region.
        :param access_key: empty: the machine's own role.
        :raises Misconfigured: obstore refuses the settings.
        """
        self.capabilities = Capabilities(local=False)
        self._timeout = timeout
        self._bucket = bucket
        settings: dict[str, Any] = {"region": region, "prefix": prefix or None}
        if endpoint:
            settings["endpoint"] = endpoint
        if access_key:
            settings |= {"access_key_id": access_key, "secret_access_key": secret_key}
        try:
            self._store = S3Store(
                bucket,
                **settings,
                client_options={
                    "allow_http": (endpoint or "").startswith("http://"),
                    "connect_timeout": timedelta(seconds=connect_timeout),
                    "timeout": timedelta(seconds=request_timeout),
                    "pool_idle_timeout": timedelta(seconds=_IDLE),
                },
                retry_config={
                    "max_retries": _TRIES - 1,
                    "retry_timeout": timedelta(seconds=timeout),
                    "backoff": {
                        "init_backoff": timedelta(seconds=_FIRST_PAUSE),
                        "max_backoff": timedelta(seconds=_LONGEST_PAUSE),
                        "base": 2,
                    },
                },
            )
        except (BaseError, ValueError) as error:
            raise errors.Misconfigured(
                "the blobs URL or its credentials are wrong", code="blobs_unreachable", detail=str(error)
            ) from error

    async def put(self, data: bytes | mmap) -> Key:
        key = await asyncio.to_thread(key_of, data) if len(data) > _LARGE else key_of(data)
        if len(data) > _LARGE:
            await self._put_large(key, data)
        else:
            await self._put_small(key, data)
        return key

    async def _put_small(self, key: Key, data: bytes | mmap) -> None:
        try:
            await self._answer(obstore.put_async(self._store, key, data, mode="create", use_multipart=False))
        except (FileExistsError, AlreadyExistsError):
            pass  # the same bytes, or they would lie elsewhere
        except NotSupportedError:
            await self._answer(obstore.put_async(self._store, key, data, use_multipart=False))

    async def _put_large(self, key: Key, data: bytes | mmap) -> None:
        """Two at once write the same bytes twice, and either is whole."""
        try:
            if (await self._answer(obstore.head_async(self._store, key), key))["size"] == len(data):
                return
        except errors.NotFound:
            pass
        sent = obstore.put_async(
            self._store, key, _parts(data), use_multipart=True, chunk_size=PART, max_concurrency=_PARTS_AT_ONCE
        )
        await self._answer(sent, more=len(data) / _SLOWEST)

    async def get(self, key: Key) -> bytes:
        check_key(key)
        try:
            return await self._checked(key)
        except errors.Corrupt:  # on the way, perhaps
            return await self._checked(key)

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        check_key(key)
        if length > 0:
            try:
                got = obstore.get_range_async(self._store, key, start=start, end=start + length)
                return bytes(await self._answer(got, key))
            except errors.StorageUnavailable as error:
                failure = error
        else:
            failure = None
        # A range that begins at the end or after it is an error to S3.
        if start < (await self._answer(obstore.head_async(self._store, key), key))["size"] and failure is not None:
            raise failure
        return b""

    async def exists(self, key: Key) -> bool:
        if not is_key(key):
            return False
        try:
            await self._answer(obstore.head_async(self._store, key), key)
        except errors.NotFound:
            return False
        return True

    async def delete(self, key: Key) -> None:
        if is_key(key):
            try:
                await self._answer(obstore.delete_async(self._store, key), key)
            except errors.NotFound:
                return

    async def keys(self) -> AsyncIterator[Key]:
        stream = obstore.list(self._store, chunk_size=1000)
        while True:
            try:
                objects = await self._answer(anext(stream))
            except StopAsyncIteration:
                return
            for found in objects:
                if is_key(found["path"]):
                    yield found["path"]

    async def ready(self) -> None:
        """One page of the list: the server answers, lets us in, and has the bucket."""
        stream = obstore.list(self._store, chunk_size=1)
        try:
            await self._answer(anext(stream))
        except StopAsyncIteration:
            return

    async def close(self) -> None:
        """Connections close with the store."""

    async def _checked(self, key: Key) -> bytes:
        return check_content(key, await self._answer(self._read(key)))

    async def _read(self, key: Key) -> bytes:
        try:
            answer = await obstore.get_async(self._store, key)
        except FileNotFoundError:
            raise not_found(key) from None
        return bytes(await answer.bytes_async())

    async def _answer(self, request: Awaitable[T], key: Key | None = None, *, more: float = 0.0) -> T:
        """
        :param more: seconds, for what takes longer than others.
        :raises NotFound: only when a `key` is named; else the bucket is what is missing.
        """
        try:
            async with asyncio.timeout(self._timeout + more):
                return await request
        except TimeoutError:
            raise _unavailable(f"no answer in {self._timeout + more:.0f} s") from None
        except (FileExistsError, AlreadyExistsError, NotSupportedError):
            raise
        except FileNotFoundError as error:
            if key is not None:
                raise not_found(key) from None
            raise self._no_bucket(error) from error
        except (UnauthenticatedError, PermissionDeniedError) as error:
            raise _unavailable(
                "not let in: look at blobs.access_key, blobs.secret_key and their rights", error
            ) from error
        except (BaseError, OSError) as error:
            if "<Code>NoSuchBucket<" in str(error):
                raise self._no_bucket(error) from error
            raise _unavailable("no good answer", error) from error

    def _no_bucket(self, error: Exception) -> errors.StorageUnavailable:
        return _unavailable(f"no bucket {self._bucket}: make it, or correct blobs.url", error)


def _parts(data: bytes | mmap) -> Iterator[bytes]:
    """Copies of one part each, so that nothing holds on to the file when an upload is given up."""
    for start in range(0, len(data), PART):
        yield data[start : start + PART]


def _unavailable(what: str, error: Exception | None = None) -> errors.StorageUnavailable:
    said = " ".join(str(error or "").split())[:_SHOWN]
    return errors.StorageUnavailable(detail=f"S3: {what}" + (f" ({said})" if said else ""))
