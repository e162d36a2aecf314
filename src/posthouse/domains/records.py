"""Which DNS records a domain needs, and whether they are there. Pure but for the resolver that
is passed in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, TypeVar, cast

from posthouse.domains.model import Check, DnsRecord, Domain, KeyState
from posthouse.domains.name import organizational
from posthouse.errors import DnsUnavailable
from posthouse.mailauth.dkim import Algorithm, dns_record
from posthouse.net.dns import Answer, Mx

LOOKUP_SECONDS = 15
_SHOWN = 300


class Resolver(Protocol):
    """Of `net.dns`, an own one: checking forgets what it remembers."""

    async def txt(self, name: str) -> Answer[bytes]:
        """:raises DnsUnavailable:"""
        ...

    async def mx(self, domain: str) -> Answer[Mx]:
        """:raises DnsUnavailable:"""
        ...

    def forget(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sender:
    """Of this installation, as it appears in customers' records."""

    hostname: str
    """Its public name: the target of return paths."""
    spf: str
    """The mechanism that allows our addresses: `include:spf.example.net`, `ip4:192.0.2.1` or
    `a:mail.example.net`."""


T = TypeVar("T")
Verdict = tuple[bool, str]
"""Whether it is as it should be, and what was found, in words."""


def ownership_token(domain: Domain) -> str:
    """Bound to the tenant's own row, so nobody publishes it but who was told it."""
    return sha256(f"posthouse domain ownership {domain.id} {domain.tenant_id} {domain.name}".encode()).hexdigest()[:40]


def dns_records(domain: Domain, sender: Sender) -> tuple[DnsRecord, ...]:
    """All to publish, the required ones first. A retired key's record is no longer among them."""
    keys = [key for key in domain.keys if key.status != "retired"]
    return (
        _ownership(domain),
        *(_dkim(domain, key) for key in sorted(keys, key=lambda key: key.algorithm != "rsa-sha256")),
        _record(
            "spf",
            "TXT",
            domain.name,
            f"v=spf1 {sender.spf} ~all",
            "Says who may send for the domain (RFC 7208). If there is an SPF record already, add "
            f"{sender.spf} to it: two records are an error.",
        ),
        _record(
            "dmarc",
            "TXT",
            f"_dmarc.{domain.name}",
            "v=DMARC1; p=none",
            "Says what to do with mail that is not signed or allowed (RFC 7489). Large providers "
            "ask for it; p=none changes nothing yet.",
        ),
        _record(
            "return-path",
            "MX",
            f"bounces.{domain.name}",
            f"10 {sender.hostname}",
            "Brings bounces back when the envelope sender is under the domain.",
        ),
    )


def _ownership(domain: Domain) -> DnsRecord:
    return _record(
        "ownership",
        "TXT",
        f"_posthouse.{domain.name}",
        f"posthouse-verification={ownership_token(domain)}",
        "Shows that the domain is yours. Keep it as long as you send.",
        required=True,
    )


def _dkim(domain: Domain, key: KeyState) -> DnsRecord:
    rsa = key.algorithm == "rsa-sha256"
    return _record(
        "dkim-rsa" if rsa else "dkim-ed25519",
        "TXT",
        f"{key.selector}._domainkey.{domain.name}",
        dns_record(cast("Algorithm", key.algorithm), key.public_key),
        "Verifies the signature of your mail (RFC 6376)."
        if rsa
        else "A second, shorter key (RFC 8463). Without its record mail is signed with the RSA key alone.",
        required=rsa,
    )


def _record(purpose: str, kind: str, name: str, value: str, note: str, *, required: bool = False) -> DnsRecord:
    strings = " ".join(f'"{value[at : at + 255]}"' for at in range(0, len(value), 255)) if kind == "TXT" else value
    return DnsRecord(purpose=purpose, type=kind, name=name, value=value, strings=strings, required=required, note=note)


