"""The blobs port: immutable bytes under the hash of their content."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import blake2b
from mmap import mmap
from typing import Protocol

from posthouse import errors

_SHAPE = re.compile(r"[0-9a-f]{64}")

Key = str
"""BLAKE2b-256 of the bytes, 64 hex digits."""


def key_of(data: bytes | mmap) -> Key:
    return blake2b(data, digest_size=32).hexdigest()


def is_key(text: str) -> bool:
    return _SHAPE.fullmatch(text) is not None


def check_key(key: Key) -> None:
    """:raises NotFound: it cannot be a key, so nothing lies there (nor outside the store)."""
    if not is_key(key):
        raise not_found(key)


def not_found(key: Key) -> errors.NotFound:
    return errors.NotFound("There is no such content", code="blob_not_found", detail=f"blob {key[:80]!r}")


def check_content(key: Key, data: bytes) -> bytes:
    """:raises Corrupt: these are not the bytes that were put."""
    if key_of(data) != key:
        raise errors.Corrupt(code="blob_corrupt", detail=f"blob {key}: {len(data)} bytes hash to {key_of(data)}")
    return data


@dataclass(frozen=True, slots=True)
class Capabilities:
    local: bool
    """Bytes lie on this machine: a read costs microseconds, not milliseconds."""


class Blobs(Protocol):
    capabilities: Capabilities

    async def put(self, data: bytes | mmap) -> Key:
        """Durable on return (file and directory fsynced; an object store's success).
        The same bytes twice are stored once.

        :raises StorageUnavailable:
        """
        ...

    async def get(self, key: Key) -> bytes:
        """The whole, checked against its key.

        :raises NotFound: code `blob_not_found`.
        :raises Corrupt: the bytes do not hash to the key.
        """
        ...

    async def get_range(self, key: Key, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer at the end; not checked against the key."""
        ...

    async def exists(self, key: Key) -> bool: ...

    async def delete(self, key: Key) -> None:
        """Absent already is fine."""
        ...

    def keys(self) -> AsyncIterator[Key]:
        """Every key, in no order; for checks and collection."""
        ...

    async def ready(self) -> None: ...

    async def close(self) -> None: ...
