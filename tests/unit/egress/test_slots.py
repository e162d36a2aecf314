"""Sites of several processes that share a limit of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from posthouse.clock import now
from posthouse.egress import slots as slots_module
from posthouse.egress.ceilings import lane_ceilings, shared_ceilings
from posthouse.egress.model import Destination, Kind, Route
from posthouse.egress.site import Limits, Site
from posthouse.egress.slots import Slots
from posthouse.net.tls import TlsPolicy
from posthouse.storage.bus.limits import Ask, Grant, Hold, SharedLimits
from posthouse.storage.queue.base import Lane
from tests.unit.egress.test_site import Book, Net


class Pool:
    """What all processes have of each key, first come, first served, halved under want."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, int]] = {}
        self.asked = 0
        self.cap: int | None = None


class Part(SharedLimits):
    def __init__(self, pool: Pool, name: str) -> None:
        self.pool, self.name = pool, name

    async def take(self, asks: Sequence[Ask]) -> list[Grant]:
        raise AssertionError("slots take no tokens")

    async def hold(self, holds: Sequence[Hold], ttl: float) -> list[int]:
        self.pool.asked += 1
        await asyncio.sleep(0)
        granted: list[int] = []
        for one in holds:
            held = self.pool.held.setdefault(one.key, {})
            others = sum(count for name, count in held.items() if name != self.name)
            most = one.most if self.pool.cap is None else self.pool.cap
            may = max(0, min(one.wanted, most - others))
            held[self.name] = max(may, one.in_use)
            granted.append(may)
        return granted

    async def close(self) -> None:
        pass


def _site(net: Net, slots: Slots, connections: int = 10, idle: float = 0.05) -> Site:
    route = Route("mx", Kind.MX, ("*",), TlsPolicy(), connections=connections)
    destination = Destination("mx:a", route, (("a.example", 25),))
    return Site(
        destination,
        Limits(connections, idle),
        open_connection=net.open,  # type: ignore[arg-type]
        addresses=net.addresses,
        clock=now,
        slots=slots,
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "_RENEW", 0.05)
    monkeypatch.setattr(slots_module, "_HURRY", 0.02)


async def test_two_processes_never_have_more_connections_than_the_limit() -> None:
    pool, net, book = Pool(), Net(), Book()
    parts = [Slots(Part(pool, name)) for name in ("a", "b")]
    sites = [_site(net, part) for part in parts]
    for _ in range(200):
        for site in sites:
            site.put(book.parcel(Lane.TRANSACTIONAL))
    most = 0
    net.gate.clear()
    await asyncio.sleep(0.05)
    most = sum(site.connections for site in sites)
    net.gate.set()
    async with asyncio.timeout(30):
        while len(book.attempts) < 400:
            most = max(most, sum(site.connections for site in sites))
            await asyncio.sleep(0.001)
    assert 5 < most <= 10
    assert all(attempt.delivery is not None for _, attempt in book.attempts)
    for site, part in zip(sites, parts, strict=True):
        await site.close(1)
        await part.close()
    assert sum(sum(held.values()) for held in pool.held.values()) == 0


async def test_idle_sites_give_back_and_ask_for_nothing() -> None:
    pool, net, book = Pool(), Net(), Book()
    net.gate.set()
    part = Slots(Part(pool, "a"))
    site = _site(net, part)
    site.put(book.parcel())
    await book.wait_for(1)
    async with asyncio.timeout(30):
        while site.connections or pool.held["site:mx:a"]["a"]:
            await asyncio.sleep(0.005)
    asked = pool.asked
    await asyncio.sleep(0.12)
    assert pool.asked == asked
    site.put(book.parcel())  # and again
    await book.wait_for(2)
    await site.close(1)
    await part.close()


async def test_a_smaller_share_closes_connections_after_their_message() -> None:
    pool, net, book = Pool(), Net(), Book()
    part = Slots(Part(pool, "a"))
    site = _site(net, part, idle=5)
    for _ in range(50):
        site.put(book.parcel(Lane.CRITICAL))
    async with asyncio.timeout(30):
        while site.connections < 10:
            await asyncio.sleep(0.002)
    pool.cap = 2
    net.gate.set()
    await book.wait_for(50)
    async with asyncio.timeout(30):
        while site.connections > 2:
            await asyncio.sleep(0.005)
    await site.close(1)
    await part.close()


async def test_work_for_full_connections_costs_no_asking() -> None:
    pool, net, book = Pool(), Net(), Book()
    part = Slots(Part(pool, "a"))
    site = _site(net, part, connections=4)
    for _ in range(20):
        site.put(book.parcel(Lane.CRITICAL))
    async with asyncio.timeout(30):
        while site.connections < 4:
            await asyncio.sleep(0.002)
    asked = pool.asked
    for _ in range(1000):
        site.put(book.parcel(Lane.CRITICAL))
        if _ % 100 == 0:
            await asyncio.sleep(0)
    assert pool.asked <= asked + 2
    net.gate.set()
    await book.wait_for(1020)
    await site.close(1)
    await part.close()


async def test_urgent_mail_goes_first_even_with_one_slot() -> None:
    pool, net, book = Pool(), Net(), Book()
    pool.cap = 1
    part = Slots(Part(pool, "a"))
    site = _site(net, part)
    for _ in range(5):
        site.put(book.parcel(Lane.BULK))
    async with asyncio.timeout(30):
        while not net.in_flight:
            await asyncio.sleep(0.002)
    site.put(book.parcel(Lane.CRITICAL))
    net.gate.set()
    await book.wait_for(6)
    lanes = [parcel.lane for parcel, _ in book.attempts]
    assert lanes.index(Lane.CRITICAL) == 1
    assert net.most == 1
    await site.close(1)
    await part.close()


def test_ceilings_of_few_slots() -> None:
    assert [shared_ceilings(n) for n in range(4)] == [(0, 0, 0), (1, 1, 1), (2, 2, 1), (3, 3, 2)]
    assert shared_ceilings(20) == lane_ceilings(20)
    for granted in range(200):
        critical, transactional, bulk = shared_ceilings(granted)
        assert bulk <= transactional <= critical == granted
