from __future__ import annotations

import re
from functools import cache

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.mailauth import arc, dkim, seal
from posthouse.mailauth.evidence import Arc
from posthouse.mailauth.message import Message

from .signing import AT, RAW, keys, signer, zone
from .zone import Lookup, Zone

DOMAINS = ("one.example", "two.example", "three.example", "example.com")
RESULTS = b"mx.one.example;\r\n spf=pass smtp.mailfrom=example.com;\r\n dkim=none"
ALGORITHMS: tuple[dkim.Algorithm, ...] = ("rsa-sha256", "ed25519-sha256")


async def check(raw: bytes, dns: Zone | None = None) -> Arc:
    return await arc.verify(Message(raw), Lookup(zone(*DOMAINS) if dns is None else dns))


@cache
def chain(hops: int = 1, algorithm: dkim.Algorithm = "rsa-sha256") -> bytes:
    """`RAW` sealed by so many hops."""
    raw = RAW
    for hop in range(hops):
        one = signer(algorithm, DOMAINS[hop % 3])
        raw = seal.seal(raw, one, RESULTS, "pass" if hop else "none", AT + hop) + raw
    return raw


def answer(name: bytes, timeout: int = 5) -> bytes:
    found = zone(*DOMAINS).get(name.decode().rstrip("."))
    return found["TXT"][0].encode() if found else b""


async def test_no_chain() -> None:
    assert await check(RAW) == Arc("none")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("hops", [1, 2, 3])
async def test_what_we_seal(hops: int, algorithm: dkim.Algorithm) -> None:
    found = await check(chain(hops, algorithm))
    assert (found.result, found.oldest_pass, found.reason) == ("pass", 0, "")
    assert found.sealers == DOMAINS[:hops]
    assert found.first_results == "mx.one.example; spf=pass smtp.mailfrom=example.com; dkim=none"


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_dkimpy_verifies_what_we_seal(hops: int) -> None:
    result, each, reason = dkimpy.arc_verify(chain(hops), dnsfunc=answer)
    assert (result, len(each)) == (b"pass", hops), reason
    assert all(one["ams-valid"] and one["as-valid"] for one in each)


async def test_what_dkimpy_seals() -> None:
    key = keys()[0]
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    raw = RAW
    for hop, domain in enumerate((b"one.example", b"two.example"), 1):
        seen = b"Authentication-Results: mx.example; arc=%s; spf=pass\r\n" % (b"none" if hop == 1 else b"pass")
        fields = dkimpy.arc_sign(seen + raw, b"rsa", domain, pem, b"mx.example", timestamp=AT)
        raw = b"".join(fields) + raw
        found = await check(raw)
        assert (found.result, len(found.sealers)) == ("pass", hop), found
    assert found.sealers == ("one.example", "two.example")


async def test_a_chain_grows_past_a_change() -> None:
    """A list changes the subject: the first message signature breaks, the chain holds."""
    changed = chain(1).replace(b"Subject: Hello", b"Subject: [list] Hello")
    assert (await check(changed)).result == "fail"
    raw = seal.seal(changed, signer(domain="two.example"), RESULTS, "pass", AT) + changed
    found = await check(raw)
    assert (found.result, found.oldest_pass) == ("pass", 2)


async def test_a_broken_chain_is_sealed_as_broken() -> None:
    changed = chain(2).replace(b"Hi  Bob", b"Hi  Eve")
    assert (await check(changed)).result == "fail"
    fields = seal.seal(changed, signer(domain="two.example"), RESULTS, "fail", AT)
    assert b"i=3" in fields
    assert b"cv=fail" in fields
    found = await check(fields + changed)
    assert (found.result, found.reason) == ("fail", "a hop before found the chain broken")
    assert seal.seal(fields + changed, signer(), RESULTS, "fail", AT) == b""


async def test_fifty_hops_and_no_more() -> None:
    raw = RAW
    one = signer("ed25519-sha256", "one.example")
    for hop in range(50):
        raw = seal.seal(raw, one, b"mx.example; none", "pass" if hop else "none", AT) + raw
    found = await check(raw)
    assert (found.result, len(found.sealers)) == ("pass", 50)
    assert seal.seal(raw, one, b"mx.example; none", "pass", AT) == b""
    over = raw.replace(b"i=50;", b"i=51;")
    assert (await check(over)).result == "fail"
    assert (await check(raw + b"")).result == "pass"


def test_nothing_to_seal() -> None:
    with pytest.raises(ValueError, match="From"):
        seal.seal(b"To: a@b.c\r\n\r\nx\r\n", signer(), RESULTS, "none", AT)
    with pytest.raises(ValueError, match="instance"):
        seal.seal(b"ARC-Authentication-Results: none\r\n" + chain(1), signer(), RESULTS, "pass", AT)


def field(name: bytes, instance: int, raw: bytes) -> bytes:
    found = re.search(rb"(?ms)^%s: i=%d;.*?\r\n(?=[A-Za-z])" % (name, instance), raw)
    assert found is not None
    return found[0]


AAR, AMS, AS = b"ARC-Authentication-Results", b"ARC-Message-Signature", b"ARC-Seal"


@pytest.mark.parametrize("name", [AAR, AMS, AS])
@pytest.mark.parametrize("instance", [1, 2])
async def test_incomplete_and_doubled_sets(name: bytes, instance: int) -> None:
    raw = chain(2)
    one = field(name, instance, raw)
    for changed in (raw.replace(one, b""), one + raw, raw.replace(one, one.replace(b"i=%d" % instance, b"i=3", 1))):
        found = await check(changed)
        assert found.result == "fail", changed
        assert found.reason


