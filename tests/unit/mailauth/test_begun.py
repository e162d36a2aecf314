"""Work begun at once ends as a task would: with its result, its error, or canceled."""

from __future__ import annotations

import asyncio

import pytest

from posthouse.mailauth.begun import Done, begin


async def at_once() -> int:
    return 7


async def after(*waits: float) -> list[float]:
    for wait in waits:
        await asyncio.sleep(wait)
    return list(waits)


async def test_what_needs_no_wait_is_there() -> None:
    one = begin(at_once())
    assert isinstance(one, Done)
    assert one.done()
    assert not one.cancelled()
    assert one.result() == 7


@pytest.mark.parametrize("waits", [(0.0,), (0.001,), (0.0, 0.001, 0.0)])
async def test_what_waits_goes_on_as_a_task(waits: tuple[float, ...]) -> None:
    one = begin(after(*waits))
    assert isinstance(one, asyncio.Task)
    assert await one == list(waits)


async def test_errors_come_out() -> None:
    async def fails(wait: bool) -> None:
        if wait:
            await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        begin(fails(False))
    late = begin(fails(True))
    assert isinstance(late, asyncio.Task)
    with pytest.raises(LookupError):
        await late


async def test_a_cancel_reaches_the_work_and_may_be_caught_there() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "tidied up"
        return "never"

    one = begin(stubborn())
    assert isinstance(one, asyncio.Task)
    await asyncio.sleep(0)
    one.cancel()
    assert await one == "tidied up"


async def test_an_error_of_what_is_waited_for_reaches_the_work() -> None:
    waited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await waited
        except ValueError:
            return "seen"
        return "not seen"

    one = begin(work())
    waited.set_exception(ValueError())
    assert isinstance(one, asyncio.Task)
    assert await one == "seen"
