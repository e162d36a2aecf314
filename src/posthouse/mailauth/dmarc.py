"""DMARC by RFC 9989: what the author's domain asks for, and whether SPF or DKIM speaks for it.

1. `discover` finds the policy record: at the author's domain, else by the tree walk at its
   organizational domain or the public suffix above.
2. `judge` compares what SPF and DKIM authenticated with the author's domain.
3. Of several authors the worst answer counts: every domain shown to a reader must pass.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from posthouse.errors import DnsUnavailable
from posthouse.mailauth.author import MAX_DOMAINS, Authors
from posthouse.mailauth.evidence import Dkim, Dmarc, Spf
from posthouse.mailauth.lookup import Lookup
from posthouse.mailauth.names import parent

MAX_RECORD = 8192  # octets
_SHORTENED = 7  # labels that the walk goes on with, RFC 9989 §4.10
_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s,!;]+(?:![0-9]+[kmgtKMGT]?)?")
_POLICIES = ("none", "quarantine", "reject")
_WEAKER = {"reject": "quarantine", "quarantine": "none", "none": "none"}
_WORST = ("fail", "temperror", "permerror", "none", "pass")

Organizational = Callable[[str], str]
"""A domain's organizational domain by the public suffix list."""


@dataclass(frozen=True, slots=True)
class Record:
    """A policy record, its faults mended as RFC 9989 §4.8 and §4.10.1 say. `policy` None: DMARC
    does not apply. `subdomains` and `nonexistent`: sp and np with their defaults."""

    policy: str | None
    subdomains: str = "none"
    nonexistent: str = "none"
    psd: Literal["y", "n", "u"] = "u"
    testing: bool = False
    strict_dkim: bool = False
    strict_spf: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What applies to mail of `domain`; `record` None: nothing does."""

    domain: str
    record_domain: str | None = None
    record: Record | None = None
    asked: str = "none"
    """After sp and np, before t."""


Walk = Sequence[tuple[str, Record]]
"""Records of a tree walk with their domains, the longest name first."""


class Evaluation:
    """:param organizational: decides where the walk finds no record at all.
    :param prefer_list: it decides always, as in RFC 7489.
    :param accept_partial: a signature whose `l=` leaves text unsigned counts as well.
    """

    def __init__(
        self,
        lookup: Lookup,
        *,
        organizational: Organizational | None = None,
        prefer_list: bool = False,
        accept_partial: bool = False,
    ) -> None:
        self._lookup = lookup
        self._list = organizational
        self._prefer_list = prefer_list and organizational is not None
        self._accept_partial = accept_partial
        self._walks: dict[str, Walk] = {}

    async def discover(self, domain: str) -> Policy | None:
        """RFC 9989 §4.10.1. None: DNS did not answer."""
        try:
            return await self._discover(domain)
        except DnsUnavailable:
            return None

    async def discover_all(self, authors: Authors) -> list[Policy | None]:
        """For each domain, at most `MAX_DOMAINS`."""
        if len(authors.domains) == 1:
            return [await self.discover(authors.domains[0])]
        return await asyncio.gather(*[self.discover(domain) for domain in authors.domains[:MAX_DOMAINS]])

    async def judge(self, authors: Authors, policies: Sequence[Policy | None], spf: Spf, dkim: Sequence[Dkim]) -> Dmarc:
        """:param policies: of `discover_all`."""
        if not authors.domains:
            result = "permerror" if "too long" in authors.problem else "none"
            return Dmarc(result, "", reason=authors.problem)
        if len(authors.domains) > MAX_DOMAINS:
            return Dmarc("permerror", authors.domains[0], reason="From names too many domains")
        each = [
            await self._judge_one(domain, policy, spf, dkim)
            for domain, policy in zip(authors.domains, policies, strict=True)
        ]
        worst = min(each, key=lambda one: (_WORST.index(one.result), -_POLICIES.index(one.disposition)))
        return _with_reason(worst, authors.problem)

    async def _judge_one(self, domain: str, policy: Policy | None, spf: Spf, dkim: Sequence[Dkim]) -> Dmarc:
        if policy is None:
            return Dmarc("temperror", domain, reason="DNS did not answer for the policy")
        record = policy.record
        if record is None or record.policy is None:
            reason = "the domain has no policy" if record is None else "the policy record is not valid"
            return Dmarc("none", domain, policy.record_domain, reason=reason)
        try:
            by_spf = spf.result == "pass" and await self._aligned(spf.domain, domain, record.strict_spf)
            by_dkim = await self._signed(dkim, domain, record.strict_dkim)
            if not by_spf and not by_dkim:
                return await self._failed(policy, record, spf, dkim)
        except DnsUnavailable:
            return Dmarc(
                "temperror", domain, policy.record_domain, policy=policy.asked,
                reason="DNS did not answer for the alignment",
            )  # fmt: skip
        effective = _WEAKER[policy.asked] if record.testing else policy.asked
        return Dmarc(
            "pass", domain, policy.record_domain, effective,
            aligned_spf=by_spf, aligned_dkim=by_dkim, testing=record.testing,
        )  # fmt: skip

    async def _failed(self, policy: Policy, record: Record, spf: Spf, dkim: Sequence[Dkim]) -> Dmarc:
        effective = _WEAKER[policy.asked] if record.testing else policy.asked
        domain = policy.domain
        # RFC 9989 §5.3.6: what might have passed had DNS answered has not failed.
        unknown = spf.result == "temperror" and await self._aligned(spf.domain, domain, record.strict_spf)
        for one in dkim:
            if one.result == "temperror" and not unknown:
                unknown = await self._aligned(one.domain, domain, record.strict_dkim)
        if unknown:
            return Dmarc(
                "temperror", domain, policy.record_domain, effective, testing=record.testing,
                reason="DNS did not answer for SPF or DKIM of the domain",
            )  # fmt: skip
        return Dmarc(
            "fail", domain, policy.record_domain, effective, effective,
            testing=record.testing, reason=_why(spf, dkim),
        )  # fmt: skip

    async def _signed(self, dkim: Sequence[Dkim], domain: str, strict: bool) -> bool:
        passed = [one.domain for one in dkim if one.result == "pass" and (one.covered is None or self._accept_partial)]
        if domain in passed:
            return True
        failure: DnsUnavailable | None = None
        for identifier in dict.fromkeys(passed):
            try:
                if await self._aligned(identifier, domain, strict):
                    return True
            except DnsUnavailable as error:
                failure = error
        if failure is not None:
            raise failure
        return False

    async def _aligned(self, identifier: str, author: str, strict: bool) -> bool:
        """RFC 9989 §4.10.2."""
        if identifier == author:
            return True
        if strict or identifier.rpartition(".")[2] != author.rpartition(".")[2]:
            return False
        return await self._organizational(identifier) == await self._organizational(author)

    async def _organizational(self, domain: str) -> str:
        if self._prefer_list and self._list is not None:
            return self._list(domain)
        walk = await self._walk(domain)
        if not walk and self._list is not None:
            return self._list(domain)
        return organizational_of(domain, walk)

    async def _discover(self, domain: str) -> Policy:
        record = await self._record(domain)
        if record is not None:
            return Policy(domain, domain, record, record.policy or "none")
        if self._prefer_list and self._list is not None:
            return await self._inherited(domain, [self._list(domain)])
        walk = await self._walk(domain)
        if not walk:
            return Policy(domain)
        # The organizational domain's record, else that of the public suffix (RFC 9989 §4.10.1).
        return await self._inherited(domain, [organizational_of(domain, walk), walk[-1][0]])

    async def _inherited(self, domain: str, places: Sequence[str]) -> Policy:
        for place in places:
            record = await self._record(place) if place != domain else None
            if record is not None:
                asked = record.subdomains
                if record.nonexistent != asked and (await self._lookup.a(domain)).nxdomain:  # RFC 9989 §3.2.13
                    asked = record.nonexistent
                return Policy(domain, place, record, asked)
        return Policy(domain)

    async def _walk(self, domain: str) -> Walk:
        """RFC 9989 §4.10. :raises DnsUnavailable:"""
        known = self._walks.get(domain)
        if known is not None:
            return known
        found: list[tuple[str, Record]] = []
        for name in walk_names(domain):
            record = await self._record(name)
            if record is not None:
                found.append((name, record))
                if record.psd != "u":
                    break
        self._walks[domain] = found
        return found

    async def _record(self, domain: str) -> Record | None:
        answer = await self._lookup.txt(f"_dmarc.{domain}")
        if not answer.records:
            return None
        records = [text for text in answer.records if _VERSION.match(text) is not None]
        return parse(records[0]) if len(records) == 1 else None


def walk_names(domain: str) -> Iterator[str]:
    """The names whose records the walk looks for: at most eight (RFC 9989 §4.10)."""
    yield domain
    labels = domain.split(".")
    name = ".".join(labels[-_SHORTENED:]) if len(labels) > _SHORTENED else parent(domain)
    while name:
        yield name
        name = parent(name)


def organizational_of(domain: str, walk: Walk) -> str:
    """RFC 9989 §4.10.2."""
    for name, record in walk:
        if record.psd == "n":
            return name
        if record.psd == "y" and name != domain:
            return ".".join(domain.split(".")[-name.count(".") - 2 :])
    return walk[-1][0] if walk else domain


@lru_cache(maxsize=4096)
def parse(record: bytes) -> Record:
    """:param record: one that begins with the version."""
    tags: dict[str, str] = {}
    for part in record[:MAX_RECORD].decode("ascii", "replace").split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip(" \t").lower(), value.strip(" \t"))
    asked = {name: tags[name].lower() for name in ("p", "sp", "np") if name in tags}
    psd = tags.get("psd", "u").lower()
    testing = tags.get("t", "").lower()
    if testing not in {"y", "n"}:
        testing = "y" if tags.get("pct") == "0" else "n"  # RFC 9989 appendix A.6
    policy: str | None = asked.get("p", "none")
    if any(value not in _POLICIES for value in asked.values()):
        policy, asked = ("none" if _reports(tags.get("rua", "")) else None), {}
    subdomains = asked.get("sp", policy or "none")
    return Record(
        policy,
        subdomains,
        asked.get("np", subdomains),
        "y" if psd == "y" else "n" if psd == "n" else "u",
        testing == "y",
        tags.get("adkim", "").lower() == "s",
        tags.get("aspf", "").lower() == "s",
    )


def _reports(uris: str) -> bool:
    return any(_URI.fullmatch(uri.strip(" \t")) is not None for uri in uris.split(","))


def _why(spf: Spf, dkim: Sequence[Dkim]) -> str:
    passed = [f"SPF of {spf.domain}"] if spf.result == "pass" else []
    passed += [f"DKIM of {one.domain}" for one in dkim if one.result == "pass" and one.covered is None][:3]
    partial = any(one.result == "pass" and one.covered is not None for one in dkim)
    if passed:
        return "only " + " and ".join(passed) + " passed, for other domains than From's"
    return "DKIM passed for a part of the body only" if partial else "neither SPF nor DKIM passed"


def _with_reason(result: Dmarc, problem: str) -> Dmarc:
    if not problem:
        return result
    reason = f"{problem}; {result.reason}" if result.reason else problem
    return Dmarc(
        result.result, result.domain, result.record_domain, result.policy, result.disposition,
        result.aligned_spf, result.aligned_dkim, result.testing, reason,
    )  # fmt: skip
