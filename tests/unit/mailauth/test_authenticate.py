from __future__ import annotations

import asyncio
import mmap
import re
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.mailauth import dkim, seal
from posthouse.mailauth.authenticate import authenticate, iprev
from posthouse.mailauth.evidence import Authentication
from posthouse.mailauth.message import Message

from .signing import AT, RAW, signer, zone
from .zone import Lookup, Zone

ZONE: Zone = {
    "example.com": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all exp=why.example.com"]},
    "why.example.com": {"TXT": ["%{i} is not one of %{d}'s"]},
    "mx.example.com": {"A": ["192.0.2.7"], "AAAA": ["2001:db8::7"], "TXT": ["v=spf1 a -all"]},
    "7.2.0.192.in-addr.arpa": {"PTR": ["other.example.", "mx.example.com"]},
    "8.2.0.192.in-addr.arpa": {"PTR": ["mx.example.com"]},
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
    **zone(),
}


async def ask(raw: bytes | mmap.mmap = RAW, lookup: Lookup | None = None, **changes: Any) -> Authentication:
    values: dict[str, Any] = {
        "peer": "192.0.2.7", "helo": "mx.example.com", "reverse_path": "bounce@example.com", "now": AT,
    }  # fmt: skip
    return await authenticate(raw, lookup=lookup or Lookup(ZONE), **(values | changes))


def signed(raw: bytes = RAW) -> bytes:
    return dkim.sign(raw, [signer(), signer("ed25519-sha256")], AT) + raw


async def test_everything_in_order() -> None:
    sealed = seal.seal(signed(), signer(), b"mx.example; none", "none", AT) + signed()
    found = await ask(sealed)
    assert (found.spf.result, found.spf.domain, found.spf.mechanism) == ("pass", "example.com", "ip4:192.0.2.0/24")
    assert (found.helo.result, found.helo.scope) == ("pass", "helo")
    assert [one.result for one in found.dkim] == ["pass", "pass"]
    assert (found.dmarc.result, found.dmarc.aligned_spf, found.dmarc.aligned_dkim) == ("pass", True, True)
    assert (found.arc.result, found.iprev) == ("pass", "pass")


async def test_a_stranger() -> None:
    found = await ask(peer="198.51.100.1")
    assert (found.spf.result, found.spf.explanation) == ("fail", "198.51.100.1 is not one of example.com's")
    assert (found.dmarc.result, found.dmarc.disposition) == ("fail", "reject")
    assert (found.dkim, found.arc.result, found.iprev) == ((), "none", "permerror")


async def test_the_null_path_goes_by_helo() -> None:
    found = await ask(reverse_path="", helo="example.com")
    assert found.spf == found.helo
    assert (found.spf.result, found.spf.scope, found.dmarc.aligned_spf) == ("pass", "helo", True)


@pytest.mark.parametrize(
    ("peer", "result", "name"),
    [
        ("192.0.2.7", "pass", "mx.example.com"),
        ("::ffff:192.0.2.7", "pass", "mx.example.com"),
        ("192.0.2.8", "fail", None),
        ("192.0.2.9", "permerror", None),
        ("not an address", "permerror", None),
    ],
)
async def test_iprev(peer: str, result: str, name: str | None) -> None:
    assert await iprev(Lookup(ZONE), peer) == (result, name)


async def test_iprev_without_dns() -> None:
    assert await iprev(Lookup({"7.2.0.192.in-addr.arpa": None}), "192.0.2.7") == ("temperror", None)
    assert await iprev(Lookup({**ZONE, "mx.example.com": None}), "192.0.2.7") == ("temperror", None)


async def test_a_dead_dns_is_temporary_for_all() -> None:
    class Dead(dict[str, None]):
        def get(self, key: str, default: Any = None) -> Any:
            return None

    found = await ask(signed(), Lookup(Dead()))
    assert (found.spf.result, found.helo.result, found.iprev, found.dmarc.result) == ("temperror",) * 4
    assert [one.result for one in found.dkim] == ["temperror"] * 2


async def test_a_slow_dns_is_given_up() -> None:
    sealed = seal.seal(signed(), signer(), b"mx.example; none", "none", AT) + signed()
    began = time.monotonic()
    found = await ask(sealed, Lookup(ZONE, pause=100), deadline=0.1)
    assert time.monotonic() - began < 60
    assert (found.spf.result, found.helo.result, found.iprev, found.dmarc.result) == ("temperror",) * 4
    assert [(one.result, one.domain, one.selector) for one in found.dkim] == [
        ("temperror", "example.com", "rsa"), ("temperror", "example.com", "ed25519"),
    ]  # fmt: skip
    assert (found.arc.result, found.arc.reason) == ("fail", "DNS did not answer in time")
    assert all("in time" in one.reason for one in (found.spf, found.helo, *found.dkim))
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == 1


async def test_what_is_known_by_the_deadline_counts() -> None:
    class Slow(Lookup):
        async def ptr(self, address: str) -> Any:
            await asyncio.sleep(30)

    found = await ask(signed(), Slow(ZONE), deadline=0.3)
    assert (found.dmarc.result, found.spf.result, found.iprev) == ("pass", "pass", "temperror")


