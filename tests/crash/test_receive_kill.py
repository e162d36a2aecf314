"""SIGKILL at random moments of accept, filter and store: what had its 250 is kept, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from posthouse.mailbox.model import Mailbox
from tests.crash.receive_checker import judge
from tests.crash.receive_load import Claim, Writer, claims
from tests.crash.receive_ordeal import ordeal
from tests.receiving import Held


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.timeout(120)
async def test_killed_on_sqlite(tmp_path: Path, seed: int) -> None:
    result = await ordeal(tmp_path, kills=15, seed=seed)
    assert result.wrong == []
    assert result.accepted > 100
    assert result.repeats > 0


@pytest.mark.timeout(120)
async def test_killed_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    result = await ordeal(tmp_path, kills=6, seed=99, records=postgres_url)
    assert result.wrong == []
    assert result.accepted > 50


def _held(*raws: bytes, total: int | None = None) -> Held:
    count = len(raws) if total is None else total
    inbox = Mailbox(1, 0, "Inbox", "inbox", 0, True, 1, count + 1, 1, count, count, count, count)
    return Held([inbox], [(raw, "inbox") for raw in raws])


def test_the_judge_sees_each_broken_promise() -> None:
    writer = Writer(1)
    first, second, third = (writer.letter() for _ in range(3))
    [claim, other, _] = [Claim(one.number, frozenset({"ann"}), one.digest) for one in claims([first, second, third])]
    assert judge([claim], {"ann": _held(first.raw)}) == []
    assert judge([claim], {"ann": _held(first.raw, second.raw)}, [other]) == []
    assert judge([claim], {"ann": _held()}) == ["ann: letter 1 is lost"]
    assert judge([claim], {"ann": _held(first.raw, first.raw)}) == ["ann: letter 1 is there 2 times"]
    assert judge([claim], {"ann": _held(first.raw, second.raw, second.raw)}, [other]) == [
        "ann: letter 2 is there 2 times"
    ]
    assert judge([], {"ann": _held(third.raw)}) == ["ann: holds a letter that nobody brought"]
    assert judge([claim], {"ann": _held(), "bob": _held(first.raw)}) == [
        "ann: letter 1 is lost",
        "bob: holds a letter that nobody brought",
    ]
    assert judge([claim], {"ann": _held(first.raw[:-1])}) == [
        "ann: letter 1 is lost",
        "ann: holds a letter that nobody brought",
    ]
    assert len(judge([claim], {"ann": _held(first.raw, total=2)})) == 1
