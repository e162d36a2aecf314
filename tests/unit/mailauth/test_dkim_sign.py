from __future__ import annotations

import random
import re
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dkim.canonicalization import CanonicalizationPolicy
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.address import Mailbox, parse_mailbox
from posthouse.mail.build import Attachment, Content, Headers, build
from posthouse.mailauth import dkim

AT = 1_751_360_703
ALGORITHMS: tuple[dkim.Algorithm, ...] = ("rsa-sha256", "ed25519-sha256")
CANONS: tuple[dkim.Canon, ...] = ("relaxed", "simple")


@cache
def signer(algorithm: dkim.Algorithm) -> tuple[dkim.Signer, str]:
    pem, public = dkim.generate_key(algorithm)
    selector = algorithm.partition("-")[0]
    return dkim.Signer("example.com", selector, dkim.load_private_key(pem)), dkim.dns_record(algorithm, public)


def dns(name: bytes, timeout: int = 5) -> bytes:
    for algorithm in ALGORITHMS:
        one, record = signer(algorithm)
        if name.decode() == f"{one.selector}._domainkey.{one.domain}.":
            return record.encode()
    return b""


def is_verified(signed: bytes, index: int = 0) -> bool:
    try:
        return dkimpy.DKIM(signed, timeout=1).verify(idx=index, dnsfunc=dns)
    except dkimpy.DKIMException:
        return False


def message(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "from_": Mailbox("Ann Lee", "ann", "example.com"),
        "to": (Mailbox("", "bob", "example.org"),),
        "subject": "Hello",
        "date": datetime(2025, 7, 1, 9, 5, 3, tzinfo=UTC),
        "message_id": "<1@example.com>",
    }
    return build(Headers(**(values | changes)), Content("Hi\n\nAnn  \n\n\n", "<p>Hi\n  <b>there</b>\t\n"))


WORDS = (
    "order", "Привет", "  ", "\t", "\n", "\n\n", "From x", ".", "=?x?q?y?=", "ünïcødé", "😀", "x" * 90, "y" * 1200,
    "--", "a:b",
    "مرحبا",
)  # fmt: skip


def random_message(rng: random.Random) -> bytes:
    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randrange(12)))

    def line() -> str:
        return " ".join(w for w in rng.choices(WORDS, k=rng.randrange(1, 8)) if w.isprintable()).strip() or "x"

    boxes = [
        parse_mailbox("bob@example.org"),
        Mailbox(line()[:200], "eve", "example.net"),
        parse_mailbox("é@x.example"),
    ]
    extra = [
        ("List-Unsubscribe", "<https://example.com/u>"),
        ("X-Other", line()),
        ("Feedback-ID", "a:b"),
        ("X-Other", "2"),
    ]
    headers = Headers(
        from_=Mailbox(line()[:100], "ann", "example.com"),
        to=tuple(rng.sample(boxes[:2], k=rng.randrange(3))),
        cc=tuple(rng.sample(boxes[:2], k=rng.randrange(2))),
        reply_to=tuple(boxes[:1] * rng.randrange(2)),
        subject=line(),
        date=datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(10**7)),
        message_id=f"<{rng.randrange(10**12)}@example.com>",
        extra=tuple(rng.sample(extra, k=rng.randrange(5))),
    )
    files = (Attachment("f", "application/pdf", rng.randbytes(rng.randrange(200))),) * rng.randrange(2)
    return build(headers, Content(rng.choice([None, text()]), rng.choice([None, text()]), files))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("header", CANONS)
@pytest.mark.parametrize("body", CANONS)
def test_dkimpy_verifies_generated_messages(header: dkim.Canon, body: dkim.Canon) -> None:
    rng = random.Random(f"{header}/{body}")
    signers = [signer(algorithm)[0] for algorithm in ALGORITHMS]
    for number in range(800):
        raw = random_message(rng)
        chosen = signers if number % 50 == 0 else [signers[number % 2]]
        signed = dkim.sign(raw, chosen, AT, header=header, body=body) + raw
        assert all(is_verified(signed, index) for index in range(len(chosen))), raw


def test_the_field() -> None:
    one, _ = signer("rsa-sha256")
    raw = message()
    field = dkim.sign(raw, [one], AT)
    lines = field.split(b"\r\n")
    assert all(len(line) <= 78 for line in lines)
    assert lines[0] == b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; t=1751360703;"
    tags = dict(tag.strip().split("=", 1) for tag in re.sub(r"\r\n\s*", "", field.decode())[16:].split(";"))
    names = tags["h"].split(":")
    for name in ("from", "to", "subject", "date", "message-id", "mime-version", "content-type"):
        assert names.count(name) == 2
    for name in ("cc", "reply-to", "list-unsubscribe", "list-unsubscribe-post"):
        assert names.count(name) == 1
    assert {"d", "s", "bh", "b"} < tags.keys()
    assert "l" not in tags


