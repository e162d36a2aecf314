"""What DNS says about a connection: its address, the name it greets with, the sender's domain.

Asked when each becomes known, so that the answers are there when the message is; held for
some minutes. All of it is evidence; only a list with `refuse` refuses.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from posthouse.errors import DnsUnavailable, Invalid
from posthouse.inbound.lists import Hit, Lists
from posthouse.inbound.memo import Memo
from posthouse.inbound.model import Listing
from posthouse.mail.address import parse_domain
from posthouse.mailauth.lookup import Lookup

_MOST_NAMES = 5
"""Of a reverse name; more are not confirmed (RFC 8601 §2.7.3 leaves the bound to us)."""
_BARE_IP = re.compile(r"\[?[0-9]{1,3}(?:\.[0-9]{1,3}){3}\]?|\[?(?i:ipv6:)?[0-9A-Fa-f]*:[0-9A-Fa-f:.]+\]?")
_HELD_SECONDS = 300.0
_ASK_SECONDS = 8.0


class Facts(msgspec.Struct, frozen=True, gc=False):
    """:ivar refused: the hit of a list that refuses."""

    host: str | None = None
    flaws: tuple[str, ...] = ()
    listings: tuple[Listing, ...] = ()
    refused: Listing | None = None

    @property
    def allowed(self) -> bool:
        return any(listing.weight < 0 for listing in self.listings)


NONE = Facts()
Begun = Facts | asyncio.Task[Facts]


class Checks:
    """:param hostname: ours: a peer that greets with it lies."""

    def __init__(
        self, lists: Lists, lookup: Lookup, *, hostname: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lists = lists
        self._lookup = lookup
        self._hostname = hostname.lower()
        self._peers = Memo(self._ask_peer, unknown=NONE, seconds=_HELD_SECONDS, monotonic=monotonic)
        self._helos = Memo(self._ask_helo, unknown=NONE, seconds=_HELD_SECONDS, monotonic=monotonic)
        self._senders = Memo(self._ask_sender, unknown=NONE, seconds=_HELD_SECONDS, monotonic=monotonic)

    def peer(self, address: str) -> Begun:
        return self._peers.begin(address)

    def helo(self, name: str) -> Begun:
        return self._helos.begin(name.lower().removesuffix("."))

    def sender(self, reverse_path: str) -> Begun:
        domain = reverse_path.rpartition("@")[2].lower()
        return self._senders.begin(domain) if domain and not domain.startswith("[") else NONE

    async def wait(self, begun: Begun, seconds: float) -> Facts:
        """At most so long; then nothing is known."""
        return await self._peers.wait(begun, seconds)

    async def close(self) -> None:
        for memo in (self._peers, self._helos, self._senders):
            await memo.close()

    async def _ask_peer(self, address: str) -> Facts:
        async with asyncio.timeout(_ASK_SECONDS):
            (host, flaws), hits = await asyncio.gather(self._reverse(address), self._lists.address(address))
        return _facts(hits, flaws, host)

    async def _reverse(self, address: str) -> tuple[str | None, tuple[str, ...]]:
        """The name of an address, if that name has this address too."""
        try:
            names = (await self._lookup.ptr(address)).records[:_MOST_NAMES]
        except DnsUnavailable:
            return None, ()
        if not names:
            return None, ("rdns_none",)
        ours = ip_address(address)
        for name in names:
            if ours in await self._addresses(name, ours):
                return name.lower().removesuffix("."), ()
        return None, ("rdns_unconfirmed",)

    async def _addresses(self, name: str, like: IPv4Address | IPv6Address) -> set[IPv4Address | IPv6Address]:
        ask = self._lookup.a if like.version == 4 else self._lookup.aaaa
        try:
            return {ip_address(text) for text in (await ask(name)).records}
        except DnsUnavailable:
            return set()

    async def _ask_helo(self, name: str) -> Facts:
        if name.startswith("[") or _BARE_IP.fullmatch(name):
            return Facts(flaws=("helo_ip",))
        if name == self._hostname:
            return Facts(flaws=("helo_ours",))
        if "." not in name:
            return Facts(flaws=("helo_unqualified",))
        async with asyncio.timeout(_ASK_SECONDS):
            there, hits = await asyncio.gather(self._exists(name), self._lists.domain(name))
        return _facts(hits, ("helo_unresolvable",) if there is False else ())

    async def _ask_sender(self, domain: str) -> Facts:
        try:
            name = parse_domain(domain)
        except Invalid:
            return Facts(flaws=("sender_unresolvable",))
        async with asyncio.timeout(_ASK_SECONDS):
            flaw, hits = await asyncio.gather(self._sender_flaw(name), self._lists.domain(name))
        return _facts(hits, (flaw,) if flaw else ())

    async def _sender_flaw(self, name: str) -> str | None:
        """A domain that takes no mail cannot be answered (RFC 7505 §4.2, RFC 5321 §5.1)."""
        try:
            exchanges = (await self._lookup.mx(name)).records
        except DnsUnavailable:
            return None
        if len(exchanges) == 1 and exchanges[0].host in {"", "."}:
            return "sender_null_mx"
        there = bool(exchanges) or await self._exists(name)
        return "sender_unresolvable" if there is False else None

    async def _exists(self, name: str) -> bool | None:
        """Whether it has an address; None: nobody could say."""
        asked = await asyncio.gather(self._lookup.a(name), self._lookup.aaaa(name), return_exceptions=True)
        if any(not isinstance(one, BaseException) and one.records for one in asked):
            return True
        return None if any(isinstance(one, BaseException) for one in asked) else False


def _facts(hits: tuple[Hit, ...], flaws: tuple[str, ...], host: str | None = None) -> Facts:
    refused = next((hit.listing for hit in hits if hit.refuse and hit.listing.weight > 0), None)
    listings = tuple(hit.listing for hit in hits)
    if any(listing.weight < 0 for listing in listings):
        refused = None  # one list speaks for it: the filter weighs them
    return Facts(host, flaws, listings, refused)
