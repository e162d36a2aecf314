"""Who finds no room at a site comes again when there is some, and not all the time before."""

from __future__ import annotations

import pytest

from posthouse.clock import SECOND
from posthouse.egress.room import Room
from posthouse.storage.queue.base import Lane
from tests.conftest import ManualClock

RATE = 100


def steady(clock: ManualClock, seconds: int) -> Room:
    """A site that has sent at `RATE` for so long."""
    room = Room(clock)
    for _ in range(seconds * 2):
        for _ in range(RATE // 2):
            room.settled()
        clock.advance(0.5)
        room.left(0)
    return room


def test_before_its_rate_is_known_it_is_a_few_seconds(clock: ManualClock) -> None:
    room = Room(clock)
    assert all(2.5 <= room.wait(Lane.BULK) / SECOND <= 5 for _ in range(1000))


def test_the_line_moves_twice_as_fast_as_the_site(clock: ManualClock) -> None:
    room = steady(clock, 20)
    waits = [room.wait(Lane.BULK) / SECOND for _ in range(4000)]
    assert waits == sorted(waits)
    assert 2.4 <= waits[0] <= 3
    assert 19.5 <= waits[-1] - waits[0] <= 20.5
    assert room.wait(Lane.CRITICAL) / SECOND < 3


@pytest.mark.parametrize(("lane", "most"), [(Lane.CRITICAL, 60), (Lane.TRANSACTIONAL, 60), (Lane.BULK, 300)])
def test_nobody_waits_for_longer_than_a_while(clock: ManualClock, lane: Lane, most: float) -> None:
    room = steady(clock, 20)
    waits = [room.wait(lane) / SECOND for _ in range(80_000)]
    assert max(waits) <= most
    assert min(waits[70_000:]) > most / 2 - 1


def test_a_million_for_a_slow_site_come_again_few_at_a_time(clock: ManualClock) -> None:
    """In vain they take the place of mail for others."""
    room = steady(clock, 20)
    waits = [room.wait(Lane.BULK) / SECOND for _ in range(1_000_000)]
    assert sum(100 <= wait < 101 for wait in waits) < 10_000


def test_the_line_ends_with_what_waited(clock: ManualClock) -> None:
    room = steady(clock, 20)
    for _ in range(4000):
        room.wait(Lane.BULK)
    clock.advance(60)
    assert room.wait(Lane.BULK) / SECOND < 3


def test_a_pause_does_not_slow_the_line_down(clock: ManualClock) -> None:
    room = steady(clock, 20)
    for _ in range(10):
        clock.advance(1)
        room.left(0)
    waits = [room.wait(Lane.BULK) / SECOND for _ in range(1000)]
    assert waits[-1] - waits[0] < 6
