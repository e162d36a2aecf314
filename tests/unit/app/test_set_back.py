"""When the clock is seen to be set back, and when it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from posthouse.app.set_back import SetBack
from posthouse.clock import SECOND
from posthouse.errors import StorageUnavailable
from posthouse.storage.queue.records import RecordsQueue


class Queue:
    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], float]] = []
        self.away = False

    async def undelay(self, stages: Sequence[str], after: float) -> int:
        if self.away:
            raise StorageUnavailable(detail="away")
        self.asked.append((tuple(stages), after))
        return 1


class Clocks:
    wall = 1_800_000_000 * SECOND
    steady = 50.0

    def passes(self, seconds: float, *, set_by: float = 0) -> None:
        self.steady += seconds
        self.wall += round((seconds + set_by) * SECOND)


def _made(lease: float = 120.0) -> tuple[SetBack, Queue, Clocks]:
    queue, clocks = Queue(), Clocks()
    made = SetBack(
        cast(RecordsQueue, queue), ("store",), lambda: clocks.wall, lease=lease, monotonic=lambda: clocks.steady
    )
    return made, queue, clocks


async def test_only_a_clock_that_goes_back_is_looked_after() -> None:
    set_back, queue, clocks = _made()
    for set_by in (0, 3600, -1, -9, 0):
        clocks.passes(60, set_by=set_by)
        await set_back.round()
    assert queue.asked == []
    clocks.passes(60, set_by=-3600)
    await set_back.round()
    assert queue.asked == [(("store",), 3600.0)]
    clocks.passes(60)
    await set_back.round()
    assert len(queue.asked) == 1


async def test_it_is_tried_again_when_storage_is_back() -> None:
    set_back, queue, clocks = _made(lease=7200)
    clocks.passes(60, set_by=-86_400)
    queue.away = True
    await set_back.round()
    queue.away = False
    await set_back.round()
    assert queue.asked == [(("store",), 14_400.0)]
