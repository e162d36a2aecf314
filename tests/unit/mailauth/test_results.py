from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes
from email.utils import parsedate_to_datetime

import authres
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mailauth import results, trace
from posthouse.mailauth.evidence import Arc, Authentication, Dkim, Dmarc, Spf

FOUND = Authentication(
    Spf("pass", "bounce.example.com", mechanism="ip4:192.0.2.0/24"),
    Spf("none", "mx.example.com", "helo", reason="no SPF record"),
    (
        Dkim("pass", "example.com", "s1", "rsa-sha256", "@example.com", 2048, signature="AbCd+/12"),
        Dkim("fail", "list.example", "s2", "ed25519-sha256", signature="xyz", reason="the body (all) was changed"),
    ),
    Dmarc("pass", "mail.example.com", "example.com", "reject", aligned_dkim=True),
    Arc("pass", ("a.example", "b.example"), 0),
    "pass",
)


def test_the_field() -> None:
    assert results.header(FOUND, "mx.example.org", peer="2001:db8::1").decode() == (
        "Authentication-Results: mx.example.org;\r\n"
        " spf=pass smtp.mailfrom=bounce.example.com;\r\n"
        " spf=none (no SPF record) smtp.helo=mx.example.com;\r\n"
        " dkim=pass (2048-bit key) header.d=example.com header.i=@example.com\r\n"
        '  header.s=s1 header.a=rsa-sha256 header.b="AbCd+/12";\r\n'
        " dkim=fail (the body ?all? was changed) header.d=list.example header.s=s2\r\n"
        "  header.a=ed25519-sha256 header.b=xyz;\r\n"
        " dmarc=pass (p=reject dis=none) header.from=mail.example.com\r\n"
        "  polrec.domain=example.com;\r\n"
        ' arc=pass (i=2) header.oldest-pass=0 arc.chain="b.example:a.example";\r\n'
        ' iprev=pass policy.iprev="2001:db8::1"\r\n'
    )


def test_a_peer_reads_it() -> None:
    text = (
        results.header(FOUND, "mx.example.org").decode().replace(" arc=pass (i=2) header.oldest-pass=0", " x-arc=pass")
    )
    found = authres.AuthenticationResultsHeader.parse(re.sub(r"\r\n\s+", " ", text).strip())
    assert found.authserv_id == "mx.example.org"
    assert [(one.method, one.result) for one in found.results] == [
        ("spf", "pass"), ("spf", "none"), ("dkim", "pass"), ("dkim", "fail"), ("dmarc", "pass"), ("x-arc", "pass"),
    ]  # fmt: skip
    assert found.results[2].header_d == "example.com"
    assert found.results[4].properties[0].value == "mail.example.com"


_TEXT = st.text(max_size=40) | st.sampled_from(["\r\nX: y", 'a"b\\', "(x)", ";", "a b", "\x00", "x" * 2000])


@given(_TEXT, _TEXT, _TEXT)
def test_no_text_leaves_its_place(first: str, second: str, third: str) -> None:
    found = Authentication(
        Spf("fail", first, reason=second),
        Spf("fail", second, "helo"),
        (Dkim("permerror", first, second, third, third, signature=first, reason=second),),
        Dmarc("fail", first, second, reason=third),
        Arc("fail", (first, third), reason=second),
    )
    raw = results.header(found, "mx.example.org", peer=first)
    lines = raw.split(b"\r\n")
    assert lines[-1] == b""
    assert all(line.startswith(b" ") and line.strip() for line in lines[1:-1])
    assert all(len(line) <= 998 and re.fullmatch(rb"[ -~]+", line) for line in lines[:-1])
    bare = re.sub(rb'"(?:[^"\\]|\\.)*"', b"q", raw.replace(b"\r\n", b" "))
    bare = re.sub(rb"\([^()]*\)", b"", bare)
    assert b'"' not in bare
    assert bare.count(b";") == 6
    assert len(message_from_bytes(raw + b"\r\nbody").items()) == 1