@pytest.mark.parametrize("name", [AAR, AMS, AS])
@pytest.mark.parametrize("value", [b"i=0", b"i=51", b"i=x", b"i=-1", b"i=", b"j=1", b"i=1; i=1", b"i=100"])
async def test_wrong_instances(name: bytes, value: bytes) -> None:
    if name == AAR and value == b"i=1; i=1":
        return  # the rest of results is free text
    raw = chain(1)
    one = field(name, 1, raw)
    assert (await check(raw.replace(one, one.replace(b"i=1", value, 1)))).result == "fail"


CHANGES = [
    (AMS, b"d=one.example", b"d=two.example"),
    (AMS, b"bh=", b"bh=AAAA"),
    (AMS, b"a=rsa-sha256", b"a=rsa-sha1"),
    (AMS, b"h=from:", b"h=arc-seal:from:"),
    (AMS, b"h=from:from:", b"h=to:"),
    (AMS, b"c=relaxed/relaxed", b"c=simple/simple"),
    (AMS, b"c=relaxed/relaxed", b"c=relaxed/odd"),
    (AMS, b"s=rsa", b"s=none"),
    (AMS, b" t=", b" l=3; t="),
    (AS, b"cv=none", b"cv=pass"),
    (AS, b"cv=none", b"cv=fail"),
    (AS, b"cv=none", b"cv=maybe"),
    (AS, b"cv=none;", b""),
    (AS, b"cv=none", b"cv=none; h=from"),
    (AS, b"d=one.example", b"d=two.example"),
    (AS, b"s=rsa", b"s=none"),
    (AS, b"a=rsa-sha256", b"a=rsa-sha1"),
    (AS, b"a=rsa-sha256;", b""),
    (AS, b"t=", b"t=1; t="),
    (AS, b"b=", b"b=AAAA"),
    (AS, b"b=", b"b=?"),
    (AAR, b"spf=pass", b"spf=fail"),
]


@pytest.mark.parametrize(("name", "old", "new"), CHANGES)
async def test_changed_fields(name: bytes, old: bytes, new: bytes) -> None:
    raw = chain(1)
    one = field(name, 1, raw)
    assert old in one
    found = await check(raw.replace(one, one.replace(old, new, 1)))
    assert found.result == "fail"
    assert found.reason


async def test_cv_by_instance() -> None:
    raw = seal.seal(chain(1), signer(domain="two.example"), RESULTS, "none", AT) + chain(1)
    assert (await check(raw)).reason == "a hop before found the chain broken"
    raw = chain(2)
    for instance, old, new in ((2, b"cv=pass", b"cv=none"), (1, b"cv=none", b"cv=pass")):
        one = field(AS, instance, raw)
        assert (await check(raw.replace(one, one.replace(old, new)))).reason == f"cv= of instance {instance} is wrong"


async def test_what_relays_do_changes_nothing() -> None:
    raw = chain(2)
    head, _, body = raw.partition(b"From: ")
    fields = re.findall(rb"(?ms)^ARC.*?\r\n(?=ARC|\Z)", head)
    assert len(fields) == 6
    shuffled = b"".join(reversed(fields)) + b"X-Other: 1\r\nFrom: " + body
    refolded = raw.replace(b"ARC-Seal:", b"arc-SEAL:").replace(b"; t=", b";\r\n\t t=")
    for changed in (shuffled, refolded, b"Received: from x\r\n" + raw, raw.replace(b"Hi  Bob\t", b"Hi Bob")):
        assert (await check(changed)).result == "pass"


async def test_keys_in_trouble() -> None:
    dns = zone(*DOMAINS)
    dead: Zone = {**dns, "rsa._domainkey.one.example": None}
    assert "DNS did not answer" in (await check(chain(2), dead)).reason
    gone: Zone = {name: found for name, found in dns.items() if "two" not in name}
    assert "no key" in (await check(chain(2), gone)).reason
    other: Zone = {**dns, "rsa._domainkey.one.example": {"TXT": [keys("rsa-sha256", 1)[1]]}}
    assert (await check(chain(2), other)).reason == "seal 1 does not verify"
    lookup = Lookup(dns)
    assert (await arc.verify(Message(chain(2)), lookup)).result == "pass"
    assert {name for _, name in lookup.asked} == {"rsa._domainkey.one.example", "rsa._domainkey.two.example"}
    lookup.asked.clear()
    assert (await arc.verify(Message(chain(3).replace(b"Hi  Bob", b"Hi  Eve")), lookup)).result == "fail"
    assert lookup.asked == [("TXT", "rsa._domainkey.three.example")]


@settings(max_examples=80)
@given(st.data())
async def test_any_change_is_noticed(data: st.DataObject) -> None:
    raw = chain(2, "ed25519-sha256")
    at = data.draw(st.integers(0, raw.index(b"From: ") - 3))
    changed = bytearray(raw)
    changed[at] ^= data.draw(st.sampled_from([1, 0x80]))
    found = await check(bytes(changed))
    if found.result == "pass":  # the fields' own names and blanks in relaxed form
        assert bytes(changed).lower().split() == raw.lower().split()


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from([*re.findall(rb"(?s).{1,30}", chain(1)[:900]), b"ARC-Seal: ", b"i=1;", b"i=2;", b"\r\n", b"cv=none;", b"\xff"]),
        max_size=30,
    ).map(b"".join)
)  # fmt: skip
async def test_garbage_never_raises(raw: bytes) -> None:
    assert (await check(raw)).result in {"none", "fail"}
