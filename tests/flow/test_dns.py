from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse.errors import DnsUnavailable
from posthouse.net.dns import Mx, Resolver

sys.path.insert(0, str(Path(__file__).parent))
from dns_server import DnsServer

ZONES = {
    "example.com": {"MX": ["20 b.example.com.", "10 A.example.com."], "TXT": ['"v=spf1 " "-all"', '"\\255"']},
    "a.example.com": {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": ["2001:db8::1"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["A.example.com.", "b.example.com."]},
    f"1.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa": {"PTR": ["a.example.com."]},
    "b.example.com": {"A": ["192.0.2.3"]},
    "alias.example": {"CNAME": ["a.example.com."]},
    "null.example": {"MX": ["0 ."]},
    "broken.example": "SERVFAIL",
    "silent.example": "DROP",
    "xn--bcher-kva.example": {"MX": ["0 mx.xn--bcher-kva.example."]},
    "big.example": {"TXT": [f'"{"x" * 200}"'] * 1 + [f'"{index}{"y" * 200}"' for index in range(20)]},
}


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer(ZONES, truncated=frozenset({"big.example"})) as server:
        yield server


def resolver(server: DnsServer, clock: Time | None = None, **options: float) -> Resolver:
    settings = {"timeout": 0.2, "lifetime": 0.5, **options}
    return Resolver([server.nameserver], monotonic=clock or Time(), **settings)  # type: ignore[arg-type]


async def test_mx_by_preference(server: DnsServer) -> None:
    answer = await resolver(server).mx("Example.COM.")
    assert answer.records == (Mx(10, "a.example.com"), Mx(20, "b.example.com"))
    assert answer.ttl == 300
    assert not answer.nxdomain


async def test_null_mx_is_an_empty_host(server: DnsServer) -> None:
    assert (await resolver(server).mx("null.example")).records == (Mx(0, ""),)


async def test_one_family_at_a_time(server: DnsServer) -> None:
    dns = resolver(server)
    assert sorted((await dns.a("alias.example")).records) == ["192.0.2.1", "192.0.2.2"]
    assert (await dns.aaaa("a.example.com")).records == ("2001:db8::1",)
    nothing = await dns.aaaa("b.example.com")
    assert (nothing.records, nothing.nxdomain) == ((), False)
    assert (await dns.a("none.example")).nxdomain
    with pytest.raises(DnsUnavailable):
        await dns.a("broken.example")


async def test_names_of_addresses(server: DnsServer) -> None:
    dns = resolver(server)
    assert sorted((await dns.ptr("192.0.2.1")).records) == ["a.example.com", "b.example.com"]
    assert (await dns.ptr("2001:db8::1")).records == ("a.example.com",)
    assert (await dns.ptr("192.0.2.9")).nxdomain
    assert (await dns.ptr("no address")).nxdomain


async def test_addresses_of_both_families(server: DnsServer) -> None:
    dns = resolver(server)
    for host in ("a.example.com", "alias.example"):
        records = (await dns.addresses(host)).records
        assert set(records[:2]) == {"192.0.2.1", "192.0.2.2"}
        assert records[2:] == ("2001:db8::1",)
    assert (await dns.addresses("b.example.com")).records == ("192.0.2.3",)
    assert (await dns.addresses("192.0.2.9")).records == ("192.0.2.9",)
    assert (await dns.addresses("2001:DB8::9")).records == ("2001:db8::9",)
    assert (await dns.addresses("none.example")).nxdomain
    none = await dns.addresses("example.com")
    assert none.records == ()
    assert not none.nxdomain


async def test_txt_strings_are_joined(server: DnsServer) -> None:
    assert set((await resolver(server).txt("example.com")).records) == {b"v=spf1 -all", b"\xff"}


async def test_names_that_are_not_ascii(server: DnsServer) -> None:
    assert (await resolver(server).mx("bücher.example")).records[0].host == "mx.xn--bcher-kva.example"


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "a..b", "\ud800.example", ".".join(["a" * 60] * 5)])
async def test_impossible_names_do_not_exist(server: DnsServer, name: str) -> None:
    assert (await resolver(server).mx(name)).nxdomain
    assert server.queries == []


async def test_truncated_answers_come_over_tcp(server: DnsServer) -> None:
    assert len((await resolver(server).txt("big.example")).records) == 21


async def test_no_name_no_data_and_no_answer_are_told_apart(server: DnsServer) -> None:
    dns = resolver(server)
    assert (await dns.mx("none.example")).nxdomain
    empty = await dns.mx("a.example.com")
    assert empty.records == ()
    assert not empty.nxdomain
    for name in ("broken.example", "silent.example"):
        with pytest.raises(DnsUnavailable):
            await dns.mx(name)
        with pytest.raises(DnsUnavailable):
            await dns.addresses(name)


async def test_answers_are_kept_for_their_ttl(server: DnsServer) -> None:
    clock = Time()
    dns = resolver(server, clock)
    await dns.mx("example.com")
    clock.now += 299
    await dns.mx("EXAMPLE.com")
    assert len(server.queries) == 1
    clock.now += 2
    await dns.mx("example.com")
    assert len(server.queries) == 2
    assert (dns.counts.hits, dns.counts.misses) == (1, 2)


