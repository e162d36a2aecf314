"""SPF, DKIM, DMARC and ARC over a hostile message: nothing raises, and only what was signed passes."""

from __future__ import annotations

import asyncio
import mmap
import re

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from posthouse.mailauth import dkim, results
from posthouse.mailauth.authenticate import authenticate
from posthouse.mailauth.evidence import Authentication
from posthouse.mailauth.message import Message
from posthouse.mailauth.seal import seal
from posthouse.smtp.body import only_crlf
from tests.unit.mailauth.zone import Lookup

_AT = 1_751_360_703
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_SIGNER = dkim.Signer("example.com", "ed", _KEY)
_HOP = dkim.Signer("hop.example", "ed", _KEY)
_RECORD = dkim.dns_record("ed25519-sha256", dkim.public_key(_KEY))
_ZONE = {
    "example.com": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"]},
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject; sp=quarantine"]},
    "ed._domainkey.example.com": {"TXT": [_RECORD]},
    "ed._domainkey.hop.example": {"TXT": [_RECORD]},
    "dead._domainkey.example.com": None,
    "1.113.0.203.in-addr.arpa": {"PTR": ["mx.other.example"]},
    "mx.other.example": {"A": ["203.0.113.1"], "TXT": ["v=spf1 a -all"]},
}
_BODIES = (b"Hi  Bob\t\r\n\r\nAnn \r\n\r\n\r\n", b"", b"x" * 2000 + b"\r\n", b"no line end")
_HEADER = (
    b"From: Ann <ann@example.com>\r\nTo: bob@example.org\r\nSubject: Hello\r\n there\r\n"
    b"Date: Tue, 01 Jul 2025 09:05:03 +0000\r\nMessage-ID: <1@example.com>\r\n"
)
_RESULTS = b"mx.hop.example; spf=pass smtp.mailfrom=example.com"


def _signed(body: bytes, header: dkim.Canon, kind: dkim.Canon) -> bytes:
    raw = _HEADER + b"\r\n" + body
    return dkim.sign(raw, [_SIGNER], _AT, header=header, body=kind) + raw


def _sealed(raw: bytes, status: str) -> bytes:
    return seal(raw, _HOP, _RESULTS, status, _AT) + raw


_SIGNED = [_signed(body, "relaxed", "relaxed") for body in _BODIES] + [_signed(_BODIES[0], "simple", "simple")]
_CHAIN = _sealed(_sealed(_SIGNED[0], "none"), "pass")
CORPUS: tuple[bytes, ...] = (
    b"",
    b"\r\n",
    *_SIGNED,
    _CHAIN,
    _sealed(_CHAIN, "pass"),
    _sealed(_CHAIN, "fail"),
    _SIGNED[1].replace(b"s=ed;", b"s=dead;"),
    _SIGNED[0].replace(b"DKIM-Signature:", b"DKIM-Signature: v=1; l=0; x=1; q=dns/txt; i=@a.example.com; z=From:x;"),
    _HEADER.replace(b"Ann <ann@example.com>", b"a@example.com, =?utf-8?q?=40other?= <b@[192.0.2.1]>, c@d (e@f)")
    + b"\r\n",
    _HEADER + b"From: <eve@other.example>\r\nSender: x@y\r\n\r\nbody\r\n",
    b"Authentication-Results: mx.hop.example; dkim=pass\r\nReceived-SPF: pass\r\n" + _HEADER + b"\r\nx\r\n",
    b"ARC-Seal: i=1; cv=none\r\nARC-Seal: i=50\r\nARC-Message-Signature: i=1\r\nARC-Authentication-Results: i=1; x\r\n\r\n",
)
_WORDS = {
    "spf": {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"},
    "dkim": {"pass", "fail", "neutral", "policy", "temperror", "permerror"},
    "dmarc": {"none", "pass", "fail", "temperror", "permerror"},
    "arc": {"none", "pass", "fail"},
}
_LINE = re.compile(r"[\x20-\x7e]{1,998}")


def check(data: bytes) -> None:
    """From a stranger's address, so that nothing but a signature speaks for example.com."""
    asyncio.run(_check(data))


async def _check(data: bytes) -> None:
    found = await _ask(data)
    assert found.spf.result in _WORDS["spf"]
    assert found.dmarc.result in _WORDS["dmarc"]
    assert found.arc.result in _WORDS["arc"]
    assert found.iprev == "pass"
    assert {one.result for one in found.dkim} <= _WORDS["dkim"]
    for line in results.header(found, "mx.example", peer="203.0.113.1").decode("ascii").split("\r\n")[:-1]:
        assert _LINE.fullmatch(line) is not None, line
    _check_honest(data, found)
    if data:
        with mmap.mmap(-1, len(data)) as mapped:
            mapped[:] = data
            assert await _ask(mapped) == found
    await _check_seal(data, found)
    _check_forged(data)


async def _ask(raw: bytes | mmap.mmap) -> Authentication:
    lookup = Lookup(_ZONE)
    found = await authenticate(
        raw,
        peer="203.0.113.1",
        helo="mx.other.example",
        reverse_path="eve@other.example",
        lookup=lookup,
        now=_AT,
        deadline=60.0,
    )
    assert len(lookup.asked) <= 250
    return found


def _check_honest(data: bytes, found: Authentication) -> None:
    """Nobody but us has the key: what passes has a body and a From that were signed."""
    message = Message(data)
    whole = [one for one in found.dkim if one.result == "pass" and one.covered is None]
    if whole:
        assert _relaxed(data[message.start :]) in _SIGNED_BODIES
        assert {message.canonical("relaxed")[index] for index in message.places(b"from")} == {_FROM}
        assert all(one.domain in {"example.com", "hop.example"} for one in whole)
    if found.dmarc.result == "pass":
        assert found.dmarc.domain == "example.com"
        assert found.dmarc.aligned_dkim
        assert whole
    if found.arc.result == "pass":
        assert set(found.arc.sealers) == {"hop.example"}
        assert found.arc.oldest_pass == 0 or _relaxed(data[message.start :]) in _SIGNED_BODIES


def _relaxed(body: bytes) -> bytes:
    return bytes(dkim.canonical_body(memoryview(body), "relaxed"))


_SIGNED_BODIES = {_relaxed(body) for body in _BODIES}
_FROM = Message(_HEADER).canonical("relaxed")[0]


async def _check_seal(data: bytes, found: Authentication) -> None:
    """What we seal has the chain that we say it has."""
    message = Message(data)
    if b"from" not in message.names or not only_crlf(data) or data[:1] in {b" ", b"\t"}:
        return  # we seal what begins with fields of ours
    fields = seal(data, _HOP, results.payload(found, "mx.hop.example"), found.arc.result, _AT)
    if not fields:
        return
    again = (await _ask(fields + data)).arc
    assert again.result == ("pass" if fields.count(b"cv=fail") == 0 else "fail"), again


def _check_forged(data: bytes) -> None:
    header = data[: Message(data).start]
    for index in results.strip_forged(header, "mx.hop.example"):
        assert index >= 0
    own = b"Authentication-Results: (x) MX.hop.example. 1; dkim=pass\r\n"
    assert 0 in results.strip_forged(own + header, "mx.hop.example")