async def check(domain: Domain, sender: Sender, resolver: Resolver, now: int) -> tuple[Check, ...]:
    """Looks all records up at once, within 15 s, and asks anew: they were published just now."""
    resolver.forget()

    async def one(record: DnsRecord) -> Check:
        ok: bool | None
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                ok, found = await _judge(record, domain, sender, resolver)
        except (DnsUnavailable, TimeoutError):
            ok, found = None, "DNS did not answer; nothing is known, try again"
        return Check(
            purpose=record.purpose,
            name=record.name,
            ok=ok,
            expected=record.value,
            found=found,
            required=record.required,
            at=now,
        )

    return tuple(await asyncio.gather(*(one(record) for record in dns_records(domain, sender))))


async def _judge(record: DnsRecord, domain: Domain, sender: Sender, resolver: Resolver) -> Verdict:
    if record.type == "MX":
        hosts = [mx.host for mx in _fresh(await resolver.mx(record.name))]
        return sender.hostname.lower().rstrip(".") in hosts, _listed(hosts)
    texts = await _texts(resolver, record.name)
    if record.purpose == "dmarc":
        return await _judge_dmarc(texts, domain, resolver)
    judge: Callable[[list[str], str], Verdict] = {"spf": _judge_spf, "ownership": _judge_text}.get(
        record.purpose, _judge_dkim
    )
    return judge(texts, sender.spf if record.purpose == "spf" else record.value)


async def _texts(resolver: Resolver, name: str) -> list[str]:
    return [shown(text.decode("utf-8", "replace")) for text in _fresh(await resolver.txt(name))]


def _fresh(answer: Answer[T]) -> tuple[T, ...]:
    if answer.stale:
        raise DnsUnavailable
    return answer.records


def _judge_text(texts: list[str], expected: str) -> Verdict:
    return expected in (text.strip() for text in texts), _listed(texts)


def _judge_dkim(texts: list[str], expected: str) -> Verdict:
    """RFC 6376 §3.6.1: the key is what counts; blanks within it do not."""
    wanted = _tags(expected)
    records = [tags for tags in map(_tags, texts) if tags.get("p") is not None]
    for tags in records:
        if tags["p"] == wanted["p"] and tags.get("k", "rsa") == wanted.get("k", "rsa"):
            return (True, "the key") if len(records) == 1 else (False, "the key, but beside another record")
    if any(tags["p"] == "" for tags in records):
        return False, "a revoked key (empty p=)"
    return False, "another key" if records else _listed(texts)


def _judge_spf(texts: list[str], mechanism: str) -> Verdict:
    """RFC 7208 §4.5: one record only, or the result is permerror."""
    records = [text for text in texts if text.lower().split(" ")[0] == "v=spf1"]
    if len(records) > 1:
        return False, f"{len(records)} SPF records, which is an error; keep one: {_listed(records)}"
    if not records:
        return False, _listed([]) if not texts else "other TXT records, but no SPF record"
    terms = [term.lower().lstrip("+") for term in records[0].split()]
    if mechanism.lower() in terms:
        return True, records[0]
    return False, f"{records[0]}; it lacks {mechanism}"


async def _judge_dmarc(texts: list[str], domain: Domain, resolver: Resolver) -> Verdict:
    """RFC 7489 §6.6.3: the domain's own record, else the organizational domain's."""
    records = [text for text in texts if _tags(text).get("v") == "DMARC1"]
    parent = organizational(domain.name)
    if not records and parent != domain.name:
        records = [text for text in await _texts(resolver, f"_dmarc.{parent}") if _tags(text).get("v") == "DMARC1"]
    if len(records) > 1:
        return False, f"{len(records)} DMARC records, which counts as none"
    if not records:
        return False, _listed(texts)
    policy = _tags(records[0]).get("p", "").lower()
    return policy in {"none", "quarantine", "reject"}, records[0]


def _tags(text: str) -> dict[str, str]:
    """RFC 6376 §3.2 tag list; blanks within values dropped."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip(): "".join(value.split()) for name, equals, value in pairs if equals}


def shown(text: str) -> str:
    """A peer's text on one line, bounded, without controls."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:4096])


def _listed(texts: Sequence[str]) -> str:
    if not texts:
        return "nothing"
    text = ", ".join(texts[:10])
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
