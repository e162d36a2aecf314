"""Domains in DNS lists: bounded, remembered, and silent when DNS is."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass

from posthouse.errors import DnsUnavailable
from posthouse.inbound.filter.judge import Filter
from posthouse.inbound.filter.lists import MOST_DOMAINS, DomainList, DomainLists, domains
from posthouse.inbound.model import Listing
from posthouse.mail.parse import text
from tests.unit.inbound.filter.mails import Mail

URI = DomainList("uri.example", 2.5, (ipaddress.IPv4Network("127.0.1.0/24"),))
OTHER = DomainList("dbl.example", 1.0)


@dataclass(frozen=True)
class Answer:
    records: tuple[str, ...] = ()


class Zone:
    def __init__(self, **listed: str) -> None:
        self.listed = listed
        self.asked: list[str] = []
        self.silent = self.away = False
        self.at_once = self.most_at_once = 0

    async def a(self, name: str, /) -> Answer:
        self.asked.append(name)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(60 if self.silent else 0)
        finally:
            self.at_once -= 1
        if self.away:
            raise DnsUnavailable
        found = self.listed.get(name.partition(".")[0])
        return Answer((found,)) if found else Answer()


async def test_hits_carry_the_lists_weight() -> None:
    lists = DomainLists([URI, OTHER], Zone(evil="127.0.1.9"))
    found = await lists.ask(["evil.test", "good.test", "evil.test"])
    assert {domain: [(hit.zone, hit.weight) for hit in hits] for domain, hits in found.items()} == {
        "evil.test": [("uri.example", 2.5), ("dbl.example", 1.0)]
    }


async def test_an_answer_outside_of_the_lists_range_is_no_hit() -> None:
    assert not await DomainLists([URI], Zone(evil="127.255.255.254", odd="nonsense")).ask(["evil.test", "odd.test"])


async def test_answers_are_remembered_for_a_while() -> None:
    zone, now = Zone(evil="127.0.1.9"), [0.0]
    lists = DomainLists([URI], zone, ttl=300, monotonic=lambda: now[0])
    assert await lists.ask(["evil.test", "good.test"]) == await lists.ask(["evil.test", "good.test"])
    assert len(zone.asked) == 2
    now[0] = 301.0
    await lists.ask(["evil.test"])
    assert len(zone.asked) == 3


async def test_no_answer_is_no_hit_and_is_not_remembered() -> None:
    zone = Zone(evil="127.0.1.9")
    zone.away = True
    lists = DomainLists([URI], zone)
    assert not await lists.ask(["evil.test"])
    zone.away = False
    assert await lists.ask(["evil.test"])


async def test_dns_that_is_silent_costs_a_bounded_time_and_leaves_nothing_behind() -> None:
    zone = Zone()
    zone.silent = True
    assert not await DomainLists([URI], zone, timeout=0.1).ask([f"d{n}.test" for n in range(500)])
    assert zone.at_once == 0
    assert zone.most_at_once <= 64


async def test_the_memory_is_bounded() -> None:
    zone = Zone()
    lists = DomainLists([URI], zone, capacity=10)
    await lists.ask([f"d{n}.test" for n in range(50)])
    await lists.ask(["d0.test"])
    assert len(zone.asked) == 51


def test_which_domains_are_asked_about() -> None:
    links = " ".join(f"https://www.d{n}.test/" for n in range(40))
    mail = Mail(text="https://bit.ly/x https://a.b.evil.test https://ours.example/ https://gmail.com/ " + links)
    asked = domains(mail.facts())
    assert asked[0] == "evil.test"
    assert len(asked) == MOST_DOMAINS
    assert not {"bit.ly", "ours.example", "gmail.com"} & set(asked)
    assert "partner.example" in domains(Mail().facts())


async def test_a_link_in_a_list_counts_in_the_verdict() -> None:
    async def nobody(pairs: object) -> frozenset[tuple[int, str]]:
        return frozenset()

    room = Filter(text, nobody, lists=DomainLists([URI], Zone(evil="127.0.1.9")))
    first, second = await room.judge([Mail(text="https://www.evil.test/").pair(), Mail().pair()], {})
    assert [(one.rule, one.score) for one in first.common.reasons if one.rule == "domain_list"] == [
        ("domain_list", 2.5)
    ]
    assert first.common.reasons[-1].text == "The DNS list uri.example has evil[.]test."
    assert "domain_list" not in {one.rule for one in second.common.reasons}


async def test_a_list_speaks_once_for_a_message() -> None:
    async def nobody(pairs: object) -> frozenset[tuple[int, str]]:
        return frozenset()

    room = Filter(text, nobody, lists=DomainLists([URI], Zone(evil="127.0.1.9", worse="127.0.1.9")))
    mail = Mail(text="https://evil.test/ https://worse.test/")
    heard = Mail(text="https://evil.test/", listings=(Listing("uri.example", "127.0.1.9", 2.5),))
    first, second = await room.judge([mail.pair(), heard.pair()], {})
    assert [one.rule for one in first.common.reasons].count("domain_list") == 1
    assert {one.rule for one in second.common.reasons} & {"domain_list", "address_list"} == {"address_list"}


def test_what_is_no_name_is_not_asked_about() -> None:
    mail = Mail(
        text="http://a%00.evil%20one.test/",
        html='<a href="http://\x00nul.test/">x</a><a href="http://sp%20ace.test">y</a>',
    )
    assert set(domains(mail.facts())) == {"nul.test", "partner.example"}
