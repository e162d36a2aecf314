"""Domains in DNS block lists: asked for a whole batch at once, bounded in number and time.

No answer in time is no answer; what was answered is remembered for a while, so that a warm
batch costs no task.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from posthouse.errors import DnsUnavailable
from posthouse.inbound.filter.brands import FREEMAIL, SHORTENERS
from posthouse.inbound.filter.facts import Facts
from posthouse.inbound.filter.names import registrable
from posthouse.inbound.model import Listing

_ASKED = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+")
"""A name that the DNS can hold; links lead to others too, which nobody lists."""
MOST_DOMAINS = 12
"""Of one message."""
MOST_UNDER_WAY = 64
"""Questions at once."""


class Found(Protocol):
    @property
    def records(self) -> tuple[str, ...]: ...


class AddressLookup(Protocol):
    """`net.dns.Resolver`."""

    async def a(self, name: str, /) -> Found: ...


@dataclass(frozen=True, slots=True)
class DomainList:
    """`answers`: networks of the addresses that count as a hit (RFC 5782 §2.1); other answers
    are the list's way to say that it does not answer."""

    zone: str
    weight: float
    answers: tuple[ipaddress.IPv4Network, ...] = (ipaddress.IPv4Network("127.0.0.0/8"),)


class DomainLists:
    """:param timeout: seconds that a batch waits for all its questions together.
    :param ttl: seconds that an answer is remembered here; the resolver has the records' own.
    """

    def __init__(
        self,
        lists: Sequence[DomainList],
        lookup: AddressLookup,
        *,
        timeout: float = 3.0,
        ttl: float = 300.0,
        capacity: int = 20_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lists = tuple(lists)
        self._lookup = lookup
        self._timeout = timeout
        self._ttl = ttl
        self._capacity = capacity
        self._monotonic = monotonic
        self._known: OrderedDict[str, tuple[float, tuple[Listing, ...]]] = OrderedDict()
        self._turns = asyncio.Semaphore(MOST_UNDER_WAY)

    @property
    def empty(self) -> bool:
        return not self._lists

    async def ask(self, domains: Iterable[str]) -> dict[str, tuple[Listing, ...]]:
        """Each domain that is in a list, with its hits."""
        found: dict[str, tuple[Listing, ...]] = {}
        unknown: list[str] = []
        now = self._monotonic()
        for domain in dict.fromkeys(domains):
            known = self._known.get(domain)
            if known is None or known[0] < now:
                unknown.append(domain)
            elif known[1]:
                found[domain] = known[1]
        if unknown:
            found.update(await self._ask_dns(unknown))
        return found

    async def _ask_dns(self, domains: Sequence[str]) -> dict[str, tuple[Listing, ...]]:
        tasks = {asyncio.ensure_future(self._of(domain)): domain for domain in domains}
        try:
            done, late = await asyncio.wait(tasks, timeout=self._timeout)
        except asyncio.CancelledError:
            done, late = set(), set(tasks)
            raise
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return {tasks[task]: hits for task in done if (hits := task.result())}

    async def _of(self, domain: str) -> tuple[Listing, ...]:
        answers = await asyncio.gather(*(self._in(domain, one) for one in self._lists))
        hits = tuple(hit for hit, _ in answers if hit is not None)
        if all(sure for _, sure in answers):
            self._known[domain] = (self._monotonic() + self._ttl, hits)
            self._known.move_to_end(domain)
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return hits

    async def _in(self, domain: str, one: DomainList) -> tuple[Listing | None, bool]:
        """(the hit, whether the list answered)."""
        try:
            async with self._turns:
                records = (await self._lookup.a(f"{domain}.{one.zone}")).records
        except DnsUnavailable:
            return None, False
        for record in records[:8]:
            if any(_within(record, network) for network in one.answers):
                return Listing(one.zone, record, one.weight), True
        return None, True


def _within(record: str, network: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Address(record) in network
    except ValueError:
        return False


def domains(facts: Facts) -> list[str]:
    """Which of a message's domains are worth a question: of its links, then of its sender and
    its answers; not the recipients' own, nor services that everybody uses."""
    wanted = dict.fromkeys(map(registrable, facts.links.hosts))
    if facts.owner:
        wanted[facts.owner] = None
    if facts.reply_owner:
        wanted[facts.reply_owner] = None
    skipped = FREEMAIL | SHORTENERS
    return [
        domain
        for domain in wanted
        if len(domain) < 190 and _ASKED.fullmatch(domain) and domain not in facts.ours and domain not in skipped
    ][:MOST_DOMAINS]
