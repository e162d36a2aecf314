from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.mailauth import digest, dkim, verify
from posthouse.mailauth.evidence import Dkim
from posthouse.mailauth.keys import KeyFault, parse_key
from posthouse.mailauth.message import MAX_HEADER, Message

from .signing import AT, RAW, craft, keys, signer, weak_record, zone
from .zone import Lookup, Zone

ALGORITHMS: tuple[dkim.Algorithm, ...] = ("rsa-sha256", "ed25519-sha256")
CANONS: tuple[dkim.Canon, ...] = ("relaxed", "simple")
EXAMPLES = Path(__file__).parent / "data"


async def check(raw: bytes, dns: Zone | None = None, now: int = AT) -> Dkim:
    found = await verify.verify(Message(raw), Lookup(zone() if dns is None else dns), now=now)
    assert len(found) == 1
    return found[0]


def record(text: str, name: str = "rsa._domainkey.example.com") -> Zone:
    return {name: {"TXT": [text]}}


async def test_no_signature_no_result() -> None:
    assert await verify.verify(Message(RAW), Lookup({}), now=AT) == ()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("header", CANONS)
@pytest.mark.parametrize("body", CANONS)
async def test_what_we_sign(algorithm: dkim.Algorithm, header: dkim.Canon, body: dkim.Canon) -> None:
    found = await check(dkim.sign(RAW, [signer(algorithm)], AT, header=header, body=body) + RAW)
    assert (found.result, found.domain, found.algorithm) == ("pass", "example.com", algorithm), found
    assert found.key_bits == (2048 if algorithm.startswith("rsa") else 256)
    assert len(found.signature) == 8


@pytest.mark.parametrize("header", CANONS)
@pytest.mark.parametrize("body", CANONS)
@pytest.mark.parametrize("length", [False, True])
async def test_what_dkimpy_signs(header: str, body: str, length: bool) -> None:
    key = keys()[0]
    assert isinstance(key, RSAPrivateKey)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    field = dkimpy.sign(
        RAW, b"rsa", b"example.com", pem, canonicalize=(header.encode(), body.encode()), length=length
    )  # fmt: skip
    found = await check(field + RAW)
    assert (found.result, found.covered) == ("pass", None), found
    longer = await check(field + RAW + b"and more\r\n")
    if length:
        assert longer.result == "pass"
        assert longer.covered is not None
        assert "unsigned" in longer.reason
    else:
        assert longer.result == "fail"


@pytest.mark.parametrize("name", ["rfc6376-a.eml", "rfc8463-a.eml"])
async def test_the_examples_of_the_rfcs(name: str) -> None:
    raw = (EXAMPLES / name).read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    keys_of = dict(re.findall(r"^(\S+) (v=DKIM1.*)$", (EXAMPLES / "rfc-keys.txt").read_text(), re.MULTILINE))
    found = await verify.verify(Message(raw), Lookup({k: {"TXT": [v]} for k, v in keys_of.items()}), now=0)
    assert [one.result for one in found] == ["pass"] * len(found)
    assert len(found) == (2 if "8463" in name else 1)


CASES: list[tuple[dict[str, str | None], str, str]] = [
    ({"v": "2"}, "permerror", "v="),
    ({"v": None}, "permerror", "v="),
    ({"d": None}, "permerror", "d="),
    ({"s": None}, "permerror", "s="),
    ({"h": ""}, "permerror", "h="),
    ({"bh": None, "h": "From"}, "permerror", "bh="),
    ({"h": "To:Subject"}, "permerror", "From"),
    ({"a": "rsa-sha1"}, "policy", "sha1"),
    ({"a": "rsa-md5"}, "permerror", "a="),
    ({"a": "ed25519-sha256"}, "permerror", "type"),
    ({"c": "loose"}, "permerror", "c="),
    ({"c": "relaxed/loose"}, "permerror", "c="),
    ({"q": "http"}, "permerror", "q="),
    ({"q": "http : dns/txt"}, "pass", ""),
    ({"q": "dns/txt"}, "pass", ""),
    ({"i": "@example.com"}, "pass", ""),
    ({"i": "ann=40b@Mail.Example.com"}, "pass", ""),
    ({"i": "@badexample.com"}, "permerror", "i="),
    ({"i": "@com"}, "permerror", "i="),
    ({"i": "example.com"}, "permerror", "i="),
    ({"x": str(AT + 1)}, "pass", ""),
    ({"x": str(AT - 1), "t": None}, "fail", "expired"),
    ({"x": str(AT)}, "permerror", "x="),
    ({"x": "soon"}, "permerror", "number"),
    ({"t": "-1"}, "permerror", "number"),
    ({"l": "4"}, "pass", "unsigned"),
    ({"l": "0"}, "pass", "unsigned"),
    ({"l": "9999"}, "fail", "longer"),
    ({"l": "4k"}, "permerror", "number"),
    ({"l": "9" * 77}, "permerror", "number"),
    ({"d": "other.example"}, "permerror", "no key"),
    ({"d": "exa mple.com"}, "permerror", "domain name"),
    ({"d": "..", "s": "x"}, "permerror", "domain name"),
    ({"bh": b64encode(b"0" * 32).decode()}, "fail", "body"),
    ({"bh": "?"}, "permerror", "base64"),
    ({"z": "From:x|To:y"}, "pass", ""),
    ({"unknown": "1"}, "pass", ""),
    ({"c": "relaxed"}, "pass", ""),
    ({"c": None, "h": "from : TO"}, "pass", ""),
    ({"h": "From:From:X-Never:To"}, "pass", ""),
]