FORGED = [
    (b"mx.example.org; spf=pass", True),
    (b" MX.Example.ORG;", True),
    (b"mx.example.org", True),
    (b"mx.example.org 1; none", True),
    (b"\r\n mx.example.org; x", True),
    (b'"mx.example.org"; x', True),
    (b'"mx.\\example.org"; x', True),
    (b"(hi) mx.example.org; x", True),
    (b"((nested) x) mx.example.org; x", True),
    (b"mx.example.org.; x", True),
    (b"mx.example.org(x); y", True),
    (b"mx.example.net; x (mx.example.org)", False),
    (b"amx.example.org; x", False),
    (b"mx.example.org.evil.example; x", False),
    (b"", False),
    (b"; mx.example.org", True),
]


@pytest.mark.parametrize(("value", "forged"), FORGED)
def test_who_claims_to_be_us(value: bytes, forged: bool) -> None:
    block = (
        b"Received: x\r\n y\r\nAuthentication-results :" + value + b"\r\nX: Authentication-Results: mx.example.org\r\n"
    )
    assert results.strip_forged(block, "mx.example.org") == ((1,) if forged else ())


def test_every_claim_is_named() -> None:
    block = b"Authentication-Results: mx.example.org; x\r\nA: 1\r\nauthentication-RESULTS: xn--bcher-kva.example; x\r\n"
    assert results.strip_forged(block * 2, "mx.example.org") == (0, 3)
    assert results.strip_forged(block, "bücher.example") == (2,)
    assert results.strip_forged(b"", "mx.example.org") == ()


AT = datetime(2025, 7, 1, 9, 5, 3, tzinfo=UTC)


def received(**changes: str | None) -> bytes:
    values: dict[str, str | None] = {
        "helo": "mx.example.com", "peer": "192.0.2.1", "rdns": "mail.example.com", "host": "mx.example.org",
        "protocol": "ESMTPS", "id": "01J0ABC", "recipient": "bob@example.org", "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
    }  # fmt: skip
    return trace.received(at=AT, **(values | changes))  # type: ignore[arg-type]


def test_received() -> None:
    assert received().decode() == (
        "Received: from mx.example.com (mail.example.com [192.0.2.1])\r\n"
        " by mx.example.org with ESMTPS id 01J0ABC\r\n"
        " (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        " for <bob@example.org>;\r\n"
        " Tue, 01 Jul 2025 09:05:03 +0000\r\n"
    )
    assert b"(mail.example.com [IPv6:2001:db8::1])" in received(peer="2001:db8::1")
    assert b"from [192.0.2.1] ([192.0.2.1])" in received(helo="[192.0.2.1]", rdns=None)
    bare = received(recipient=None, tls=None)
    assert b"for <" not in bare
    assert b"TLS" not in bare


@given(_TEXT, _TEXT, _TEXT)
def test_received_holds_nothing_else(helo: str, rdns: str, recipient: str) -> None:
    raw = received(helo=helo, rdns=rdns, recipient=recipient, tls=helo, id=rdns)
    assert raw.count(b"\r\n") == raw.count(b"\r") == raw.count(b"\n")
    assert all(line.startswith(b" ") for line in raw.split(b"\r\n")[1:-1])
    assert parsedate_to_datetime(raw.decode().rpartition(";")[2].strip()) == AT


def test_zones_and_naive_times() -> None:
    west = AT.astimezone(timezone(-timedelta(hours=3, minutes=30)))
    raw = trace.received(helo="a", peer="192.0.2.1", rdns=None, host="b", protocol="SMTP", id="1", at=west)
    assert raw.endswith(b"Tue, 01 Jul 2025 05:35:03 -0330\r\n")
    with pytest.raises(ValueError, match="aware"):
        trace.received(
            helo="a", peer="192.0.2.1", rdns=None, host="b", protocol="SMTP", id="1", at=AT.replace(tzinfo=None)
        )


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("ann@example.com", b"Return-Path: <ann@example.com>\r\n"),
        ("", b"Return-Path: <>\r\n"),
        ('"a"@example.com', b'Return-Path: <"a"@example.com>\r\n'),
        ("jürgen@example.com", "Return-Path: <jürgen@example.com>\r\n".encode()),
        ("a@b>\r\nX: y", b"Return-Path: <>\r\n"),
        ("x" * 600, b"Return-Path: <>\r\n"),
    ],
)
def test_return_path(path: str, field: bytes) -> None:
    assert trace.return_path(path) == field