async def test_negative_answers_are_kept_as_the_soa_says(server: DnsServer) -> None:
    clock = Time()
    dns = resolver(server, clock)
    for name in ("none.example", "a.example.com"):
        server.queries.clear()
        await dns.mx(name)
        clock.now += 59
        await dns.mx(name)
        assert len(server.queries) == 1
        clock.now += 2
        await dns.mx(name)
        assert len(server.queries) == 2


async def test_one_question_is_asked_once(server: DnsServer) -> None:
    dns = resolver(server)
    answers = await asyncio.gather(*(dns.mx("example.com") for _ in range(50)))
    assert len({answer.records for answer in answers}) == 1
    assert server.queries == [("example.com", "MX")]


async def test_a_cancelled_asker_does_not_stop_the_others(server: DnsServer) -> None:
    dns = resolver(server)
    first = asyncio.create_task(dns.mx("example.com"))
    second = asyncio.create_task(dns.mx("example.com"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).records
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_cache_is_bounded(server: DnsServer) -> None:
    dns = resolver(server, capacity=2)
    for name in ("example.com", "null.example", "example.com", "a.example.com"):
        await dns.mx(name)
    server.queries.clear()
    await dns.mx("example.com")
    assert server.queries == []
    await dns.mx("null.example")
    assert server.queries == [("null.example", "MX")]


async def test_an_old_answer_serves_while_dns_is_dead(server: DnsServer) -> None:
    clock = Time()
    dns = resolver(server, clock, stale=1000)
    await dns.mx("example.com")
    server.silent = True
    clock.now += 400
    answer = await dns.mx("example.com")
    assert answer.stale
    assert answer.records
    clock.now += 1000
    with pytest.raises(DnsUnavailable):
        await dns.mx("example.com")


async def test_failures_are_remembered_briefly(server: DnsServer) -> None:
    clock = Time()
    dns = resolver(server, clock)
    for _ in range(3):
        with pytest.raises(DnsUnavailable):
            await dns.mx("broken.example")
    asked = len(server.queries)
    server.zones["broken.example"] = {"MX": ["5 mx.example."]}
    clock.now += 3
    assert (await dns.mx("broken.example")).records
    assert len(server.queries) == asked + 1


async def test_the_next_server_is_asked(server: DnsServer) -> None:
    async with DnsServer({}) as dead:
        dead.silent = True
        dns = Resolver([dead.nameserver, server.nameserver], timeout=0.2, lifetime=3)
        assert (await dns.mx("example.com")).records


async def test_garbage_is_no_answer() -> None:
    class Garbage(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data[:2] + b"\xff" * 40, addr)  # type: ignore[attr-defined]

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Garbage, local_addr=("127.0.0.1", 0))
    try:
        dns = Resolver([transport.get_extra_info("sockname")], timeout=0.1, lifetime=0.3)
        with pytest.raises(DnsUnavailable):
            await dns.mx("example.com")
    finally:
        transport.close()


class Shelf:
    """What several processes share."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[bytes, float]] = {}

    async def get(self, key: str) -> tuple[bytes, float] | None:
        return self.held.get(key)

    def put(self, key: str, value: bytes, seconds: float) -> None:
        self.held[key] = value, seconds


async def test_what_one_process_asked_another_need_not(server: DnsServer) -> None:
    shelf = Shelf()
    one, two = (Resolver([server.nameserver], monotonic=Time(), shelf=shelf) for _ in range(2))
    for name in ("example.com", "b.example.com", "nobody.example"):
        assert await one.txt(name) == await two.txt(name)
        assert await one.a(name) == await two.a(name)
    assert (one.counts.shared, two.counts.shared) == (0, len(shelf.held))
    assert two.counts.shared >= 2
    asked = len(shelf.held)
    await one.mx("example.com")
    with pytest.raises(DnsUnavailable):
        await Resolver([server.nameserver], timeout=0.1, lifetime=0.2, shelf=shelf).txt("broken.example")
    assert len(shelf.held) == asked, "neither other kinds nor failures"


async def test_an_answer_from_the_shelf_ages_there(server: DnsServer) -> None:
    shelf, clock = Shelf(), Time()
    await Resolver([server.nameserver], shelf=shelf).a("b.example.com")
    shelf.held["A b.example.com"] = shelf.held["A b.example.com"][0], 5.0
    one = Resolver([server.nameserver], monotonic=clock, shelf=shelf)
    await one.a("b.example.com")
    clock.now += 6
    del shelf.held["A b.example.com"]
    await one.a("b.example.com")
    assert (one.counts.misses, one.counts.shared) == (2, 1)


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x94\x91\x01\xc2\x01\xc2", b"[]", b"\x90"])
async def test_nonsense_on_the_shelf_is_a_miss(server: DnsServer, value: bytes) -> None:
    shelf = Shelf()
    shelf.held["A b.example.com"] = value, 60.0
    one = Resolver([server.nameserver], shelf=shelf)
    assert (await one.a("b.example.com")).records == ("192.0.2.3",)
