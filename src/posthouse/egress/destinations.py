"""From a domain to its destination (RFC 5321 §5.1): static, relay, or the hosts of its MX.

    null MX (RFC 7505)            refused for good, 5.1.10
    no such domain                refused for good, 5.1.2
    no MX                         the domain itself is the host (§5.1, implicit MX)
    neither MX nor address        refused for good, 5.1.2
    we are the best MX ourselves  a loop: refused for good, 5.4.6; hosts after us are left out
    DNS does not answer           not now, 4.4.3

Domains with the same MX hosts are one site.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import Protocol

from posthouse.clock import SECOND, Clock
from posthouse.egress.model import Destination, Kind, NoDestination
from posthouse.egress.routes import Routes
from posthouse.errors import DnsUnavailable
from posthouse.net.dns import Answer, Mx

_MOST_DOMAINS = 100_000
_KEEP_AT_LEAST = 60
_KEEP_AT_MOST = 3600
_KEEP_FAILURE = 30
"""Seconds that an answer, a time-out, is kept."""
_MOST_HOSTS = 10


class Resolver(Protocol):
    """`net.dns.Resolver`, as far as it is needed here."""

    async def mx(self, domain: str) -> Answer[Mx]: ...

    async def addresses(self, host: str) -> Answer[str]: ...


class Destinations:
    def __init__(
        self, routes: Routes, resolver: Resolver, *, hostname: str, private_addresses: bool, clock: Clock
    ) -> None:
        """
        :param hostname: our own: an MX of this name is ourselves.
        :param private_addresses: an MX may lie on a loopback or private address (tests, intranets).
        """
        self._routes = routes
        self._resolver = resolver
        self._hostname = hostname.lower()
        self._private = private_addresses
        self._clock = clock
        self._found: OrderedDict[str, tuple[Destination | NoDestination, int]] = OrderedDict()
        self._asking: dict[str, asyncio.Future[Destination | NoDestination]] = {}

    def known(self, domain: str) -> Destination | NoDestination | None:
        """What needs no question to DNS: fixed routes, and answers that are still fresh."""
        held = self._found.get(domain)
        if held is not None and held[1] > self._clock():
            return held[0]
        route = self._routes.find(domain)
        if route.kind is Kind.MX and not domain.startswith("["):
            return None
        if route.kind is Kind.MX:
            found = Destination(domain, route, ((domain[1:-1].removeprefix("IPv6:"), route.port),))
        else:
            found = Destination(f"route:{route.name}", route, route.hosts)
        self._keep(domain, found, _KEEP_AT_MOST)
        return found

    async def locate(self, domain: str) -> Destination | NoDestination:
        """Asks DNS where it must, once for all who ask at the same time. Never raises."""
        known = self.known(domain)
        if known is not None:
            return known
        asking = self._asking.get(domain)
        if asking is None:
            asking = self._asking[domain] = asyncio.ensure_future(self._ask(domain))
            asking.add_done_callback(lambda _: self._asking.pop(domain, None))
        return await asyncio.shield(asking)

    async def addresses(self, destination: Destination, host: str) -> Sequence[str]:
        """Of one of its hosts, in random order within IPv6 and IPv4, IPv6 first.

        :raises DnsUnavailable: no answer, or no address that mail may go to.
        """
        try:
            ipaddress.ip_address(host)
        except ValueError:
            found = await self._look_up(host, ours=destination.route.kind is not Kind.MX)
        else:
            found = [host]
        if destination.route.kind is Kind.MX and not self._private:
            found = [ip for ip in found if ipaddress.ip_address(ip).is_global]
        if not found:
            raise DnsUnavailable(f"{host} has no address that mail may go to")
        random.shuffle(found)
        return sorted(found, key=lambda ip: ":" not in ip)

    async def _look_up(self, host: str, *, ours: bool) -> list[str]:
        """:param ours: a host of our own settings may also stand in /etc/hosts, as `localhost` does.
        :raises DnsUnavailable:"""
        unavailable: DnsUnavailable | None = None
        found: list[str] = []
        try:
            found = list((await self._resolver.addresses(host)).records)
        except DnsUnavailable as error:
            unavailable = error
        if not found and ours:
            with suppress(OSError, UnicodeError):
                known = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
                found = sorted({str(address[0]) for *_, address in known})
        if not found and unavailable is not None:
            raise unavailable
        return found

    async def _ask(self, domain: str) -> Destination | NoDestination:
        try:
            answer = await self._resolver.mx(domain)
            found: Destination | NoDestination
            if answer.nxdomain:
                found = _refused("no_such_domain", "5.1.2", f"The domain {domain} does not exist")
            elif not answer.records:
                found = await self._implicit(domain)
            else:
                found = self._from_mx(domain, answer.records)
            ttl = min(max(answer.ttl, _KEEP_AT_LEAST), _KEEP_AT_MOST)
        except DnsUnavailable as error:
            text = f"DNS does not answer for {domain}: {error.public}"
            found, ttl = NoDestination("dns_unavailable", False, 451, "4.4.3", text), _KEEP_FAILURE
        self._keep(domain, found, ttl)
        return found

    async def _implicit(self, domain: str) -> Destination | NoDestination:
        """No MX: the domain itself, when it has an address."""
        if not (await self._resolver.addresses(domain)).records:
            return _refused("no_mail_host", "5.1.2", f"The domain {domain} has neither an MX nor an address")
        return self._site([domain], domain)

    def _from_mx(self, domain: str, records: Sequence[Mx]) -> Destination | NoDestination:
        if any(record.host in ("", ".") for record in records):
            return _refused("null_mx", "5.1.10", f"The domain {domain} takes no mail (null MX)", code=556)
        ordered: list[str] = []
        for _, same in groupby(sorted(records, key=lambda r: r.preference), key=lambda r: r.preference):
            hosts = [record.host.rstrip(".").lower() for record in same]
            if self._hostname in hosts:
                break  # RFC 5321 §5.1: hosts no better than ourselves are left out
            random.shuffle(hosts)
            ordered.extend(hosts)
        if not ordered:
            return _refused("mail_loop", "5.4.6", f"We are the best mail host of {domain} ourselves: a loop")
        return self._site(ordered[:_MOST_HOSTS], domain)

    def _site(self, hosts: Sequence[str], domain: str) -> Destination:
        route = self._routes.find(domain)
        name = f"{route.name}:{','.join(sorted(set(hosts)))}"
        return Destination(name, route, tuple((host, route.port) for host in hosts))

    def _keep(self, domain: str, found: Destination | NoDestination, seconds: float) -> None:
        self._found[domain] = found, self._clock() + int(seconds * SECOND)
        self._found.move_to_end(domain)
        while len(self._found) > _MOST_DOMAINS:
            self._found.popitem(last=False)


def _refused(cause: str, enhanced: str, text: str, *, code: int = 550) -> NoDestination:
    return NoDestination(cause, True, code, enhanced, text)
