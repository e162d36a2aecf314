"""What was found out a moment ago is said again, and only that."""

from __future__ import annotations

from typing import Any

import pytest

from posthouse.mailauth.authenticate import authenticate
from posthouse.mailauth.evidence import Authentication
from posthouse.mailauth.memory import MOST, SECONDS, Memory

from .signing import AT
from .test_authenticate import ZONE, signed
from .zone import Lookup

PLAIN = b"From: a@example.com\r\nSubject: x\r\n\r\nbody\r\n"


class Watch:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


async def ask(raw: bytes, lookup: Lookup, memory: Memory | None, **changed: Any) -> Authentication:
    asked: dict[str, Any] = {
        "peer": "192.0.2.7", "helo": "mx.example.com", "reverse_path": "a@example.com", "now": AT,
    }  # fmt: skip
    return await authenticate(raw, lookup=lookup, memory=memory, **(asked | changed))


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def memory(watch: Watch) -> Memory:
    return Memory(monotonic=watch)


async def test_a_peer_that_sends_again_is_not_asked_about_again(memory: Memory, watch: Watch) -> None:
    lookup = Lookup(ZONE)
    first = await ask(PLAIN, lookup, memory)
    asked = len(lookup.asked)
    assert asked > 3
    assert await ask(PLAIN.replace(b"body", b"other"), lookup, memory, reverse_path="b@example.com") == first
    assert len(lookup.asked) == asked
    watch.at += SECONDS
    assert await ask(PLAIN, lookup, memory) == first
    assert len(lookup.asked) == 2 * asked


@pytest.mark.parametrize(
    "changed",
    [
        {"peer": "203.0.113.99"},
        {"helo": "other.example.net"},
        {"reverse_path": ""},
        {"reverse_path": "@"},
        {"reverse_path": "a@other.example"},
    ],
)
async def test_another_sender_has_its_own_answer(memory: Memory, changed: dict[str, str]) -> None:
    lookup = Lookup(ZONE)
    await ask(PLAIN, lookup, memory)
    assert await ask(PLAIN, lookup, memory, **changed) == await ask(PLAIN, lookup, None, **changed)


async def test_another_author_has_its_own_answer(memory: Memory) -> None:
    lookup = Lookup(ZONE)
    await ask(PLAIN, lookup, memory)
    for other in (PLAIN.replace(b"a@example.com", b"a@sub.example.com"), b"From: x\r\n\r\n", b"\r\nno header"):
        assert await ask(other, lookup, memory) == await ask(other, lookup, None)


async def test_signatures_are_always_verified(memory: Memory) -> None:
    lookup = Lookup(ZONE)
    await ask(PLAIN, lookup, memory)
    good = await ask(signed(), lookup, memory)
    assert good == await ask(signed(), lookup, None)
    assert any(one.result == "pass" for one in good.dkim)
    broken = await ask(signed() + b"added\r\n", lookup, memory)
    assert not any(one.result == "pass" for one in broken.dkim)
    assert await ask(PLAIN, lookup, memory) == await ask(PLAIN, lookup, None)


async def test_what_a_record_makes_of_the_local_part_is_of_one_message(memory: Memory) -> None:
    lookup = Lookup(
        {
            **ZONE,
            "example.com": {"TXT": ["v=spf1 exists:%{l}.who.example.com -all"]},
            "good.who.example.com": {"A": ["127.0.0.2"]},
        }
    )
    assert (await ask(PLAIN, lookup, memory, reverse_path="good@example.com")).spf.result == "pass"
    assert (await ask(PLAIN, lookup, memory, reverse_path="bad@example.com")).spf.result == "fail"


async def test_what_dns_did_not_answer_is_asked_again(memory: Memory) -> None:
    late = await ask(PLAIN, Lookup(ZONE, pause=30), memory, deadline=0.05)
    assert late.spf.result == "temperror"
    assert (await ask(PLAIN, Lookup(ZONE), memory)).spf.result != "temperror"


async def test_it_is_bounded(memory: Memory) -> None:
    lookup = Lookup(ZONE)
    for number in range(MOST + 10):
        await ask(PLAIN, lookup, memory, helo=f"h{number}.example.com")
    assert len(memory._held) == MOST  # type: ignore[attr-defined]
