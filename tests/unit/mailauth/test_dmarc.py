from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.domains.name import organizational
from posthouse.mailauth import dmarc
from posthouse.mailauth.author import Authors, authors
from posthouse.mailauth.evidence import Dkim, Dmarc, Spf
from posthouse.mailauth.message import Message

from .zone import Lookup, Zone

NO_SPF = Spf("none", "bounce.example")


def spf(domain: str, result: str = "pass") -> Spf:
    return Spf(result, domain)


def signed(domain: str, result: str = "pass", covered: int | None = None) -> Dkim:
    return Dkim(result, domain, "s", covered=covered)


def policies(**records: str | None) -> Zone:
    """`com_example="p=reject"`: by the name backwards."""
    found: dict[str, Any] = {}
    for name, text in records.items():
        domain = ".".join(reversed(name.split("_")))
        found[f"_dmarc.{domain}"] = None if text is None else {"TXT": ["v=DMARC1; " + text]}
        found.setdefault(domain, {"A": ["192.0.2.1"]})
    return found


async def judge(
    zone: Zone,
    author: str | tuple[str, ...],
    by: Spf = NO_SPF,
    *dkim: Dkim,
    lookup: Lookup | None = None,
    **options: Any,
) -> Dmarc:
    who = Authors((author,) if isinstance(author, str) else author)
    evaluation = dmarc.Evaluation(lookup or Lookup(zone), **options)
    return await evaluation.judge(who, await evaluation.discover_all(who), by, dkim)


async def test_pass_and_fail() -> None:
    zone = policies(com_example="p=reject")
    found = await judge(zone, "example.com", spf("example.com"), signed("example.com"))
    assert found == Dmarc("pass", "example.com", "example.com", "reject", aligned_spf=True, aligned_dkim=True)
    found = await judge(zone, "example.com", spf("evil.example"), signed("evil.example"))
    assert (found.result, found.policy, found.disposition) == ("fail", "reject", "reject")
    assert "other domains" in found.reason
    found = await judge(zone, "example.com", spf("example.com", "softfail"), signed("example.com", "fail"))
    assert (found.result, found.reason) == ("fail", "neither SPF nor DKIM passed")


async def test_no_policy_no_dmarc() -> None:
    assert (await judge({}, "example.com", spf("example.com"))).result == "none"
    zone: Zone = {"_dmarc.example.com": {"TXT": ["hello", "v=spf1 -all"]}}
    assert (await judge(zone, "example.com")).result == "none"


ALIGNED = [
    # author, identifier, zone, aligned
    ("example.com", "mail.example.com", policies(com_example="p=reject"), True),
    ("mail.example.com", "example.com", policies(com_example="p=reject"), True),
    ("a.example.com", "b.example.com", policies(com_example="p=reject"), True),
    ("example.com", "example.net", policies(com_example="p=reject", net_example="p=reject"), False),
    ("example.com", "badexample.com", policies(com_example="p=reject"), False),
    ("example.com", "com", policies(com_example="p=reject"), False),
    ("example.com", "mail.example.com", policies(com_example="p=reject; adkim=s; aspf=s"), False),
    ("example.com", "example.com", policies(com_example="p=reject; adkim=s; aspf=s"), True),
    # An organization of its own below another (psd=n).
    (
        "a.dept.example.com",
        "b.dept.example.com",
        policies(com_example="p=none", com_example_dept="p=none; psd=n"),
        True,
    ),
    ("a.dept.example.com", "example.com", policies(com_example="p=none", com_example_dept="p=none; psd=n"), False),
    ("dept.example.com", "example.com", policies(com_example="p=none", com_example_dept="p=none; psd=n"), False),
    ("a.example.com", "b.example.com", policies(com_example="p=none", com_example_a="p=none"), True),
    # Under a public suffix that says so (psd=y), two registrants.
    ("one.bank.example", "two.bank.example", policies(example_bank="p=reject; psd=y"), False),
    ("a.one.bank.example", "b.one.bank.example", policies(example_bank="p=reject; psd=y"), True),
    ("bank.example", "bank.example", policies(example_bank="p=reject; psd=y"), True),
    ("a.bank.example", "bank.example", policies(example_bank="p=reject; psd=y"), False),
    ("example.com", "mail.example.com", policies(com_example="p=none; psd=y"), False),
    ("example.com", "mail.example.com", policies(com="p=none; psd=y", com_example="p=none"), True),
]


