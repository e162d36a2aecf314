"""What strangers publish in DNS: SPF and its macros, key records, DMARC, and what asks for them.

Each line is `name TYPE data`; the names `@` stands for are those that the checks begin with.
"""

from __future__ import annotations

import asyncio

from posthouse.mailauth import dmarc, keys, spf, spf_record, tags
from posthouse.mailauth.authenticate import authenticate
from posthouse.mailauth.names import normal
from tests.unit.mailauth.zone import Lookup

_SPF = (
    b"v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 a mx/30//64 -all",
    b"v=spf1 include:a.example a:b.example/24 mx:c.example ptr:d.example exists:%{i}._spf.%{d2} redirect=e.example",
    b"v=spf1 exists:%{l1r-}.%{o}.%{h}.%{v}.%{p}.%{s}%_%-%% exp=exp.example ~all",
    b"V=SPF1 ?all unknown=%{d}",
    b"v=spf1 ip4:1.2.3.4/0 ip4:256.1.1.1 all:x",
    b"v=spf1 include:from.example",
)
_KEYS = (
    b"v=DKIM1; k=ed25519; p=A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=; t=s:y; s=email; h=sha256; n=note",
    b"k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDZ; v=DKIM1",
    b"p=",
    b"v=DKIM1; p=\xff\xfe",
)
_DMARC = (
    b"v=DMARC1; p=reject; sp=none; np=quarantine; adkim=s; aspf=r; rua=mailto:a@b.example!10m,https://x; pct=0; psd=n; t=y",
    b"v = DMARC1 ;p=oops; rua=mailto:a@b",
    b"v=DMARC1",
)
_ZONE = b"\n".join(
    (
        b"from.example TXT " + _SPF[1],
        b"a.example TXT " + _SPF[2],
        b"b.example A 192.0.2.9",
        b"c.example MX mx.c.example",
        b"mx.c.example A 203.0.113.7",
        b"e.example TXT " + _SPF[0],
        b"exp.example TXT %{i} is not one of %{d}'s %{c} %{r} %{t}",
        b"7.113.0.203.in-addr.arpa PTR d.example",
        b"7.113.0.203.in-addr.arpa PTR mx.c.example",
        b"d.example A 203.0.113.7",
        b"_dmarc.from.example TXT " + _DMARC[0],
        b"_dmarc.example TXT " + _DMARC[2],
        b"s._domainkey.from.example TXT " + _KEYS[0],
    )
)
CORPUS: tuple[bytes, ...] = (
    b"",
    *_SPF,
    *_KEYS,
    *_DMARC,
    _ZONE,
    _ZONE.replace(b" MX ", b" MX mx.c.example\nc.example MX "),
    b"\n".join(b"from.example TXT " + record for record in _SPF[:2]),
    b"from.example TXT " + _SPF[5],
    b"from.example TXT v=spf1 " + b" ".join(b"a:h%d.example mx:m%d.example" % (n, n) for n in range(8)),
    b"from.example TXT v=spf1 mx ptr -all\n" + b"".join(b"from.example MX m%d.example\n" % n for n in range(15)),
)
_MESSAGE = (
    b"DKIM-Signature: v=1; a=ed25519-sha256; d=from.example; s=s; h=from; bh=YWJj; b=YWJj\r\n"
    b"From: ann@from.example\r\n\r\nx\r\n"
)
_VALUES = dict.fromkeys("slodiphvcrt", "ann.lee+x@From.example")
_RESULTS = {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"}
_POLICIES = {"none", "quarantine", "reject"}


def check(data: bytes) -> None:
    """The whole as one record of each kind, then its lines as a zone."""
    _check_spf(data)
    _check_key(data)
    _check_dmarc(data)
    _check_name(data.decode("utf-8", "replace"))
    asyncio.run(_check_zone(data))


def _check_spf(data: bytes) -> None:
    record = spf_record.parse(data)
    if isinstance(record, spf_record.Record):
        assert all(one.result in spf_record.QUALIFIERS.values() for one in record.mechanisms)
        for one in record.mechanisms:
            assert 0 <= one.v4 <= 32
            assert 0 <= one.v6 <= 128
            assert one.network is None or (one.network[0] >= 0 and 0 <= one.network[1] <= 128)
            assert one.text.isprintable()
        for template in (record.redirect, record.exp, *(one.domain for one in record.mechanisms)):
            if template is not None:
                assert len(spf_record.expand(template, _VALUES)) <= spf_record.MAX_EXPANDED
    else:
        assert str(record).isprintable()
    explanation = spf_record.parse_explanation(data)
    if explanation is not None:
        assert len(spf_record.expand(explanation, _VALUES)) <= spf_record.MAX_EXPANDED


def _check_key(data: bytes) -> None:
    key = keys.parse_key(data)
    if isinstance(key, keys.PublicKey):
        assert key.bits == 256 or keys.MIN_RSA_BITS <= key.bits <= keys.MAX_RSA_BITS
        assert not key.verifies(b"no signature", b"\0" * 32)
    else:
        assert key.reason.isprintable()
    try:
        found = tags.parse(data.decode("latin-1"))
    except tags.TagFault as fault:
        assert str(fault).isprintable()
        return
    assert len(found) <= tags.MAX_TAGS
    assert tags.parse("; ".join(f"{name} = {value}" for name, value in found.items())) == found


def _check_dmarc(data: bytes) -> None:
    record = dmarc.parse(data)
    assert record.policy is None or record.policy in _POLICIES
    assert {record.subdomains, record.nonexistent} <= _POLICIES
    assert record.psd in {"y", "n", "u"}


def _check_name(text: str) -> None:
    name = normal(text)
    if name is None:
        return
    assert normal(name) == name
    assert name.isascii()
    assert name == name.lower()
    walked = list(dmarc.walk_names(name))
    assert walked[0] == name
    assert len(walked) <= 8


async def _check_zone(data: bytes) -> None:
    lookup = Lookup(_zone(data))
    found = await authenticate(
        _MESSAGE,
        peer="203.0.113.7",
        helo="from.example",
        reverse_path="ann@from.example",
        lookup=lookup,
        now=1_751_360_703,
        deadline=60.0,
    )
    assert {found.spf.result, found.helo.result} <= _RESULTS
    assert found.spf.explanation is None or (len(found.spf.explanation) <= 400 and found.spf.explanation.isprintable())
    assert found.spf.mechanism is None or found.spf.mechanism.isprintable()
    assert {found.dmarc.policy, found.dmarc.disposition} <= _POLICIES
    assert found.dkim[0].result != "pass"
    for text in (found.spf.reason, found.dmarc.reason, found.dkim[0].reason):
        assert text.isprintable()
    # RFC 7208 §4.6.4: ten terms of at most ten names each, for two identities; then DMARC, DKIM and the peer's name.
    assert len(lookup.asked) <= 2 * (1 + 10 + 10 * 10 + 2 * 11) + 40
    checked = await spf.check_mail_from(lookup, spf.Client("2001:db8::1", "h"), "x@from.example")
    assert checked.result in _RESULTS


def _zone(data: bytes) -> dict[str, dict[str, list[object]]]:
    zone: dict[str, dict[str, list[object]]] = {}
    for line in data.split(b"\n")[:200]:
        name, _, rest = line.decode("latin-1").partition(" ")
        kind, _, value = rest.partition(" ")
        held = zone.setdefault(name.lower(), {})
        match kind:
            case "TXT":
                held.setdefault(kind, []).append(value.encode("latin-1"))
            case "MX":
                held.setdefault(kind, []).append((10, value))
            case "A" | "AAAA" | "PTR":
                held.setdefault(kind, []).append(value)
            case _:
                pass
    return zone