def test_no_signer_gives_no_field() -> None:
    assert dkim.sign(message(), [], AT) == b""


def test_same_names_in_another_order_are_another_plan() -> None:
    one, _ = signer("ed25519-sha256")
    raw = b"To: b@example.org\r\nFrom: a@example.com\r\nSubject: 1\r\nTo: c@example.org\r\n\r\nx\r\n"
    other = b"Subject: 1\r\nTo: b@example.org\r\nTo: c@example.org\r\nFrom: a@example.com\r\n\r\nx\r\n"
    for text in (raw, other):
        assert is_verified(dkim.sign(text, [one], AT) + text)


TAMPERED = [
    lambda m: m.replace(b"Subject: Hello", b"Subject: Hullo"),
    lambda m: m.replace(b"Ann Lee", b"Ann Leo"),
    lambda m: m.replace(b"<b>there", b"<b>where"),
    lambda m: m + b"more\r\n",
    lambda m: m.replace(b"DKIM-Signature: v=1", b"Subject: other\r\nDKIM-Signature: v=1", 1),
    lambda m: m.replace(b"From: ", b"From: eve@example.org\r\nFrom: ", 1),
    lambda m: m.replace(b"To: ", b"Reply-To: eve@example.org\r\nTo: ", 1),
    lambda m: m.replace(b"To: ", b"Cc: eve@example.org\r\nTo: ", 1),
    lambda m: m.replace(b"To: ", b"List-Unsubscribe: <https://eve.example>\r\nTo: ", 1),
    lambda m: m.replace(b"t=1751360703", b"t=1751360704"),
    lambda m: re.sub(rb"bh=..", b"bh=AA", m, count=1),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("change", TAMPERED)
def test_tampering_is_detected(algorithm: dkim.Algorithm, change: Any) -> None:
    raw = message()
    signed = dkim.sign(raw, [signer(algorithm)[0]], AT) + raw
    assert is_verified(signed)
    changed = change(signed)
    assert changed != signed
    assert not is_verified(changed)


@pytest.mark.parametrize(("header", "survives"), [("relaxed", True), ("simple", False)])
def test_what_relays_do_to_header_fields(header: dkim.Canon, survives: bool) -> None:
    raw = message()
    signed = dkim.sign(raw, [signer("ed25519-sha256")[0]], AT, header=header) + raw
    refolded = signed.replace(b"Subject: Hello", b"SUBJECT:\r\n\t Hello ")
    assert is_verified(refolded) is survives


def test_a_message_that_cannot_be_signed() -> None:
    one, _ = signer("ed25519-sha256")
    for bad in (b"From: a@b.c\r\n", b"To: a@b.c\r\n\r\nx\r\n", b"\r\n\r\n", b""):
        with pytest.raises(ValueError, match=r"the message|without From"):
            dkim.sign(bad, [one], AT)


_BODY = st.one_of(
    st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\r", b"\n", b".", b"\x0b", b"\xe9"]), max_size=12).map(
        b"".join
    ),
    st.binary(max_size=60),
)
_POLICY = {
    canon: CanonicalizationPolicy.from_c_value(f"{canon}/{canon}".encode())
    for canon in CANONS
}  # fmt: skip


@given(_BODY, st.sampled_from(CANONS))
def test_bodies_as_dkimpy_canonicalises_them(body: bytes, canon: dkim.Canon) -> None:
    found = bytes(dkim.canonical_body(memoryview(body), canon))
    assert found == reference_body(body, canon)
    if body.endswith(b"\r\n") and b"\r" not in body.replace(b"\r\n", b""):
        assert found == _POLICY[canon].canonicalize_body(body)


