"""Blobs in a bucket of any server that speaks S3, through obstore."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from mmap import mmap
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import S3Store

from posthouse import errors
from posthouse.storage.blobs.base import Capabilities, Key, check_content, check_key, is_key, key_of, not_found

T = TypeVar("T")


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
        request_timeout: float = 60.0,
    ) -> None:
        """
        :param prefix: before every key, so that a bucket can hold more than blobs.
        :param endpoint: `https://s3.example.com`; None: Amazon's for the region.
        :param access_key: empty: the machine's own role.
        :raises Misconfigured: obstore refuses the settings.
        """
        self.capabilities = Capabilities(local=False)
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
                },
                retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=request_timeout)},
            )
        except (BaseError, ValueError) as error:
            raise errors.Misconfigured(
                "the blobs URL or its credentials are wrong", code="blobs_unreachable", detail=str(error)
            ) from error

    async def put(self, data: bytes | mmap) -> Key:
        key = key_of(data)
        try:
            await self._answer(obstore.put_async(self._store, key, data, mode="create", use_multipart=False))
        except (FileExistsError, AlreadyExistsError):
            pass  # the same bytes, or they would lie elsewhere
        except NotSupportedError:
            await self._answer(obstore.put_async(self._store, key, data, use_multipart=False))
        return key

    async def get(self, key: Key) -> bytes:
        check_key(key)
        return check_content(key, await self._answer(self._read(key)))

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        check_key(key)
        # Asked first: a range that begins at the end or after it is an error to S3.
        size = (await self._answer(obstore.head_async(self._store, key), key))["size"]
        if start >= size or length <= 0:
            return b""
        end = min(start + length, size)
        return bytes(await self._answer(obstore.get_range_async(self._store, key, start=start, end=end), key))

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

    async def _read(self, key: Key) -> bytes:
        try:
            answer = await obstore.get_async(self._store, key)
        except FileNotFoundError:
            raise not_found(key) from None
        return bytes(await answer.bytes_async())

    async def _answer(self, request: Awaitable[T], key: Key | None = None) -> T:
        """:raises NotFound: only when a `key` is named; else the bucket is what is missing."""
        try:
            return await request
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            if key is not None:
                raise not_found(key) from None
            raise errors.StorageUnavailable(detail=f"S3: {error}") from error
        except (AlreadyExistsError, NotSupportedError):
            raise
        except (BaseError, OSError) as error:
            raise errors.StorageUnavailable(detail=f"S3: {error}") from error
