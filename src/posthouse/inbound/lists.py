"""DNS block and allow lists (RFC 5782): asked all at once; what does not answer has no say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from posthouse.errors import DnsUnavailable
from posthouse.inbound.model import Listing
from posthouse.mailauth.lookup import Lookup
from posthouse.smtp.reply import printable

_MOST_TEXT = 200
_ERRORS = IPv4Network("127.255.255.0/24")
"""By convention the answers of a list that refuses the question (over quota, open resolver)."""
_PRIVATE = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 ::1/128 fc00::/7 fe80::/10"
    ).split()
)


@dataclass(frozen=True, slots=True)
class DnsList:
    """:ivar kind: `address` or `domain`: what is looked up there.
    :ivar weight: above 0 it speaks against the sender.
    :ivar answers: the networks of the answers that mean a hit."""

    zone: str
    kind: str = "address"
    weight: float = 3.0
    refuse: bool = False
    answers: tuple[str, ...] = ("127.0.0.0/8",)


@dataclass(frozen=True, slots=True)
class Hit:
    listing: Listing
    refuse: bool


def is_private(address: str) -> bool:
    """No list in the world knows it. False for what is no address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return any(ip in network for network in _PRIVATE)


class Lists:
    """:param timeout: seconds for one list."""

    def __init__(self, lists: Sequence[DnsList], lookup: Lookup, *, timeout: float = 3.0) -> None:
        self._by_kind = {kind: tuple(one for one in lists if one.kind == kind) for kind in ("address", "domain")}
        self._lookup = lookup
        self._timeout = timeout
        self.refusing = any(one.refuse for one in lists)
        """Whether some mail could be refused for a hit."""

    def asks(self, kind: str) -> bool:
        return bool(self._by_kind[kind])

    async def address(self, address: str) -> tuple[Hit, ...]:
        """The lists that name it; none for a private address. Never raises."""
        if not self._by_kind["address"] or is_private(address):
            return ()
        try:
            ip = ip_address(address)
        except ValueError:
            return ()
        return await self._all("address", _reversed(ip), address)

    async def domain(self, name: str) -> tuple[Hit, ...]:
        """As `address`, for a domain in A-labels."""
        if not self._by_kind["domain"] or not name or len(name) > 200:
            return ()
        return await self._all("domain", name, name)

    async def _all(self, kind: str, label: str, value: str) -> tuple[Hit, ...]:
        asked = await asyncio.gather(*(self._one(one, label, value) for one in self._by_kind[kind]))
        return tuple(hit for hit in asked if hit is not None)

    async def _one(self, one: DnsList, label: str, value: str) -> Hit | None:
        name = f"{label}.{one.zone}"
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._lookup.a(name)
        except (DnsUnavailable, TimeoutError):
            return None
        networks = _networks(one.answers)
        if not any(_means_hit(answer, networks) for answer in found.records):
            return None
        return Hit(Listing(one.zone, value, one.weight, await self._text(name)), one.refuse)

    async def _text(self, name: str) -> str:
        """Why, in the list's words (RFC 5782 §2.1)."""
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._lookup.txt(name)
        except (DnsUnavailable, TimeoutError):
            return ""
        return printable(found.records[0][:1000].decode("utf-8", "replace"))[:_MOST_TEXT] if found.records else ""


def _reversed(ip: IPv4Address | IPv6Address) -> str:
    """RFC 5782 §2.1 and §2.4: the labels of the reverse name without its zone."""
    return ip.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


@lru_cache(maxsize=256)
def _networks(answers: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(answer, strict=False) for answer in answers)


def _means_hit(answer: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        ip = ip_address(answer)
    except ValueError:
        return False
    return ip not in _ERRORS and any(ip in network for network in networks)