def reference_body(body: bytes, canon: dkim.Canon) -> bytes:
    """RFC 6376 §3.4.3 and §3.4.4, word for word and slowly."""
    lines = body.split(b"\r\n")
    if canon == "relaxed":
        lines = [re.sub(rb"[ \t]+", b" ", re.sub(rb"[ \t]+$", b"", line + b"\n")[:-1]).rstrip(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    joined = b"".join(line + b"\r\n" for line in lines)
    return joined or (b"\r\n" if canon == "simple" else b"")


_VALUE = st.lists(
    st.sampled_from([b"a", b" ", b"\t", b"\r\n ", b"\r\n\t", b":", b"\x0b", b"\x0c", b"\xe9", b"\r", b"\n"]), max_size=8
).map(b"".join)


@given(st.lists(st.tuples(st.sampled_from([b"From", b"X-A", b"SUBJECT", b"A "]), _VALUE), min_size=1, max_size=4))
def test_headers_as_the_rfc_says(fields: list[tuple[bytes, bytes]]) -> None:
    fields = [(name, re.sub(rb"\r\n(?![ \t])", b"", b" x" + value + b"x")) for name, value in fields]
    header = b"\r\n".join(b"%s:%s" % field for field in fields)
    names, relaxed = dkim.canonical_header(header, "relaxed")
    assert names == [name.strip().lower() for name, _ in fields]
    assert relaxed == [
        name.strip().lower()
        + b":"
        + re.sub(rb"[ \t]+", b" ", re.sub(rb"\r\n(?=[ \t])", b"", value)).strip(b" ")
        + b"\r\n"
        for name, value in fields
    ]
    assert dkim.canonical_header(header, "simple") == (names, [b"%s:%s\r\n" % field for field in fields])


def test_a_body_of_blanks_takes_no_long_time() -> None:
    for body in (b" " * 200_000 + b"x", b"\r\n" * 200_000, b" \r\n" * 100_000 + b"x"):
        for canon in CANONS:
            dkim.canonical_body(memoryview(body), canon)


# RFC 8463 appendix A
RFC_SECRET = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
RFC_PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
RFC_FIELD = (
    b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
    b" d=football.example.com; i=@football.example.com;\r\n"
    b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
    b" subject : date : message-id : from : subject : date;\r\n"
    b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    b" b="
)
RFC_SIGNATURE = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
RFC_MESSAGE = (
    b"From: Joe SixPack <joe@football.example.com>\r\n"
    b"To: Suzie Q <suzie@shopping.example.net>\r\n"
    b"Subject: Is dinner ready?\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
    b"\r\n"
    b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
)


def rfc_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b64decode(RFC_SECRET))


def test_the_example_of_rfc_8463() -> None:
    header, _, body = RFC_MESSAGE.partition(b"\r\n\r\n")
    digest = sha256(dkim.canonical_body(memoryview(body), "relaxed")).digest()
    assert b64encode(digest) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
    names, fields = dkim.canonical_header(header, "relaxed")
    covered = [fields[names.index(n)] for n in (b"from", b"to", b"subject", b"date", b"message-id")]
    own = dkim.canonical_header(RFC_FIELD, "relaxed")[1][0].removesuffix(b"\r\n")
    signature = rfc_key().sign(sha256(b"".join(covered) + own).digest())
    assert b64encode(signature).decode() == RFC_SIGNATURE


def test_the_keys_of_rfc_8463_sign() -> None:
    assert dkim.public_key(rfc_key()) == RFC_PUBLIC
    assert dkim.dns_record("ed25519-sha256", RFC_PUBLIC) == f"v=DKIM1; k=ed25519; p={RFC_PUBLIC}"
    field = dkim.sign(RFC_MESSAGE, [dkim.Signer("football.example.com", "brisbane", rfc_key())], AT)
    record = dkim.dns_record("ed25519-sha256", RFC_PUBLIC).encode()
    assert dkimpy.verify(field + RFC_MESSAGE, dnsfunc=lambda name, timeout=5: record)


def pem_of(key: Any, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_keys_that_are_refused() -> None:
    small = pem_of(rsa.generate_private_key(65537, 1024))
    curve = pem_of(ec.generate_private_key(ec.SECP256R1()))
    locked = pem_of(Ed25519PrivateKey.generate(), b"password")
    public = (
        rfc_key().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for bad in (small, curve, locked, public, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(ValueError, match=r"PEM|bits|Ed25519"):
            dkim.load_private_key(bad)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_generated_keys(algorithm: dkim.Algorithm) -> None:
    one, record = signer(algorithm)
    assert one.algorithm == algorithm
    assert record == dkim.dns_record(algorithm, dkim.public_key(one.key))
    assert record.startswith(f"v=DKIM1; k={algorithm.partition('-')[0]}; p=")


@pytest.mark.parametrize(
    ("domain", "selector"),
    [
        ("a;b", "s"),
        ("example.com\r\nX: y", "s"),
        ("", "s"),
        ("example.com", "s; t=1"),
        ("example.com", ""),
        ("ü.example", "s"),
    ],
)
def test_names_that_are_refused(domain: str, selector: str) -> None:
    with pytest.raises(ValueError, match="DNS names"):
        dkim.Signer(domain, selector, rfc_key())