@pytest.mark.parametrize(("changes", "result", "reason"), CASES, ids=[str(case[0])[:60] for case in CASES])
async def test_tags(changes: dict[str, str | None], result: str, reason: str) -> None:
    found = await check(craft(**changes))
    assert found.result == result, found
    assert reason in found.reason


def test_a_tag_twice_spoils_the_list() -> None:
    for text in ("a=1; a=1", "a", "=1", "1a=1", "a=1;;b=2", "a=1; ; b=2"):
        with pytest.raises(verify.tags.TagFault):
            verify.tags.parse(text)
    assert verify.tags.parse(" a = 1 \r\n ; b=\t2;") == {"a": "1", "b": "2"}


GOOD = keys()[1].partition("p=")[2]
RECORDS = [
    (f"p={GOOD}", "pass", ""),
    (f"v=DKIM1; k=rsa; h=sha1 : sha256; s=* ; t=; n=hello; p={GOOD}", "pass", ""),
    (f"v=DKIM1; s=email:tlsrpt; p={GOOD[:90]} {GOOD[90:]};", "pass", ""),
    (f"v=DKIM2; p={GOOD}", "permerror", "version"),
    (f"k=rsa; v=DKIM1; p={GOOD}", "permerror", "version"),
    ("v=DKIM1; p=", "permerror", "revoked"),
    ("v=DKIM1; p= ;", "permerror", "revoked"),
    ("v=DKIM1", "permerror", "no key"),
    (f"v=DKIM1; h=sha1; p={GOOD}", "permerror", "sha256"),
    (f"v=DKIM1; s=tlsrpt; p={GOOD}", "permerror", "mail"),
    (f"v=DKIM1; k=ed25519; p={GOOD}", "permerror", "Ed25519"),
    (f"v=DKIM1; k=dsa; p={GOOD}", "permerror", "unknown"),
    ("v=DKIM1; p=AAAA", "permerror", "RSA"),
    ("v=DKIM1; p=A?", "permerror", "malformed"),
    (f"v=DKIM1; p={GOOD}; p={GOOD}", "permerror", "malformed"),
    (keys("ed25519-sha256")[1], "permerror", "type"),
    (keys("rsa-sha256", 1)[1], "fail", "another key"),
    (weak_record(), "policy", "768 bits"),
    ("v=DKIM1; p=" + "A" * 5000, "permerror", "long"),
    ("v=spf1 -all", "permerror", "key"),
]


@pytest.mark.parametrize(("text", "result", "reason"), RECORDS, ids=[f"{i}-{r[1]}" for i, r in enumerate(RECORDS)])
async def test_key_records(text: str, result: str, reason: str) -> None:
    found = await check(craft(), record(text))
    assert found.result == result, found
    assert reason.lower() in found.reason.lower()


async def test_a_key_in_pkcs1_form() -> None:
    key = keys()[0]
    assert isinstance(key, RSAPrivateKey)
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    assert (await check(craft(), record(f"p={b64encode(der).decode()}"))).result == "pass"


async def test_testing_and_strict_keys() -> None:
    found = await check(craft(), record(f"t=y; p={GOOD}"))
    assert (found.result, found.testing) == ("pass", True)
    strict = record(f"t=s; p={GOOD}")
    assert (await check(craft(), strict)).result == "pass"
    assert (await check(craft(i="@example.com"), strict)).result == "pass"
    found = await check(craft(i="@mail.example.com"), strict)
    assert (found.result, found.reason) == ("permerror", "i= names a subdomain, which the key forbids")


async def test_several_records_of_one_name() -> None:
    name = "rsa._domainkey.example.com"
    both: Zone = {name: {"TXT": ["v=spf1 -all", keys("rsa-sha256", 1)[1], keys()[1]]}}
    assert (await check(craft(), both)).result == "pass"
    crowd: Zone = {name: {"TXT": [keys("rsa-sha256", 1)[1]] * 20 + [keys()[1]]}}
    assert (await check(craft(), crowd)).result == "fail"


async def test_dns_trouble_is_temporary() -> None:
    found = await check(craft(), {"rsa._domainkey.example.com": None})
    assert (found.result, found.domain, found.selector) == ("temperror", "example.com", "rsa")


async def test_names_beyond_ascii() -> None:
    dns = record(keys()[1], "rsa._domainkey.xn--bcher-kva.example")
    found = await check(craft(d="bücher.example", i="ann@mail.bücher.example"), dns)
    assert (found.result, found.domain) == ("pass", "xn--bcher-kva.example"), found


