"""The demo's DNS, asked by the resolver that the server uses."""

from __future__ import annotations

from collections.abc import Iterator

import dns.exception
import pytest

from posthouse.cli.demo.dns import Dns, quoted
from posthouse.net.dns import Mx, Resolver


@pytest.fixture
def dns_server() -> Iterator[Dns]:
    with Dns() as server:
        server.publish("example.com", "MX", "10 mx.example.com")
        server.publish("mx.example.com", "A", "127.0.0.1")
        server.publish("1.0.0.127.in-addr.arpa", "PTR", "mx.example.com")
        server.publish("key._domainkey.example.com", "TXT", quoted("v=DKIM1; p=" + "A" * 400))
        yield server


def _resolver(server: Dns) -> Resolver:
    host, _, port = server.address.partition(":")
    return Resolver([(host, int(port))], lifetime=5.0)


async def test_what_is_published_is_found(dns_server: Dns) -> None:
    resolver = _resolver(dns_server)
    assert (await resolver.mx("example.com")).records == (Mx(10, "mx.example.com"),)
    assert (await resolver.addresses("mx.example.com")).records == ("127.0.0.1",)
    assert (await resolver.ptr("127.0.0.1")).records == ("mx.example.com",)
    assert (await resolver.txt("key._domainkey.example.com")).records == (b"v=DKIM1; p=" + b"A" * 400,)


async def test_what_is_not_there_is_known_not_to_be_and_remembered(dns_server: Dns) -> None:
    resolver = _resolver(dns_server)
    missing = await resolver.txt("nobody.example.com")
    assert missing.nxdomain
    assert missing.ttl > 0
    empty = await resolver.txt("_domainkey.example.com")
    assert not empty.nxdomain, "a name stands below it"
    assert not empty.records
    await resolver.txt("nobody.example.com")
    assert resolver.counts.hits == 1


async def test_nonsense_is_passed_over(dns_server: Dns) -> None:
    with pytest.raises(dns.exception.DNSException):
        dns_server.answer(b"\0" * 5)
    dns_server.publish("example.com", "MX", "20 other.example.com")
    assert (await _resolver(dns_server).mx("example.com")).records == (Mx(20, "other.example.com"),)