@pytest.mark.parametrize(("author", "identifier", "zone", "aligned"), ALIGNED)
async def test_alignment(author: str, identifier: str, zone: Zone, aligned: bool) -> None:
    by_spf = await judge(zone, author, spf(identifier))
    by_dkim = await judge(zone, author, NO_SPF, signed(identifier))
    assert (by_spf.result, by_dkim.result) == (("pass",) * 2 if aligned else ("fail",) * 2)
    assert (by_spf.aligned_spf, by_spf.aligned_dkim) == (aligned, False)
    assert (by_dkim.aligned_spf, by_dkim.aligned_dkim) == (False, aligned)


POLICIES = [
    # author, zone, record's domain, asked, disposition
    ("example.com", policies(com_example="p=quarantine; sp=reject"), "example.com", "quarantine", "quarantine"),
    ("mail.example.com", policies(com_example="p=none; sp=reject"), "example.com", "reject", "reject"),
    ("mail.example.com", policies(com_example="p=reject"), "example.com", "reject", "reject"),
    ("gone.example.com", policies(com_example="p=none; np=reject"), "example.com", "reject", "reject"),
    ("gone.example.com", policies(com_example="p=none; sp=quarantine; np=reject"), "example.com", "reject", "reject"),
    ("gone.example.com", policies(com_example="p=none; sp=quarantine"), "example.com", "quarantine", "quarantine"),
    (
        "here.example.com",
        {**policies(com_example="p=none; sp=quarantine; np=reject"), "here.example.com": {"MX": [(0, "a.")]}},
        "example.com", "quarantine", "quarantine",
    ),
    ("a.example.com", policies(com_example="p=reject", com_example_a="p=none; sp=reject"), "a.example.com", "none", "none"),
    # Not the nearest record but the organization's (RFC 9989 §4.10.1).
    ("x.a.example.com", policies(com_example="p=none; sp=quarantine", com_example_a="p=reject"), "example.com", "quarantine", "quarantine"),
    ("x.a.example.com", policies(com_example="p=none", com_example_a="p=reject; psd=n"), "a.example.com", "reject", "reject"),
    ("one.bank", policies(bank="p=none; sp=reject; psd=y"), "bank", "reject", "reject"),
    ("mail.one.bank", policies(bank="p=none; sp=reject; psd=y"), "bank", "reject", "reject"),
    ("mail.one.bank", policies(bank="p=reject; psd=y", bank_one="p=quarantine"), "one.bank", "quarantine", "quarantine"),
    ("example.com", policies(com_example="p=reject; t=y"), "example.com", "quarantine", "quarantine"),
    ("example.com", policies(com_example="p=quarantine; t=Y"), "example.com", "none", "none"),
    ("example.com", policies(com_example="p=none; t=y"), "example.com", "none", "none"),
    ("mail.example.com", policies(com_example="p=none; sp=reject; t=y"), "example.com", "quarantine", "quarantine"),
    ("example.com", policies(com_example="p=reject; pct=0"), "example.com", "quarantine", "quarantine"),
    ("example.com", policies(com_example="p=reject; pct=0; t=n"), "example.com", "reject", "reject"),
    ("example.com", policies(com_example="p=reject; pct=20"), "example.com", "reject", "reject"),
]  # fmt: skip


@pytest.mark.parametrize(("author", "zone", "domain", "policy", "disposition"), POLICIES)
async def test_policy(author: str, zone: Zone, domain: str, policy: str, disposition: str) -> None:
    found = await judge(zone, author)
    assert (found.result, found.record_domain, found.policy, found.disposition) == ("fail", domain, policy, disposition)


RECORDS = [
    ("v=DMARC1; p=reject", "fail", "reject"),
    ("v=DMARC1;p=reject;", "fail", "reject"),
    ("v = DMARC1 ; p = Reject ; sp=none", "fail", "reject"),
    ("V=DMARC1; P=QUARANTINE", "fail", "quarantine"),
    ("v=DMARC1; rua=mailto:a@example.com; p=reject", "fail", "reject"),
    ("v=DMARC1", "fail", "none"),
    ("v=DMARC1; rua=mailto:a@example.com", "fail", "none"),
    ("v=DMARC1; p=refuse; rua=mailto:a@example.com!10m", "fail", "none"),
    ("v=DMARC1; p=refuse; rua=nonsense", "none", "none"),
    ("v=DMARC1; p=refuse", "none", "none"),
    ("v=DMARC1; p=reject; sp=refuse; rua=https://example.com/x, mailto:a@b.c", "fail", "none"),
    ("v=DMARC1; p=reject; np=refuse", "none", "none"),
    ("v=DMARC1; p=reject; adkim=x; psd=z; t=maybe; pct=x; fo=9; new=1; junk", "fail", "reject"),
    ("v=DMARC1; p=reject; p=none", "fail", "reject"),
    ("v=DMARC1; p=reject; \xe9", "fail", "reject"),
    ("v=dmarc1; p=reject", "none", "none"),
    ("v=DMARC10; p=reject", "none", "none"),
    ("v=DMARC1 p=reject", "none", "none"),
    ("p=reject; v=DMARC1", "none", "none"),
    (" v=DMARC1; p=reject", "none", "none"),
]


