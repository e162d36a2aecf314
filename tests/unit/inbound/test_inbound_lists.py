"""DNS lists, what is held of their answers, and the parts of accept that need no storage."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.errors import DnsUnavailable
from posthouse.inbound.arrival import hops
from posthouse.inbound.greylist import network
from posthouse.inbound.house import Hop
from posthouse.inbound.lists import DnsList, Lists, is_private
from posthouse.inbound.memo import Memo
from posthouse.inbound.trace import protocol
from posthouse.mailauth.evidence import Arc, Authentication, Dmarc, Spf
from posthouse.smtp.peer import Tls
from tests.contract.accept_house import Names

AUTH = Authentication(Spf("none", ""), Spf("none", ""), (), Dmarc("none", ""), Arc("none"))


async def zones(names: Names, lists: list[DnsList], address: str) -> list[str]:
    return [hit.listing.zone for hit in await Lists(lists, names, timeout=0.05).address(address)]


async def test_addresses_are_asked_backwards() -> None:
    names = Names()
    asked = [DnsList("bl.test"), DnsList("dbl.test", kind="domain")]
    assert await zones(names, asked, "192.0.2.99") == []
    assert names.asked == [("A", "99.2.0.192.bl.test")]
    names.asked.clear()
    await zones(names, asked, "2001:db8:1:2:3:4:567:89ab")
    # RFC 5782 §2.4
    assert names.asked == [("A", "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.test")]


@pytest.mark.parametrize(
    ("answers", "found", "hit"),
    [
        (("127.0.0.0/8",), ["127.0.0.2"], True),
        (("127.0.0.0/8",), ["127.255.255.254"], False),
        (("127.0.0.0/8",), ["203.0.113.7"], False),
        (("127.0.0.2/32", "127.0.0.4/31"), ["127.0.0.3"], False),
        (("127.0.0.2/32", "127.0.0.4/31"), ["127.0.0.3", "127.0.0.5"], True),
        (("127.0.0.0/8",), ["nonsense"], False),
        (("127.0.0.0/8",), [], False),
    ],
)
async def test_only_some_answers_are_hits(answers: tuple[str, ...], found: list[str], hit: bool) -> None:
    names = Names({("A", "9.2.0.192.bl.test"): found})
    assert await zones(names, [DnsList("bl.test", answers=answers)], "192.0.2.9") == ["bl.test"] * hit


async def test_silence_and_trouble_are_no_answer() -> None:
    names = Names({("A", "9.2.0.192.bl.test"): DnsUnavailable()})  # type: ignore[dict-item]
    assert await zones(names, [DnsList("bl.test")], "192.0.2.9") == []
    names = Names({("A", "9.2.0.192.bl.test"): ["127.0.0.2"]})
    names.gate.clear()
    started = time.monotonic()
    assert await zones(names, [DnsList("bl.test"), DnsList("bl2.test")], "192.0.2.9") == []
    assert time.monotonic() - started < 60


async def test_a_lists_words_are_bounded_and_printable() -> None:
    names = Names(
        {("A", "9.2.0.192.bl.test"): ["127.0.0.2"], ("TXT", "9.2.0.192.bl.test"): [b"\x1b[2J\r\n" + b"x" * 999]}
    )
    (hit,) = await Lists([DnsList("bl.test")], names).address("192.0.2.9")
    assert hit.listing.text.isprintable()
    assert len(hit.listing.text) == 200


async def test_private_addresses_and_nonsense_are_not_asked() -> None:
    names = Names()
    for address in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.31.255.255", "::1", "fe80::1", "fd00::1", "nonsense"):
        assert await zones(names, [DnsList("bl.test")], address) == []
    assert names.asked == []
    assert not is_private("192.0.2.1")
    assert await Lists([DnsList("dbl.test", kind="domain")], names).domain("") == ()


class Seconds:
    at = 0.0

    def __call__(self) -> float:
        return self.at


async def test_an_answer_is_asked_once_and_held_for_its_time() -> None:
    asked: list[str] = []
    seconds = Seconds()

    async def ask(key: str) -> str:
        asked.append(key)
        await asyncio.sleep(0)
        if key == "bad":
            raise ValueError(key)
        return key.upper()

    memo = Memo(ask, unknown="?", seconds=10.0, entries=3, monotonic=seconds)
    begun = [memo.begin("a") for _ in range(5)]
    assert [await memo.wait(one, 1.0) for one in begun] == ["A"] * 5
    assert memo.begin("a") == "A"
    assert asked == ["a"]
    seconds.at = 10.0
    assert await memo.wait(memo.begin("a"), 1.0) == "A"
    assert asked == ["a", "a"]
    assert await memo.wait(memo.begin("bad"), 1.0) == "?"
    assert await memo.wait(memo.begin("bad"), 1.0) == "?"
    assert asked.count("bad") == 2  # a failure is not held
    for key in "bcd":
        await memo.wait(memo.begin(key), 1.0)
    assert memo.begin("d") == "D"
    again = memo.begin("a")
    assert isinstance(again, asyncio.Task)  # pushed out
    await again


async def test_waiting_is_bounded_and_a_close_ends_what_is_asked() -> None:
    stuck = asyncio.Event()

    async def ask(key: str) -> str:
        await stuck.wait()
        return key

    memo = Memo(ask, unknown="?", seconds=10.0)
    begun = memo.begin("a")
    assert await memo.wait(begun, 0.01) == "?"
    assert isinstance(begun, asyncio.Task)
    await memo.close()
    assert begun.cancelled()
    assert await memo.wait(begun, 1.0) == "?"


@given(st.integers(0, 40), st.integers(0, 3), st.sampled_from([b"Received: x\r\n", b"RECEIVED :x\r\n y\r\n"]))
def test_hops_are_counted_in_the_header_only(count: int, body: int, field: bytes) -> None:
    message = field * count + b"Subject: received received\r\n\r\n" + b"Received: x\r\n" * body
    assert (hops(message, 20) > 20) is (count > 20)


def test_hops_of_what_is_no_message() -> None:
    assert hops(b"", 5) == 0
    assert hops(b"\r\n\r\n" + b"Received: x\r\n" * 50, 5) == 0
    assert hops(b"Received: x\r\n" * 50, 5) > 5


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("unix", "unix"),
    ],
)
def test_networks(peer: str, found: str) -> None:
    assert network(peer) == found


@pytest.mark.parametrize(
    ("verb", "tls", "utf8", "found"),
    [
        ("HELO", False, False, "SMTP"),
        ("EHLO", False, False, "ESMTP"),
        ("EHLO", True, False, "ESMTPS"),
        ("EHLO", False, True, "UTF8SMTP"),
        ("EHLO", True, True, "UTF8SMTPS"),
        ("LHLO", False, False, "LMTP"),
        ("LHLO", True, True, "UTF8LMTPS"),
    ],
)
def test_the_protocol_in_received(verb: str, tls: bool, utf8: bool, found: str) -> None:
    how = Tls("TLSv1.3", "x") if tls else None
    assert protocol(Hop("inb_1", 0, "192.0.2.1", None, "h", verb, how, utf8, "", "", AUTH)) == found