async def test_many_signatures_are_bounded() -> None:
    fields = dkim.sign(RAW, [signer(), signer("ed25519-sha256")] * 40, AT)
    lookup = Lookup(zone())
    found = await verify.verify(Message(fields + RAW), lookup, now=AT)
    assert [one.result for one in found] == ["pass"] * verify.MAX_SIGNATURES
    assert len(lookup.asked) == 2


async def test_a_field_added_is_noticed_when_it_was_signed_as_absent() -> None:
    signed = craft(h="From:From:To:Subject")
    assert (await check(signed)).result == "pass"
    assert (await check(signed.replace(b"From: Ann", b"From: eve@example.org\r\nFrom: Ann", 1))).result == "fail"
    # Without that it passes, and DMARC looks at every From.
    assert (await check(craft().replace(b"From: Ann", b"From: eve@example.org\r\nFrom: Ann", 1))).result == "pass"


async def test_signatures_signed_by_signatures() -> None:
    first = dkim.sign(RAW, [signer("ed25519-sha256")], AT) + RAW
    found = await verify.verify(Message(craft(first, h="From:DKIM-Signature")), Lookup(zone()), now=AT)
    assert [one.result for one in found] == ["pass", "pass"]


async def test_an_empty_body_and_none() -> None:
    for raw in (RAW[: RAW.index(b"\r\n\r\n") + 4], RAW[: RAW.index(b"\r\n\r\n") + 2]):
        for canon in ("simple/simple", "relaxed/relaxed"):
            assert (await check(craft(raw, c=canon))).result == "pass"


async def test_a_header_that_is_too_long() -> None:
    signed = craft()
    long = signed[: signed.index(b"From:")] + b"X: " + b"x" * MAX_HEADER + b"\r\n"
    found = await check(long + signed[signed.index(b"From:") :])
    assert (found.result, found.reason) == ("permerror", "the header is too long")


def test_refused_text_is_made_harmless() -> None:
    field = "DKIM-Signature: v=1; d=a\x00b\x1b[31m\u202e" + "x" * 500 + "; s=\x07\r\n"
    found = verify.unanswered(Message(field.encode() + RAW), AT)[0]
    assert found.result == "permerror"
    assert all(text.isascii() and text.isprintable() and len(text) <= 128 for text in (found.domain, found.selector))


@settings(max_examples=60)
@given(data=st.data())
async def test_any_flipped_octet_is_noticed(data: Any) -> None:
    for algorithm in ALGORITHMS:
        signed = dkim.sign(RAW, [signer(algorithm)], AT, header="simple", body="simple") + RAW
        at = data.draw(st.integers(0, len(signed) - 5))
        changed = bytearray(signed)
        changed[at] ^= data.draw(st.sampled_from([1, 0x20, 0x80, 0xFF]))
        found = await verify.verify(Message(bytes(changed)), Lookup(zone()), now=AT)
        field = signed.index(b"\r\nFrom:")
        if at > field:
            assert [one.result for one in found] != ["pass"]
        elif [one.result for one in found] == ["pass"]:
            # Case where it says nothing: of the field's own name, a tag's base64 fold, v=1's like.
            assert bytes(changed).lower().split(b":")[0].strip() == b"dkim-signature"
            assert verify.without_signature(bytes(changed)[:field]) == verify.without_signature(signed[:field])


@settings(max_examples=150)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                [b"DKIM-Signature:", b" v=1;", b" a=rsa-sha256;", b" d=example.com;", b" s=rsa;", b" h=from;", b"b=", b"bh=",
                 b"AAAA", b"\r\n", b"\r\n ", b"From: a", b";", b"=", b"l=1;", b"\xff", b"c=relaxed/simple;", b"\x00", b"x=1;"]
            ),
            max_size=40,
        ).map(b"".join),
    )
)  # fmt: skip
async def test_garbage_never_raises(raw: bytes) -> None:
    for one in await verify.verify(Message(raw), Lookup(zone()), now=AT):
        assert one.result in {"fail", "permerror", "policy", "temperror"}


@settings(max_examples=100)
@given(st.binary(max_size=200) | st.text("vpkst=;: DKIM1rsaed25519A/+\n", max_size=80).map(str.encode))
def test_garbage_is_no_key(record: bytes) -> None:
    assert isinstance(parse_key(record), KeyFault)


_PIECES = st.lists(
    st.sampled_from([b"a", b"bc", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\r\n" * 9, b" " * 9, b"\t \r\n", b"\x0b"]),
    max_size=30,
).map(b"".join)


@settings(max_examples=300)
@given(_PIECES, st.sampled_from(CANONS), st.integers(1, 8), st.integers(0, 40))
def test_a_body_in_pieces_is_the_body(body: bytes, canon: dkim.Canon, half: int, length: int) -> None:
    whole = digest.body_hashes(b"H: 1\r\n\r\n" + body, 8, canon, [None, length])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "SMALL", -1)
        patch.setattr(digest, "_PIECE", 2 * half)
        assert digest.body_hashes(b"H: 1\r\n\r\n" + body, 8, canon, [None, length]) == whole
