from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from posthouse.errors import Unavailable
from posthouse.inbound.together import Together, Turn


class Written:
    """`wait` holds every write; a batch with a negative number fails, 0 is storage away."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []
        self.open = asyncio.Event()

    async def __call__(self, some: Sequence[int]) -> None:
        await self.open.wait()
        if 0 in some:
            raise Unavailable
        if any(one < 0 for one in some):
            raise ValueError("one of these")
        self.steps.append(list(some))


async def test_what_waits_is_written_together() -> None:
    written = Written()
    together = Together(written, most=4)
    first = together.hand_over([1])
    await asyncio.sleep(0)
    rest = [together.hand_over(batch) for batch in ([2], [3, 4], [5, 6], [7, 8, 9, 10, 11])]
    written.open.set()
    await asyncio.wait_for(asyncio.gather(first, *rest), 5)
    assert written.steps == [[1], [2, 3, 4], [5, 6], [7, 8, 9, 10, 11]]


async def test_nothing_is_written_at_once() -> None:
    assert Together(Written(), most=4).hand_over([]).done()


async def test_one_that_fails_does_not_hold_the_others() -> None:
    written = Written()
    together = Together(written, most=10)
    futures = [together.hand_over(batch) for batch in ([1], [2], [-3], [4])]
    written.open.set()
    told = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 5)
    assert [type(one) for one in told] == [type(None), type(None), ValueError, type(None)]
    assert sorted(one for step in written.steps for one in step) == [1, 2, 4]


async def test_storage_away_is_told_to_all_and_the_next_is_tried() -> None:
    written = Written()
    together = Together(written, most=10)
    futures = [together.hand_over(batch) for batch in ([1], [0])]
    written.open.set()
    told = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 5)
    assert [type(one) for one in told] == [Unavailable, Unavailable]
    await asyncio.wait_for(together.hand_over([2]), 5)
    assert written.steps == [[2]]


async def test_who_went_away_holds_nobody() -> None:
    written = Written()
    together = Together(written, most=10)
    gone, stays = together.hand_over([1]), together.hand_over([2])
    gone.cancel()
    written.open.set()
    await asyncio.wait_for(stays, 30)
    assert written.steps == [[1, 2]]


async def test_turns_come_in_order_whoever_is_ready_first() -> None:
    first = Turn(None)
    second = Turn(first)
    third = Turn(second)
    order: list[int] = []

    async def go(number: int, turn: Turn, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await turn.comes()
        order.append(number)
        turn.pass_on()

    await asyncio.wait_for(asyncio.gather(go(3, third, 0), go(2, second, 0.01), go(1, first, 0.05)), 5)
    assert order == [1, 2, 3]


async def test_a_turn_given_up_waits_for_those_before_it() -> None:
    first = Turn(None)
    second = Turn(first)
    second.pass_on()
    third = Turn(second)
    waiting = asyncio.create_task(third.comes())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    first.pass_on()
    first.pass_on()
    await asyncio.wait_for(waiting, 30)


async def test_a_cancelled_wait_leaves_the_turn_before_alone() -> None:
    first = Turn(None)
    waiting = asyncio.create_task(Turn(first).comes())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not first.passed.cancelled()
