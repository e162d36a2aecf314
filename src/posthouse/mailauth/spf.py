"""SPF: may this address send mail that names this domain? RFC 7208, all of it.

`check_mail_from` and `check_helo` ask for the two identities. What bounds a check is counted
as the RFC says: ten terms that ask DNS, two that find nothing, ten MX hosts, ten PTR names.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from posthouse.errors import DnsUnavailable
from posthouse.mailauth import spf_record
from posthouse.mailauth.evidence import Spf
from posthouse.mailauth.names import MAX_NAME, normal, printable, within

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from posthouse.mailauth.lookup import Found, Lookup
    from posthouse.mailauth.spf_record import Mechanism, Record, Template

T = TypeVar("T")

MAX_LOOKUPS = 10  # RFC 7208 §4.6.4
MAX_VOID = 2  # RFC 7208 §4.6.4
MAX_HOSTS = 10  # MX hosts and PTR names, RFC 7208 §4.6.4
MAX_EXPLANATION = 400  # characters; more is no sentence for a reply
_NO_NAME = "unknown"  # RFC 7208 §7.3


class _Permanent(Exception):
    """Ends the check as permerror."""


class _Temporary(Exception):
    """Ends the check as temperror."""


@dataclass(slots=True)
class Client:
    """Who is connected.

    `peer`: IPv4 or IPv6 as text. `receiver`: our host name, for the macro r. `now`: seconds
    since 1970, for the macro t. `asked_more`: set when a record asked for more than the domain
    of an identity (the macros s, l and t): what it gave is good for this message only.
    """

    peer: str
    helo: str
    receiver: str = "unknown"
    now: int = 0
    asked_more: bool = False


async def check_mail_from(lookup: Lookup, client: Client, reverse_path: str) -> Spf:
    """The MAIL FROM identity; of the null path it is postmaster at the HELO name (RFC 7208 §2.4),
    and the scope says so.

    :param reverse_path: without angle brackets, empty for the null path.
    """
    if not reverse_path:
        return await check_helo(lookup, client)
    local, _, domain = reverse_path.rpartition("@")
    return await _Check(lookup, client, local or "postmaster", domain).run("mailfrom")


async def check_helo(lookup: Lookup, client: Client) -> Spf:
    """The HELO identity (RFC 7208 §2.3)."""
    return await _Check(lookup, client, "postmaster", client.helo).run("helo")


class _Check:
    """One identity's evaluation, with what it has used up."""

    def __init__(self, lookup: Lookup, client: Client, local: str, domain: str) -> None:
        self._lookup = lookup
        self._client = client
        self._domain = domain
        self._local = local
        self._address = _parse_address(client.peer)
        self._lookups = 0
        self._void = 0
        self._hosts: tuple[str, ...] | None = None

    async def run(self, scope: str) -> Spf:
        shown = printable(self._domain)
        domain = normal(self._domain)
        if self._address is None or domain is None or "." not in domain:  # RFC 7208 §4.3
            return Spf("none", shown, scope, reason="the identity has no domain name")
        self._domain = domain
        try:
            result, mechanism, exp, record_domain = await self._evaluate(domain)
            told = None
            if result == "fail" and exp is not None:
                told = await self._explanation(exp, record_domain)
        except _Permanent as problem:
            return Spf("permerror", domain, scope, reason=str(problem))
        except _Temporary as problem:
            return Spf("temperror", domain, scope, reason=str(problem))
        reason = "no SPF record" if result == "none" else ""
        return Spf(result, domain, scope, printable(mechanism) if mechanism else None, reason, told)

    async def _evaluate(self, domain: str) -> tuple[str, str | None, Template | None, str]:
        """check_host() (RFC 7208 §4): the result, the mechanism that gave it, the explanation's
        domain-spec and the domain whose record holds it."""
        record = await self._record(domain)
        if record is None:
            return "none", None, None, domain
        for mechanism in record.mechanisms:
            if await self._matches(mechanism, domain):
                return mechanism.result, mechanism.text, record.exp, domain
        if record.redirect is None:
            return "neutral", None, None, domain
        self._count()
        target = await self._target(record.redirect, domain)
        outcome = await self._evaluate(target)
        if outcome[0] == "none":  # RFC 7208 §6.1
            raise _Permanent(f"redirect to {printable(target)}, which has no SPF record")
        return outcome

    async def _record(self, domain: str) -> Record | None:
        if normal(domain) is None:
            return None
        answer = await self._ask(self._lookup.txt(domain), domain)
        texts = [text for text in answer.records if spf_record.is_record(text)]
        if not texts:
            return None
        if len(texts) > 1:  # RFC 7208 §4.5
            raise _Permanent(f"{printable(domain)} has more than one SPF record")
        record = spf_record.parse(texts[0])
        if isinstance(record, spf_record.SyntaxFault):
            raise _Permanent(f"SPF record of {printable(domain)}: {record}")
        return record

    async def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        name = mechanism.name
        if name in {"ip4", "ip6"}:
            return self._in_network(mechanism)
        if name == "all":
            return True
        self._count()
        target = domain if mechanism.domain is None else await self._target(mechanism.domain, domain)
        return await self._found(mechanism, target)

    async def _found(self, mechanism: Mechanism, target: str) -> bool:
        name = mechanism.name
        if name == "ptr":
            return any(within(host, target.lower()) for host in await self._validated())
        if name == "include":
            return await self._included(target)
        if name == "exists":
            found = await self._ask(self._lookup.a(target), target, void=True)
            return bool(found.records)
        hosts = [target] if name == "a" else await self._exchanges(target)
        for host in hosts:
            if await self._has_address(host, mechanism, void=name == "a"):
                return True
        return False

    def _in_network(self, mechanism: Mechanism) -> bool:
        assert self._address is not None
        assert mechanism.network is not None
        version, number = self._address
        kept, dropped = mechanism.network
        return version == int(mechanism.name[2]) and number >> dropped == kept

    async def _included(self, target: str) -> bool:
        result = (await self._evaluate(target))[0]
        if result == "none":  # RFC 7208 §5.2
            raise _Permanent(f"include of {printable(target)}, which has no SPF record")
        return result == "pass"

    async def _exchanges(self, domain: str) -> list[str]:
        found = await self._ask(self._lookup.mx(domain), domain, void=True)
        if len(found.records) > MAX_HOSTS:  # RFC 7208 §4.6.4
            raise _Permanent(f"{printable(domain)} has more than {MAX_HOSTS} MX hosts")
        return [exchange.host for exchange in found.records if exchange.host]

    async def _has_address(self, host: str, mechanism: Mechanism, *, void: bool) -> bool:
        assert self._address is not None
        version, number = self._address
        ask, width, prefix = (
            (self._lookup.a, 32, mechanism.v4) if version == 4 else (self._lookup.aaaa, 128, mechanism.v6)
        )
        found = await self._ask(ask(host), host, void=void)
        dropped = width - prefix
        for text in found.records:
            address = _parse_address(text, mapped=False)
            if address is not None and address[0] == version and address[1] >> dropped == number >> dropped:
                return True
        return False

    async def _validated(self) -> tuple[str, ...]:
        """Names of the peer that lead back to it (RFC 7208 §5.5); errors make there be none."""
        if self._hosts is not None:
            return self._hosts
        assert self._address is not None
        version, number = self._address
        ask = self._lookup.a if version == 4 else self._lookup.aaaa
        self._hosts = ()
        try:
            found = await self._lookup.ptr(_text(version, number))
        except DnsUnavailable:
            return ()
        if not found.records:
            self._count_void()
        kept: list[str] = []
        for host in found.records[:MAX_HOSTS]:
            try:
                addresses = await ask(host)
            except DnsUnavailable:
                continue
            if any(_parse_address(text, mapped=False) == (version, number) for text in addresses.records):
                kept.append(host.lower().removesuffix("."))
        self._hosts = tuple(kept)
        return self._hosts

    async def _target(self, template: Template, domain: str) -> str:
        if len(template) == 1 and isinstance(template[0], str):
            return template[0].removesuffix(".")
        name = spf_record.expand(template, await self._values(template, domain)).removesuffix(".")
        while len(name) > MAX_NAME and "." in name:  # RFC 7208 §7.3
            name = name.partition(".")[2]
        return name

    async def _values(self, template: Template, domain: str) -> dict[str, str]:
        assert self._address is not None
        version, number = self._address
        text = _text(version, number)
        values = {
            "s": f"{self._local}@{self._domain}", "l": self._local, "o": self._domain, "d": domain,
            "i": text if version == 4 else ".".join(f"{number:032X}"),
            "v": "in-addr" if version == 4 else "ip6", "h": self._client.helo,
            "c": text, "r": self._client.receiver, "t": str(self._client.now), "p": _NO_NAME,
        }  # fmt: skip
        if any(spf_record.names(template, letter) for letter in "slt"):
            self._client.asked_more = True
        if spf_record.names(template, "p"):
            values["p"] = await self._peer_name(domain)
        return values

    async def _peer_name(self, domain: str) -> str:
        """RFC 7208 §7.3: the domain itself, else one below it, else any."""
        hosts = await self._validated()
        ranked = sorted(hosts, key=lambda host: (host != domain.lower(), not within(host, domain.lower())))
        return ranked[0] if ranked else _NO_NAME

    async def _explanation(self, template: Template, domain: str) -> str | None:
        """RFC 7208 §6.2; whatever goes wrong, there is none."""
        try:
            found = await self._lookup.txt(await self._target(template, domain))
            if len(found.records) != 1:
                return None
            text = spf_record.parse_explanation(found.records[0])
            if text is None:
                return None
            told = spf_record.expand(text, await self._values(text, domain))
        except (DnsUnavailable, _Permanent, _Temporary):
            return None
        return told[:MAX_EXPLANATION] if told.isascii() and told.isprintable() and told else None

    async def _ask(self, question: Awaitable[Found[T]], name: str, *, void: bool = False) -> Found[T]:
        try:
            answer = await question
        except DnsUnavailable:
            raise _Temporary(f"DNS did not answer for {printable(name)}") from None
        if void and not answer.records:
            self._count_void()
        return answer

    def _count(self) -> None:
        self._lookups += 1
        if self._lookups > MAX_LOOKUPS:
            raise _Permanent(f"more than {MAX_LOOKUPS} terms ask DNS")

    def _count_void(self) -> None:
        self._void += 1
        if self._void > MAX_VOID:
            raise _Permanent(f"more than {MAX_VOID} terms find nothing in DNS")


@lru_cache(maxsize=16_384)
def _parse_address(text: str, mapped: bool = True) -> tuple[int, int] | None:
    """Version and number. `mapped`: ::ffff:192.0.2.1 is IPv4 (RFC 7208 §5)."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if mapped and isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, int(address)


def _text(version: int, number: int) -> str:
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))
