"""The life of a pool, with real processes: order, urgency, ends, starts that fail, the close."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from posthouse.errors import Unavailable
from posthouse.net import child as children
from posthouse.net.child import code
from posthouse.net.pool import Codec, Pool, Work
from tests.unit.net.pool_child import DECODER, DIES, GARBLES, SLEEPS, encode

SOON = 60.0
CHILD = code("tests.unit.net.pool_child")
NAP = f"{SLEEPS}0.05"
LONG = f"{SLEEPS}600"
Start = Callable[..., Pool[str, str]]


class Text(Codec[str, str]):
    def encode(self, items: Sequence[str]) -> bytes:
        return encode(items)

    def decode(self, frame: bytes) -> list[str]:
        return DECODER.decode(frame)


@pytest.fixture
def deaths() -> Counter:
    return Counter("deaths", "Of the test's processes.", registry=CollectorRegistry())


@pytest.fixture
async def start(deaths: Counter) -> AsyncIterator[Start]:
    made: list[Pool[str, str]] = []

    def make(processes: int, run: str = CHILD, patience: float = SOON) -> Pool[str, str]:
        work = Work(
            name="test",
            run=run,
            setup=b"re: ",
            codec=Text,
            fatal=lambda item: f"fatal: {item}",
            deaths=deaths,
            stopped="stopped",
            patience=patience,
            lanes=3,
        )
        made.append(Pool(work, processes))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def results(pool: Pool[str, str], *batches: list[str], lane: int = 0) -> list[str]:
    async with asyncio.timeout(SOON):
        parts = await asyncio.gather(*await pool.give(batches, lane))
    return [result for part in parts for result in part]


async def ready(pool: Pool[str, str], count: int) -> list[int]:
    """Their numbers, when all have begun."""
    async with asyncio.timeout(SOON):
        while [process.ready for process in pool._processes] != [True] * count:
            await asyncio.sleep(0.01)
    return pool.pids


def numbered(count: int, size: int = 4) -> tuple[list[list[str]], list[str]]:
    """Batches, and what is answered to all of them."""
    batches = [[f"{batch}.{n}" for n in range(size)] for batch in range(count)]
    return batches, [f"re: {item}" for batch in batches for item in batch]


def count(deaths: Counter) -> float:
    (metric,) = deaths.collect()
    return metric.samples[0].value


async def test_results_come_in_the_order_given(start: Start) -> None:
    pool = start(2)
    batches, answers = numbered(50)
    assert await results(pool, *batches) == answers
    assert await results(pool) == []
    assert len(await ready(pool, 2)) == 2


async def test_a_process_killed_in_mid_batch_costs_nothing(start: Start, deaths: Counter) -> None:
    pool = start(2)
    await pool.start()
    victim = (await ready(pool, 2))[0]
    batches, answers = numbered(20)
    asked = asyncio.ensure_future(results(pool, [NAP], *batches, [NAP]))
    await asyncio.sleep(0.02)
    os.kill(victim, signal.SIGKILL)
    assert await asked == [f"re: {NAP}", *answers, f"re: {NAP}"]
    assert victim not in await ready(pool, 2)
    assert count(deaths) == 1


async def test_what_kills_processes_fails_alone(start: Start, deaths: Counter) -> None:
    """Two bad ones, with innocent ones waiting behind each: none of those may pay."""
    pool = start(1)
    bad = [f"{DIES} 1", f"{DIES} 2"]
    told = ["a", bad[0], "b", bad[1], "c"]
    assert await results(pool, told, ["d"], ["e"]) == [
        "re: a",
        f"fatal: {bad[0]}",
        "re: b",
        f"fatal: {bad[1]}",
        "re: c",
        "re: d",
        "re: e",
    ]
    assert count(deaths) == 4, "two at the batch, one at each"


async def test_one_that_came_alone_has_two_tries(start: Start, deaths: Counter) -> None:
    assert await results(start(1), [DIES]) == [f"fatal: {DIES}"]
    assert count(deaths) == 2


async def test_an_answer_that_cannot_be_read_ends_the_process(start: Start, deaths: Counter) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)  # the loop's own report of it
    assert await results(start(1), [GARBLES, "a"]) == [f"fatal: {GARBLES}", "re: a"]
    assert count(deaths) == 3


async def test_one_that_hangs_is_ended(start: Start, deaths: Counter) -> None:
    assert await results(start(1, patience=0.3), [LONG]) == [f"fatal: {LONG}"]
    assert count(deaths) == 2


async def test_a_process_that_cannot_start_is_not_held_against_its_work(start: Start, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    pool = start(1, run=f"import os, sys\nif not os.path.exists({str(allowed)!r}): sys.exit(1)\n{CHILD}")
    asked = asyncio.ensure_future(results(pool, ["a"]))
    await asyncio.sleep(0.5)
    assert not asked.done()
    allowed.touch()
    assert await asked == ["re: a"]


async def test_when_no_process_can_be_made_it_is_tried_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = start(1)
    popen, refused = subprocess.Popen, 0

    def no_room(*args: object, **options: object) -> object:
        nonlocal refused
        refused += 1
        if refused < 3:
            raise BlockingIOError("Resource temporarily unavailable")
        return popen(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(children.subprocess, "Popen", no_room)
    assert await results(pool, ["a"]) == ["re: a"], "at the first start"
    refused = 0
    os.kill(pool.pids[0], signal.SIGKILL)
    assert await results(pool, ["b"]) == ["re: b"], "and at a later one"
    assert refused == 3


async def test_the_urgent_lane_goes_first(start: Start) -> None:
    pool = start(1)
    await pool.start()
    await ready(pool, 1)
    done: list[int] = []
    bulk = await pool.give([[NAP]] * 6, 2)
    urgent = await pool.give([["a"]], 0)
    for n, future in enumerate([*bulk, *urgent]):
        future.add_done_callback(lambda _, n=n: done.append(n))
    async with asyncio.timeout(SOON):
        await asyncio.gather(*bulk, *urgent)
    assert done == [0, 1, 6, 2, 3, 4, 5], "only the batches that the process had already go before"


async def test_those_who_left_are_not_worked_for(start: Start, deaths: Counter) -> None:
    pool = start(1)
    await pool.start()
    (pid,) = await ready(pool, 1)
    left = await pool.give([[LONG]] * 10)
    for future in left:
        future.cancel()
    os.kill(pid, signal.SIGKILL)
    assert await results(pool, ["a"]) == ["re: a"]
    assert count(deaths) == 1


async def test_close_ends_the_processes_and_what_waits(start: Start, deaths: Counter) -> None:
    pool = start(2)
    await pool.start()
    pids = await ready(pool, 2)
    waiting = await pool.give([[LONG]] * 6)
    async with asyncio.timeout(SOON):
        await pool.close()
    for future in waiting:
        with pytest.raises(Unavailable) as raised:
            await future
        assert raised.value.detail == "stopped"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(Unavailable):
        await pool.give([["a"]])
    assert count(deaths) == 0


def test_a_child_ends_with_its_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(theirs.fileno())], pass_fds=(theirs.fileno(),))
        theirs.close()
        ours.close()
        assert child.wait(timeout=20) == 0