@pytest.mark.parametrize(("text", "result", "disposition"), RECORDS)
async def test_records(text: str, result: str, disposition: str) -> None:
    found = await judge({"_dmarc.example.com": {"TXT": [text.encode("latin-1")]}}, "example.com")
    assert (found.result, found.disposition) == (result, disposition)


async def test_two_records_are_none() -> None:
    zone: Zone = {"_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject", "v=DMARC1; p=none"]}}
    assert (await judge(zone, "example.com")).result == "none"
    zone = {"_dmarc.example.com": {"TXT": ["v=spf1 -all", "v=DMARC1; p=reject"]}}
    assert (await judge(zone, "example.com")).result == "fail"


@pytest.mark.parametrize(
    ("domain", "names"),
    [
        ("com", "com"),
        ("example.com", "example.com com"),
        ("a.b.c.d.e.f.g.h.i.j.mail.example.com",
         "a.b.c.d.e.f.g.h.i.j.mail.example.com g.h.i.j.mail.example.com h.i.j.mail.example.com i.j.mail.example.com "
         "j.mail.example.com mail.example.com example.com com"),
        ("1.2.3.4.5.6.7.com", "1.2.3.4.5.6.7.com 2.3.4.5.6.7.com 3.4.5.6.7.com 4.5.6.7.com 5.6.7.com 6.7.com 7.com com"),
        ("1.2.3.4.5.6.com", "1.2.3.4.5.6.com 2.3.4.5.6.com 3.4.5.6.com 4.5.6.com 5.6.com 6.com com"),
    ],
)  # fmt: skip
def test_the_walk(domain: str, names: str) -> None:
    assert list(dmarc.walk_names(domain)) == names.split()


async def test_how_often_dns_is_asked() -> None:
    lookup = Lookup(policies(com_example="p=reject"))
    await judge({}, "example.com", spf("example.com"), signed("example.com"), lookup=lookup)
    assert lookup.asked == [("TXT", "_dmarc.example.com")]
    lookup.asked.clear()
    deep = ".".join("abcdefghijklmnop") + ".example.com"
    await judge({}, deep, NO_SPF, lookup=lookup)
    assert len({name for _, name in lookup.asked}) == 8
    lookup.asked.clear()
    await judge({}, "example.com", spf("other.org"), signed("esp.net"), lookup=lookup)
    assert len(lookup.asked) == 1  # nothing above them can be the same


async def test_dns_in_trouble() -> None:
    assert (await judge(policies(com_example=None), "example.com")).result == "temperror"
    assert (await judge(policies(com_example=None), "mail.example.com")).result == "temperror"
    zone = policies(com_example="p=reject", com_example_b=None)
    found = await judge(zone, "example.com", NO_SPF, signed("a.b.example.com"))
    assert (found.result, found.disposition) == ("temperror", "none")
    # What is sure already needs no more answers.
    found = await judge(zone, "example.com", NO_SPF, signed("a.b.example.com"), signed("c.example.com"))
    assert found.result == "pass"
    # SPF or DKIM of the author's own domain might have passed.
    zone = policies(com_example="p=reject")
    assert (await judge(zone, "example.com", spf("example.com", "temperror"))).result == "temperror"
    assert (await judge(zone, "example.com", NO_SPF, signed("m.example.com", "temperror"))).result == "temperror"
    assert (await judge(zone, "example.com", spf("evil.example", "temperror"))).result == "fail"


async def test_a_signature_over_a_part() -> None:
    zone = policies(com_example="p=reject")
    found = await judge(zone, "example.com", NO_SPF, signed("example.com", covered=10))
    assert (found.result, found.reason) == ("fail", "DKIM passed for a part of the body only")
    found = await judge(zone, "example.com", NO_SPF, signed("example.com", covered=10), accept_partial=True)
    assert found.result == "pass"


