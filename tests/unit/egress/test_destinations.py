"""MX selection (RFC 5321 §5.1), null MX (RFC 7505), loops, DNS that is down."""

from __future__ import annotations

import asyncio

import pytest

from posthouse.clock import SECOND
from posthouse.egress.destinations import Destinations
from posthouse.egress.model import Destination, Kind, NoDestination, Route
from posthouse.egress.routes import Routes
from posthouse.errors import DnsUnavailable
from posthouse.net.dns import Answer, Mx
from posthouse.net.tls import TlsPolicy


class Dns:
    """A resolver over dicts; counts its questions."""

    def __init__(self, mx: dict[str, list[tuple[int, str]]], hosts: dict[str, list[str]] | None = None) -> None:
        self.mx_records = mx
        self.hosts = hosts or {}
        self.asked = 0
        self.down = False

    async def mx(self, domain: str) -> Answer[Mx]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise DnsUnavailable("time-out")
        if domain not in self.mx_records:
            return Answer((), nxdomain=True, ttl=300)
        return Answer(tuple(Mx(p, h) for p, h in self.mx_records[domain]), ttl=300)

    async def addresses(self, host: str) -> Answer[str]:
        return Answer(tuple(self.hosts.get(host, ())), ttl=300)


class Time:
    now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


def destinations(dns: Dns, *routes: Route, private: bool = False, time: Time | None = None) -> Destinations:
    default = Route("mx", Kind.MX, ("*",), TlsPolicy())
    return Destinations(
        Routes(routes, default), dns, hostname="me.example", private_addresses=private, clock=time or Time()
    )


async def test_hosts_come_in_order_of_preference() -> None:
    found = await destinations(Dns({"a.example": [(20, "two.example"), (10, "one.example")]})).locate("a.example")
    assert isinstance(found, Destination)
    assert found.hosts == (("one.example", 25), ("two.example", 25))


async def test_equal_preferences_are_shuffled() -> None:
    dns = Dns({f"d{n}.example": [(10, f"mx{i}.example") for i in range(5)] for n in range(20)})
    where = destinations(dns)
    firsts = set()
    for n in range(20):
        found = await where.locate(f"d{n}.example")
        assert isinstance(found, Destination)
        firsts.add(found.hosts[0])
    assert len(firsts) > 1


async def test_domains_with_the_same_hosts_are_one_site() -> None:
    where = destinations(
        Dns({"a.example": [(1, "x.example"), (2, "y.example")], "b.example": [(5, "y.example"), (5, "x.example")]})
    )
    one, two = await where.locate("a.example"), await where.locate("b.example")
    assert isinstance(one, Destination)
    assert isinstance(two, Destination)
    assert one.site == two.site


@pytest.mark.parametrize(
    ("mx", "cause", "enhanced"),
    [
        ([(0, "")], "null_mx", "5.1.10"),
        ([(10, "me.example"), (20, "other.example")], "mail_loop", "5.4.6"),
        ([], "no_mail_host", "5.1.2"),
    ],
)
async def test_refused_for_good(mx: list[tuple[int, str]], cause: str, enhanced: str) -> None:
    found = await destinations(Dns({"a.example": mx})).locate("a.example")
    assert isinstance(found, NoDestination)
    assert (found.permanent, found.cause, found.enhanced) == (True, cause, enhanced)


async def test_no_such_domain() -> None:
    found = await destinations(Dns({})).locate("gone.example")
    assert isinstance(found, NoDestination)
    assert (found.permanent, found.enhanced) == (True, "5.1.2")


async def test_without_mx_the_domain_itself_is_the_host() -> None:
    found = await destinations(Dns({"a.example": []}, {"a.example": ["192.0.2.1"]})).locate("a.example")
    assert isinstance(found, Destination)
    assert found.hosts == (("a.example", 25),)


async def test_hosts_no_better_than_ourselves_are_left_out() -> None:
    mx = [(10, "better.example"), (20, "me.example"), (20, "equal.example"), (30, "worse.example")]
    found = await destinations(Dns({"a.example": mx})).locate("a.example")
    assert isinstance(found, Destination)
    assert found.hosts == (("better.example", 25),)


async def test_dns_that_is_down_is_for_now_and_asked_again_soon() -> None:
    dns, time = Dns({"a.example": [(1, "x.example")]}), Time()
    dns.down = True
    where = destinations(dns, time=time)
    found = await where.locate("a.example")
    assert isinstance(found, NoDestination)
    assert (found.permanent, found.enhanced) == (False, "4.4.3")
    dns.down = False
    time.now += 31 * SECOND
    assert isinstance(await where.locate("a.example"), Destination)


async def test_concurrent_questions_are_asked_once() -> None:
    dns = Dns({"a.example": [(1, "x.example")]})
    where = destinations(dns)
    await asyncio.gather(*(where.locate("a.example") for _ in range(20)))
    assert dns.asked == 1
    assert where.known("a.example") is not None


async def test_an_mx_may_not_lie_on_a_private_address_unless_allowed() -> None:
    dns = Dns({"a.example": [(1, "x.example")]}, {"x.example": ["127.0.0.1", "10.0.0.1", "9.9.9.9"]})
    strict, free = destinations(dns), destinations(dns, private=True)
    found = await strict.locate("a.example")
    assert isinstance(found, Destination)
    assert list(await strict.addresses(found, "x.example")) == ["9.9.9.9"]
    assert set(await free.addresses(found, "x.example")) == {"127.0.0.1", "10.0.0.1", "9.9.9.9"}


async def test_only_private_addresses_is_no_address() -> None:
    dns = Dns({"a.example": [(1, "x.example")]}, {"x.example": ["169.254.1.1"]})
    where = destinations(dns)
    found = await where.locate("a.example")
    assert isinstance(found, Destination)
    with pytest.raises(DnsUnavailable):
        await where.addresses(found, "x.example")


async def test_fixed_routes_need_no_dns() -> None:
    dns = Dns({})
    dns.down = True
    fixed = Route("relay-1", Kind.RELAY, ("*",), TlsPolicy(), (("127.0.0.1", 2525),))
    found = destinations(dns, fixed).known("anything.example")
    assert isinstance(found, Destination)
    assert found.hosts == (("127.0.0.1", 2525),)
    assert dns.asked == 0


async def test_an_address_literal_is_its_own_host() -> None:
    found = destinations(Dns({})).known("[192.0.2.7]")
    assert isinstance(found, Destination)
    assert found.hosts == (("192.0.2.7", 25),)
