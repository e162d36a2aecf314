"""What waits, as metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from posthouse.app.lag import Lag
from posthouse.clock import SECOND
from posthouse.errors import StorageUnavailable
from posthouse.storage.queue.base import Depth, Lane, Queue


class Counted(Queue):
    """A queue of which only the depths are asked."""

    def __init__(self, *answers: list[Depth] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.seen: Callable[[], None] = lambda: None

    async def depths(self) -> list[Depth]:
        self.asked += 1
        self.seen()
        answer = self.answers[min(self.asked, len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


def value(name: str, stage: str, lane: str = "bulk") -> float | None:
    return REGISTRY.get_sample_value(f"posthouse_queue_{name}", {"stage": stage, "lane": lane})


async def test_depths_and_the_age_of_the_oldest_job() -> None:
    queue = Counted(
        [Depth("one", Lane.BULK, 12, 3, 1, 90 * SECOND), Depth("one", Lane.CRITICAL, 0, 5, 0, 500 * SECOND)]
    )
    await Lag(queue, lambda: 100 * SECOND).look()
    assert [value(name, "one") for name in ("ready", "delayed", "buried", "oldest_seconds")] == [12, 3, 1, 10]
    # Due in the future is not late.
    assert value("oldest_seconds", "one", "critical") == 0
    assert REGISTRY.get_sample_value("posthouse_queue_looked_at_seconds") == 100


async def test_a_queue_that_became_empty_is_nought_and_storage_away_changes_nothing() -> None:
    now = [100 * SECOND]
    lag = Lag(
        Counted([Depth("two", Lane.BULK, 7, 0, 0, 50 * SECOND)], StorageUnavailable(detail="gone"), []), lambda: now[0]
    )
    await lag.look()
    now[0] = 200 * SECOND
    await lag.look()
    assert value("ready", "two") == 7
    assert REGISTRY.get_sample_value("posthouse_queue_looked_at_seconds") == 100
    await lag.look()
    assert (value("ready", "two"), value("oldest_seconds", "two")) == (0, 0)


@pytest.mark.timeout(10)
async def test_it_looks_again_until_it_is_stopped() -> None:
    queue = Counted([])
    lag = Lag(queue, lambda: 0, every=0.001)
    queue.seen = lambda: lag.stop() if queue.asked == 3 else None
    await asyncio.wait_for(lag.run(), 5)
    assert queue.asked == 3