async def test_several_authors() -> None:
    zone = policies(com_example="p=quarantine", net_example="p=reject", org_example="p=none")
    both = ("example.com", "example.net")
    found = await judge(zone, both, spf("example.com"))
    assert (found.result, found.domain, found.disposition) == ("fail", "example.net", "reject")
    found = await judge(zone, both)
    assert (found.domain, found.disposition) == ("example.net", "reject")
    assert (await judge(zone, both, spf("example.com"), signed("example.net"))).result == "pass"
    assert (await judge(zone, ("example.com", "unknown.example"), spf("example.com"))).result == "none"
    crowd = tuple(f"{index}.example.com" for index in range(dmarc.MAX_DOMAINS + 1))
    assert (await judge(zone, crowd)).result == "permerror"


async def test_the_public_suffix_list() -> None:
    zone = policies(com_example_a="p=reject")
    options: dict[str, Any] = {"organizational": organizational}
    assert (await judge(zone, "a.example.com", spf("b.example.com"), **options)).result == "fail"
    assert (await judge(zone, "a.example.com", spf("b.example.com"), prefer_list=True, **options)).result == "pass"
    zone = policies(uk_co_example="p=reject", uk_co="p=none")
    found = await judge(zone, "mail.example.co.uk", spf("other.co.uk"), prefer_list=True, **options)
    assert (found.result, found.record_domain) == ("fail", "example.co.uk")


FROMS = [
    (b"a@example.com", "example.com"),
    (b"Ann <a@Example.COM>", "example.com"),
    (b'"Ann, Lee" <a@example.com>', "example.com"),
    (b'"a@bank.example" <a@example.com>', "example.com"),
    (b"a@bank.example <a@example.com>", "example.com"),
    (b"<a@example.com>, Bob <b@example.net>", "example.com example.net"),
    (b"a@example.com, b@example.com", "example.com"),
    (b"Team: a@example.com, b@example.net;", "example.com example.net"),
    (b"(c@comment.example (nested)) a@example.com (x)", "example.com"),
    (b"<@relay.example:a@example.com>", "example.com"),
    (b'"a b"@example.com', "example.com"),
    (b'"a\\"@bank.example" <"x y"@example.com>', "example.com"),
    (b"\r\n Ann\r\n <a@example.com>", "example.com"),
    (b"a @ example . com", "example.com"),
    (b"J\xc3\xbcrgen <j@b\xc3\xbccher.example>", "xn--bcher-kva.example"),
    (b"=?utf-8?q?a=40bank.example?= <a@example.com>", "example.com"),
    (b"<a@example.com> <b@example.net>", "example.com example.net"),
    (b"a@example.com b@example.net", "example.com example.net"),
    (b'"unclosed <a@example.com>', "example.com"),
    (b"(unclosed a@example.com", "example.com"),
    (b"undisclosed:;", ""),
    (b"Ann", ""),
    (b"<>", ""),
    (b"a@[192.0.2.1]", ""),
    (b"a@-", ""),
    (b"\xff\xfe@\xff", ""),
    (b"", ""),
]


@pytest.mark.parametrize(("value", "domains"), FROMS)
def test_the_author(value: bytes, domains: str) -> None:
    found = authors(Message(b"Subject: x\r\nFrom:" + value + b"\r\n\r\n"))
    assert found.domains == tuple(domains.split())
    assert bool(found.problem) == (len(found.domains) != 1)


async def test_no_author() -> None:
    found = authors(Message(b"To: a@example.com\r\n\r\n"))
    assert found == Authors((), "there is no From")
    evaluation = dmarc.Evaluation(Lookup({}))
    assert (await evaluation.judge(found, [], NO_SPF, ())).result == "none"


def test_several_fields() -> None:
    found = authors(Message(b"From: a@example.com\r\nfrom : b@example.net\r\n\r\n"))
    assert found == Authors(("example.com", "example.net"), "there are several From fields")


@given(st.text('ab@.<>(),:;"\\ \r\n\té[]', max_size=60))
def test_authors_of_anything(text: str) -> None:
    found = authors(Message(b"From:" + text.encode() + b"\r\n\r\n"))
    assert all(domain.isascii() and domain == domain.lower() and "@" not in domain for domain in found.domains)


@given(st.text("v=DMARC1;psntrejctquaikdf \xe9", max_size=60))
def test_records_of_anything(text: str) -> None:
    found = dmarc.parse(b"v=DMARC1;" + text.encode())
    assert found.policy in {None, "none", "quarantine", "reject"}
    assert {found.subdomains, found.nonexistent} <= {"none", "quarantine", "reject"}
