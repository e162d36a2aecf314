"""DNS from a dict, as the checks ask for it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posthouse.errors import DnsUnavailable
from posthouse.net.dns import Answer, Mx

Zone = Mapping[str, Mapping[str, Sequence[Any]] | None]
"""Records by name and type; None in place of types, or of a type's records: DNS does not answer."""


@dataclass
class Lookup:
    """`{"example.com": {"TXT": ["v=spf1 -all"], "MX": [(10, "mx.example.com")]}, "dead.example": None}`.

    `pause`: seconds before each answer. `asked`: questions, in their order.
    """

    zone: Zone
    pause: float = 0.0
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def _ask(self, name: str, kind: str) -> Answer[Any]:
        name = name.lower().rstrip(".")
        self.asked.append((kind, name))
        if self.pause:
            await asyncio.sleep(self.pause)
        for _ in range(8):
            types = self.zone.get(name, {})
            if types is None or (kind in types and types[kind] is None):
                raise DnsUnavailable
            if "CNAME" not in types:
                break
            name = types["CNAME"][0].lower().rstrip(".")
        exists = bool(types) or any(other.endswith("." + name) for other in self.zone)
        return Answer(tuple(types.get(kind, ())), nxdomain=not exists)

    async def txt(self, name: str) -> Answer[bytes]:
        answer = await self._ask(name, "TXT")
        return Answer(tuple(t.encode() if isinstance(t, str) else t for t in answer.records), answer.nxdomain)

    async def a(self, name: str) -> Answer[str]:
        return await self._ask(name, "A")

    async def aaaa(self, name: str) -> Answer[str]:
        return await self._ask(name, "AAAA")

    async def mx(self, domain: str) -> Answer[Mx]:
        answer = await self._ask(domain, "MX")
        return Answer(tuple(sorted(Mx(p, h.lower().rstrip(".")) for p, h in answer.records)), answer.nxdomain)

    async def ptr(self, address: str) -> Answer[str]:
        return await self._ask(ipaddress.ip_address(address).reverse_pointer, "PTR")