async def test_who_asks_may_go_away() -> None:
    task = asyncio.create_task(ask(signed(), Lookup(ZONE, pause=100)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == 1


BIG = 36 * 1024 * 1024


def body_of(kind: str) -> bytes:
    if kind == "one line":
        return b"x" * BIG
    if kind == "blanks":
        return b" " * BIG
    return b"\r\n" * (BIG // 2)


@pytest.mark.parametrize("kind", ["one line", "blanks", "empty lines"])
@pytest.mark.parametrize("canon", ["relaxed", "simple"])
async def test_a_large_message_takes_little_memory(kind: str, canon: dkim.Canon) -> None:
    raw = RAW + body_of(kind)
    field = dkim.sign(raw, [signer("ed25519-sha256")], AT, body=canon)
    with tempfile.TemporaryFile() as file:
        file.write(field + raw)
        file.flush()
        del raw
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            tracemalloc.start()
            began = time.process_time()
            found = await ask(mapped)
            took = time.process_time() - began
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert [one.result for one in found.dkim] == ["pass"]
    assert peak < 3_000_000
    assert took < 10


@pytest.mark.parametrize("shape", ["100,000 fields", "one field", "no body"])
async def test_a_large_header_takes_bounded_time(shape: str) -> None:
    filling = {
        "100,000 fields": b"X-Field: value\r\n" * 100_000,
        "one field": b"X-Field: " + b"a " * 1_000_000 + b"\r\n",
        "no body": b"X-Field: value\r\n" * 10,
    }[shape]
    raw = filling + RAW
    if shape == "no body":
        raw = raw[: raw.index(b"\r\n\r\n") + 2]
        assert (await ask(raw)).dmarc.result == "pass"
        return
    began = time.process_time()
    found = await ask(dkim.sign(raw, [signer()], AT) + raw)
    assert time.process_time() - began < 10
    assert [one.result for one in found.dkim] == ["pass"]


async def test_a_header_without_end_authenticates_nothing() -> None:
    raw = b"From: ann@example.com\r\n" + b"X: " + b"x" * (9 * 1024 * 1024)
    found = await ask(raw)
    assert (found.dmarc.result, found.dmarc.reason) == ("permerror", "the header is too long")


async def test_hostile_from_fields_take_bounded_time() -> None:
    for value in (b'"\\' * 9000, b"(" * 16_000, b"(\\" * 9000, b"a@b," * 4000, b"<" * 16_000, b'"' * 15_999):
        began = time.process_time()
        await ask(b"From: " + value + b"\r\n\r\n")
        assert time.process_time() - began < 2


async def test_an_include_bomb_is_defused() -> None:
    bomb: Zone = {
        f"{index}.example.com": {"TXT": ["v=spf1 " + f"include:{index + 1}.example.com " * 9 + "-all"]}
        for index in range(30)
    }
    lookup = Lookup(bomb)
    found = await ask(lookup=lookup, reverse_path="a@0.example.com")
    assert found.spf.result == "permerror"
    assert len([name for kind, name in lookup.asked if kind == "TXT" and "dmarc" not in name]) < 15


def test_field_names_and_places() -> None:
    message = Message(b"A: 1\r\nb : 2\r\n 3\r\nA:4\r\n\r\nbody")
    assert message.names == [b"a", b"b", b"a"]
    assert message.places(b"a") == [0, 2]
    assert message.value(1) == b" 2\r\n 3"
    assert Message(b"\r\nbody").fields == []
    assert Message(b"").fields == []


_LINES = st.sampled_from(
    [
        b"From: a@example.com\r\n", b"From:", b"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=rsa; h=from; bh=AA==; b=AA==\r\n",
        b"ARC-Seal: i=1; a=rsa-sha256; d=example.com; s=rsa; cv=none; b=AA==\r\n", b"ARC-Authentication-Results: i=1; x\r\n",
        b"ARC-Message-Signature: i=1; a=rsa-sha256; d=example.com; s=rsa; h=from; bh=AA==; b=AA==\r\n",
        b"\r\n", b"\r\n ", b"\r", b"\n", b"\x00", b"\xff", b": ", b"x", b"<", b'"', b"@",
    ]
)  # fmt: skip
_NAMES = st.sampled_from(
    ["", "a@example.com", "@", "a@", "example.com", "[192.0.2.1]", "a@b@mx.example.com", "é@é", "x" * 300, "\x00"]
)


@settings(max_examples=150)
@given(
    st.lists(_LINES, max_size=20).map(b"".join), _NAMES, _NAMES, st.sampled_from(["192.0.2.7", "2001:db8::7", "x", ""])
)
async def test_nothing_makes_it_raise(raw: bytes, helo: str, path: str, peer: str) -> None:
    found = await ask(raw, helo=helo, reverse_path=path, peer=peer)
    assert all(re.fullmatch("[ -~]*", text) for text in (found.spf.domain, found.helo.domain, found.dmarc.domain))


def test_data_is_here() -> None:
    assert (Path(__file__).parent / "data" / "rfc7208-tests.LICENSE").read_text().startswith("The RFC 7208 test-suite")
