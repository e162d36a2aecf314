"""RFC 8617 tag by tag: each chain is signed as it stands, dkimpy is the judge of what may pass."""

from __future__ import annotations

from collections.abc import Mapping

import dkim as dkimpy
import pytest

from posthouse.mailauth import arc
from posthouse.mailauth.evidence import Arc
from posthouse.mailauth.message import Message

from .arc_cases import DOMAIN, Tags, chain
from .signing import RAW, zone
from .zone import Lookup

ZONE = zone(DOMAIN)

Case = Mapping[str, str | None]
PASS: list[tuple[str, Case]] = [
    *[
        (name, tags)
        for name in ("ams", "seal")
        for tags in (
            {"t": None}, {"t": "1"}, {"zz": "1"}, {"v": "1"}, {"q": "dns/txt"}, {"i": "01"}, {"+\r\n ": None},
            {"+ zz \r\n = 1 ; ": None}, {"a": " rsa-sha256\r\n "}, {"i": " 1 "}, {"d": "EXAMPLE.ORG"},
        )
    ],
    *[("ams", {"c": value}) for value in ("relaxed/relaxed", "relaxed/simple", "relaxed", "simple/relaxed",
                                          "simple/simple", "simple")],
    *[("ams", {"h": value}) for value in ("from", "From:TO", "from:from:to:x-none", "from:\r\n to : subject",
                                          "from:to:to:to", "subject:from", "from:authentication-results",
                                          "from:to:arc-authentication-results")],
    ("ams", {"l": "15"}),
]  # fmt: skip
FAIL: list[tuple[str, Case]] = [
    *[
        (name, tags)
        for name in ("ams", "seal")
        for tags in (
            {"i": None}, {"i": ""}, {"i": "0"}, {"i": "51"}, {"i": "x"}, {"i": "2"}, {"i": "-1"}, {"i": "1.0"},
            {"a": None}, {"a": ""}, {"a": "rsa-md5"}, {"a": "rsa-sha1"}, {"a": "RSA-SHA256"}, {"a": None, "A": "rsa-sha256"},
            {"d": None}, {"d": ""}, {"d": "example.net"}, {"d": "@a b"}, {"s": None}, {"s": ""}, {"s": "none"},
            {"t": ""}, {"t": "now"}, {"q": "dns/odd"}, {"q": ""}, {"x": "soon"},
            {"+zz=1;; ": None}, {"+d=example.org; ": None}, {"+zz=1; zz=2; ": None}, {"+9zz=1; ": None},
            {"+zz; ": None},
        )
    ],
    *[("ams", {"c": value}) for value in ("", "odd/odd", "relaxed/", "Relaxed/Relaxed", "/relaxed")],
    *[("ams", {"h": value}) for value in (None, "", "to:subject", "from:arc-seal", "from:ARC-Seal:to")],
    *[("ams", {"bh": value}) for value in (None, "", "AAAA", "?x?")],
    *[("ams", {"l": value}) for value in ("3", "9999", "", "x", "-1")],
    *[("seal", {"cv": value}) for value in (None, "", "maybe", "None", "pass", "fail")],
    ("seal", {"h": "from"}), ("seal", {"h": ""}),
]  # fmt: skip


def answer(name: bytes, timeout: int = 5) -> bytes:
    found = ZONE.get(name.decode().lower().rstrip("."))
    return found["TXT"][0].encode() if found else b""


async def check(raw: bytes) -> Arc:
    return await arc.verify(Message(raw), Lookup(ZONE))


def of(name: str, tags: Tags, hops: int = 1, instance: int = 1) -> bytes:
    return chain(hops, **{name: {instance: tags}})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "tags"), PASS)
async def test_what_the_rfc_allows(name: str, tags: Case) -> None:
    raw = of(name, tags)
    found = await check(raw)
    assert found.result == "pass", found.reason
    if not tags.keys() & {"l", "i", "+ zz \r\n = 1 ; "}:  # dkimpy reads none of these
        assert dkimpy.arc_verify(raw, dnsfunc=answer)[0] == b"pass"


@pytest.mark.parametrize(("name", "tags"), FAIL)
async def test_what_the_rfc_forbids(name: str, tags: Case) -> None:
    found = await check(of(name, tags))
    assert found.result == "fail"
    assert found.reason


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("i=1; mx.example; none", "pass"),
        ("  i = 1 ; mx.example; none", "pass"),
        ("\r\n i=1;\r\n mx.example; none", "pass"),
        ("(a) i (b) = (c) 1 (d); mx.example; none", "pass"),
        ("mx.example; none", "fail"),
        ("mx.example; i=1; none", "fail"),
        ("i=; mx.example", "fail"),
        ("i=2; mx.example", "fail"),
        ("i=0; mx.example", "fail"),
        ("i=001; mx.example", "fail"),
        ("I=1; mx.example", "fail"),
        ("i=1", "fail"),
    ],
)
async def test_the_instance_of_results(value: str, result: str) -> None:
    assert (await check(chain(1, results={1: value}))).result == result


@pytest.mark.parametrize("status", ["none", "fail", "", None])
@pytest.mark.parametrize("instance", [2, 3])
async def test_only_the_first_hop_says_none(instance: int, status: str | None) -> None:
    assert (await check(chain(3))).result == "pass"
    assert (await check(of("seal", {"cv": status}, 3, instance))).result == "fail"


@pytest.mark.parametrize(
    "tags", [{"a": None}, {"a": "rsa-sha1"}, {"d": "example.net"}, {"h": "from:arc-seal"}, {"bh": "AAAA"}, {"t": "x"}]
)
async def test_an_older_message_signature_decides_nothing(tags: Case) -> None:
    """RFC 8617 §5.2 steps 4 and 5: the newest one must hold, the others say since when."""
    found = await check(of("ams", tags, 3, 2))
    assert (found.result, found.oldest_pass) == ("pass", 3)
    assert (await check(of("ams", tags, 3, 3))).result == "fail"


async def test_an_instance_that_is_skipped() -> None:
    raw = chain(3)
    for gone in (1, 2):
        fields = raw.split(b"\r\nARC-")
        kept = [part for part in fields if b"i=%d;" % gone not in part.split(b"; ", 1)[0] + b";"]
        assert len(kept) == len(fields) - 3
        assert (await check(b"\r\nARC-".join(kept))).result == "fail"


@pytest.mark.parametrize("raw", [b"From: a@example.com\r\n\r\n", b"From: a@example.com\r\n", RAW])
async def test_without_a_body(raw: bytes) -> None:
    assert (await check(raw)).result == "none"
    assert (await check(chain(2, raw=raw))).result == "pass"
