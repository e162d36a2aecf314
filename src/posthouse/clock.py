"""Time as Posthouse stores it: whole microseconds since 1970, UTC. A `Clock` can be passed in."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], int]
"""Returns now in microseconds."""

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    return time.time_ns() // 1000


def to_datetime(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)


def from_datetime(moment: datetime) -> int:
    """:raises ValueError: when `moment` carries no time zone."""
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def rfc3339(at: int) -> str:
    """`2026-11-22T12:00:00.123456Z`"""
    return to_datetime(at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
