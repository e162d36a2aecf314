"""What DNS says, judged. The resolver is a dict; tests/flow asks a real server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from posthouse.domains.model import Check, Domain, KeyState
from posthouse.domains.records import Sender, check, dns_records
from posthouse.errors import DnsUnavailable
from posthouse.net.dns import Answer, Mx

SENDER = Sender("mail.posthouse.example", "include:spf.posthouse.example")
KEYS = (
    KeyState("dkm_1", "ph2611r0001", "rsa-sha256", "QUJD" * 98, "active", 1),
    KeyState("dkm_2", "ph2611e0002", "ed25519-sha256", "REVG", "active", 1),
    KeyState("dkm_0", "ph2601r0000", "rsa-sha256", "T0xE", "retired", 0),
)
DOMAIN = Domain("dom_1", "ten_1", "news.example.com", "pending", (), KEYS, 0, None, None)


@dataclass
class Zone:
    texts: dict[str, list[str]] = field(default_factory=dict)
    exchanges: dict[str, list[Mx]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    forgotten: int = 0

    async def txt(self, name: str) -> Answer[bytes]:
        if name in self.dead:
            raise DnsUnavailable
        return Answer(tuple(text.encode() for text in self.texts.get(name, [])))

    async def mx(self, domain: str) -> Answer[Mx]:
        return Answer(tuple(self.exchanges.get(domain, [])))

    def forget(self) -> None:
        self.forgotten += 1


def published() -> Zone:
    zone = Zone()
    for record in dns_records(DOMAIN, SENDER):
        if record.type == "TXT":
            zone.texts[record.name] = [record.value]
    zone.exchanges["bounces.news.example.com"] = [Mx(10, "mail.posthouse.example")]
    return zone


def judged(zone: Zone) -> dict[str, Check]:
    return {one.purpose: one for one in asyncio.run(check(DOMAIN, SENDER, zone, 5))}


def test_the_records_to_publish() -> None:
    records = {record.purpose: record for record in dns_records(DOMAIN, SENDER)}
    assert list(records) == ["ownership", "dkim-rsa", "dkim-ed25519", "spf", "dmarc", "return-path"]
    assert [record.purpose for record in records.values() if record.required] == ["ownership", "dkim-rsa"]
    rsa = records["dkim-rsa"]
    assert rsa.name == "ph2611r0001._domainkey.news.example.com"
    strings = [part.strip('"') for part in rsa.strings.split('" "')]
    assert len(strings) == 2
    assert all(len(part) <= 255 for part in strings)
    assert "".join(strings) == rsa.value
    assert records["spf"].value == "v=spf1 include:spf.posthouse.example ~all"
    assert records["return-path"].value == "10 mail.posthouse.example"


def test_the_token_is_the_tenants_own() -> None:
    other = Domain("dom_2", "ten_2", DOMAIN.name, "pending", (), KEYS, 0, None, None)
    assert dns_records(DOMAIN, SENDER)[0].value != dns_records(other, SENDER)[0].value


def test_everything_published_is_seen() -> None:
    zone = published()
    found = judged(zone)
    assert all(one.ok for one in found.values())
    assert zone.forgotten == 1
    assert {one.at for one in found.values()} == {5}


@pytest.mark.parametrize(
    ("purpose", "name", "texts", "ok", "words"),
    [
        ("ownership", "_posthouse.news.example.com", [], False, "nothing"),
        ("ownership", "_posthouse.news.example.com", ["posthouse-verification=other"], False, "other"),
        ("dkim-rsa", KEYS[0].selector + "._domainkey.news.example.com", ["v=DKIM1; p="], False, "revoked"),
        ("dkim-rsa", KEYS[0].selector + "._domainkey.news.example.com", ["v=DKIM1; k=rsa; p=QUJE"], False, "another key"),
        ("dkim-rsa", KEYS[0].selector + "._domainkey.news.example.com", ["p=" + "QUJD " * 98], True, "the key"),
        ("dkim-rsa", KEYS[0].selector + "._domainkey.news.example.com", ["k=rsa; p=" + "QUJD" * 98, "p=x"], False, "beside"),
        ("spf", "news.example.com", ["v=spf1 mx -all"], False, "it lacks include:spf.posthouse.example"),
        ("spf", "news.example.com", ["v=spf1 mx +include:SPF.posthouse.example -all"], True, "v=spf1"),
        ("spf", "news.example.com", ["v=spf1 -all", "v=spf1 include:spf.posthouse.example"], False, "2 SPF records"),
        ("spf", "news.example.com", ["v=spf10 include:spf.posthouse.example"], False, "no SPF"),
        ("spf", "news.example.com", [], False, "nothing"),
        ("dmarc", "_dmarc.news.example.com", ["v=DMARC1; p=reject; rua=mailto:a@b.example"], True, "p=reject"),
        ("dmarc", "_dmarc.news.example.com", ["v=DMARC1; p=maybe"], False, "p=maybe"),
        ("dmarc", "_dmarc.news.example.com", ["v=DMARC1; p=none", "v=DMARC1; p=none"], False, "counts as none"),
        ("dmarc", "_dmarc.news.example.com", [], False, "nothing"),
    ],
)  # fmt: skip
def test_each_record_is_judged_in_words(purpose: str, name: str, texts: list[str], ok: bool, words: str) -> None:
    zone = published()
    zone.texts[name] = texts
    found = judged(zone)
    assert found[purpose].ok is ok
    assert words in found[purpose].found
    assert all(one.ok for other, one in found.items() if other != purpose)


def test_dmarc_of_the_organizational_domain_counts() -> None:
    zone = published()
    del zone.texts["_dmarc.news.example.com"]
    zone.texts["_dmarc.example.com"] = ["v=DMARC1; p=quarantine"]
    assert judged(zone)["dmarc"].ok is True


def test_no_answer_is_not_a_no() -> None:
    zone = published()
    zone.dead.add("news.example.com")
    found = judged(zone)
    assert found["spf"].ok is None
    assert "try again" in found["spf"].found
    assert found["dkim-rsa"].ok is True


def test_what_a_peer_says_is_shown_safely() -> None:
    zone = published()
    zone.texts["_posthouse.news.example.com"] = ["a\r\nInjected: b\x1b[31m" + "x" * 5000]
    found = judged(zone)["ownership"].found
    assert found.isprintable()
    assert len(found) < 400
