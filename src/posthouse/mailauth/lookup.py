"""What the checks ask of DNS. `net.dns.Resolver` answers it; so does a dict in a test.

Names go in as A-labels or UTF-8, without a final dot. Every method raises
`errors.DnsUnavailable` when nobody could say, which is temporary; that there is nothing is an
answer: `nxdomain` when the name does not exist, else empty `records`.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

RecordT_co = TypeVar("RecordT_co", covariant=True)


class Found(Protocol[RecordT_co]):
    @property
    def records(self) -> tuple[RecordT_co, ...]: ...
    @property
    def nxdomain(self) -> bool: ...


class Exchange(Protocol):
    @property
    def preference(self) -> int: ...
    @property
    def host(self) -> str:
        """Empty in a null MX (RFC 7505)."""
        ...


class Lookup(Protocol):
    async def txt(self, name: str) -> Found[bytes]:
        """Each record with its strings joined."""
        ...

    async def a(self, name: str) -> Found[str]:
        """Dotted quads."""
        ...

    async def aaaa(self, name: str) -> Found[str]: ...

    async def mx(self, domain: str) -> Found[Exchange]:
        """By preference, lowest first."""
        ...

    async def ptr(self, address: str) -> Found[str]:
        """:param address: IPv4 or IPv6 as text; the reverse name is made here."""
        ...
