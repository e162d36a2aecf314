"""What is found of a message without asking anybody: here, and in real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from posthouse.inbound import examine as examining
from posthouse.inbound import pool as pools
from posthouse.inbound.examine import LARGE, Examined, Given, examine, here, plain
from posthouse.inbound.filter.judge import Filter
from posthouse.inbound.model import Recipient, Via
from posthouse.inbound.pool import ExaminePool, processes_for
from posthouse.mail.parse import parse, text
from posthouse.mail.threads import thread_keys
from posthouse.mailbox.record import detail
from posthouse.net.child import code
from tests.unit.inbound.arrivals import ANN, arrival, letter
from tests.unit.inbound.filter.cases import CASES
from tests.unit.inbound.fragile_examiner import KILLS

SOON = 60.0


def given(raw: bytes, *owners: str) -> Given:
    return Given(arrival(raw), owners or (ANN,))


def letters(count: int) -> list[Given]:
    return [given(letter(subject=f"Letter {n}")) for n in range(count)]


@pytest.fixture
async def pool() -> AsyncIterator[ExaminePool]:
    made = ExaminePool(2)
    yield made
    await made.close()


async def nobody(_pairs: object) -> frozenset[tuple[int, str]]:
    return frozenset()


def test_what_is_found_is_what_its_parts_find() -> None:
    one = given(letter(subject="Re: Lunch", body="> shall we?\r\nYes.\r\n"))
    raw, parsed = one.arrival.raw, parse(one.arrival.raw)
    found = examine(one)
    assert found.parsed == parsed
    assert detail(found.record.detail).structure == parsed.structure
    quotes = text(raw, parsed.structure, 2000)
    assert found.keys == (thread_keys(parsed, received_at=one.arrival.received_at, text=quotes, own={ANN}),)
    assert found.fault == ""


def test_only_those_with_an_account_have_keys() -> None:
    elsewhere = Recipient(1, "ten_1", "old@acme.test", 0, Via(forward="new@else.test"))
    both = msgspec.structs.replace(arrival(letter()), recipients=(*arrival(letter()).recipients, elsewhere))
    (first, second) = examine(Given(both, (ANN, ""))).keys
    assert first is not None
    assert second is None


@pytest.mark.parametrize("code", CASES)
async def test_the_verdict_is_the_same_wherever_the_rules_looked(code: str) -> None:
    room = Filter(text, nobody)
    for mail in CASES[code]:
        told, parsed = mail.pair()
        (whole,) = await room.judge([(told, parsed)], {})
        crossed = msgspec.msgpack.decode(msgspec.msgpack.encode(examine(Given(told, (mail.to,)))), type=Examined)
        (apart,) = await room.judge([(told, crossed.look)], {})
        assert apart == whole


@examples(st.binary(max_size=600))
def test_any_octets_cross_between_processes(raw: bytes) -> None:
    one = given(raw)
    found = examine(one)
    assert found.fault == ""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Examined) == found
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Given) == one


async def test_a_defect_of_ours_holds_no_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    one = given(letter(body="Hi.\r\n"))
    monkeypatch.setattr(examining, "look", broken)
    found = examine(one)
    assert found.look is None
    assert "a defect" in found.fault
    assert found.parsed.subject == "Hello"
    (judged,) = await Filter(text, nobody).judge([(one.arrival, None)], {})
    assert [reason.rule for reason in judged.common.reasons] == ["failed"]
    monkeypatch.setattr(examining, "parse", broken)
    assert examine(one) == plain(one, examine(one).fault)


@pytest.mark.parametrize("raw", [b"", b"no header", letter(body="Hi.\r\n"), b"\r\n\r\nbody"])
def test_what_cannot_be_examined_is_one_text(raw: bytes) -> None:
    found = plain(given(raw), "why")
    part = found.parsed.structure
    assert part.body + part.length == len(raw)
    assert raw[: part.body] == b"" or raw[: part.body].endswith(b"\r\n\r\n")
    assert found.keys[0] is not None
    assert (found.look, found.fault, found.record.size) == (None, "why", len(raw))


@pytest.mark.parametrize(("cores", "count"), [(1, 0), (2, 1), (4, 3), (64, 4)])
def test_one_core_is_left_to_the_server(cores: int, count: int) -> None:
    assert processes_for(cores) == count


async def test_processes_find_the_same_in_the_order_given(pool: ExaminePool) -> None:
    many = [*letters(100), given(letter(body="x" * LARGE)), *letters(3)]
    assert await pool(many) == await here(many)
    assert await pool([]) == []


async def test_one_message_that_ends_processes_is_stored_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_CHILD", code("tests.unit.inbound.fragile_examiner"))
    bad = given(letter(body=KILLS.decode()))
    many = [*letters(40), bad, *letters(40)]
    pool = ExaminePool(2)
    try:
        async with asyncio.timeout(SOON):
            found = await pool(many)
    finally:
        await pool.close()
    assert found[40] == plain(bad, found[40].fault)
    assert "ended" in found[40].fault
    others = [one for n, one in enumerate(many) if n != 40]
    assert [one for n, one in enumerate(found) if n != 40] == await here(others)
