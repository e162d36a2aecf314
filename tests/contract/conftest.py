"""Mailboxes on both engines, proved true after each test that asks for `checked`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from posthouse.storage.blobs.base import Blobs
from posthouse.storage.records.base import Records
from tests.mailboxes import House, findings


@pytest.fixture
async def checked(records: Records, local_blobs: Blobs) -> AsyncIterator[None]:
    """After the test every invariant of the mailboxes holds, octets included."""
    yield
    assert await findings(records, local_blobs) == []


@pytest.fixture
def house(records: Records, local_blobs: Blobs, clock: Any) -> House:
    return House(records, local_blobs, clock)
