"""Mailboxes on both engines, proved true after each test that asks for `checked`; a Redis of a
test's own; what a test opens and leaves open."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from posthouse.storage.blobs.base import Blobs
from posthouse.storage.records.base import Records
from tests.contract.redis_house import OwnRedis
from tests.mailboxes import House, findings


@pytest.fixture
async def checked(records: Records, local_blobs: Blobs) -> AsyncIterator[None]:
    """After the test every invariant of the mailboxes holds, octets included."""
    yield
    assert await findings(records, local_blobs) == []


@pytest.fixture
def house(records: Records, local_blobs: Blobs, clock: Any) -> House:
    return House(records, local_blobs, clock)


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    """Closed after the test."""
    async with contextlib.AsyncExitStack() as opened:
        yield opened


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """A namespace of the test's own."""
    return f"{redis_server}?namespace={secrets.token_hex(6)}"


@pytest.fixture
def own(redis_server: str, tmp_path: Path) -> Iterator[OwnRedis]:
    """Started; what the test stopped or hung ends all the same."""
    server = OwnRedis(tmp_path / "redis")
    server.start()
    yield server
    with contextlib.suppress(ProcessLookupError, ValueError):
        server.go_on()
    server.stop()
