"""Sites of several processes that share a limit of connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

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


@asynccontextmanager
async def _opened(
    pool: Pool, net: Net, name: str = "a", connections: int = 10, idle: float = 0.05
) -> AsyncIterator[Site]:
    """The site of one process; it is closed and has given back in the end."""
    part = Slots(Part(pool, name))
    route = Route("mx", Kind.MX, ("*",), TlsPolicy(), connections=connections)
    site = Site(
        Destination("mx:a", route, (("a.example", 25),)),
        Limits(connections, idle),
        open_connection=net.open,  # type: ignore[arg-type]
        addresses=net.addresses,
        clock=now,
        slots=part,
    )
    yield site
    await site.close(1)
    await part.close()


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "_RENEW", 0.05)
    monkeypatch.setattr(slots_module, "_HURRY", 0.02)


async def test_two_processes_never_have_more_connections_than_the_limit() -> None:
    pool, net, book = Pool(), Net(), Book()
    async with _opened(pool, net, "a") as one, _opened(pool, net, "b") as two:
        for _ in range(200):
            one.put(book.parcel(Lane.TRANSACTIONAL))
            two.put(book.parcel(Lane.TRANSACTIONAL))
        net.gate.clear()
        await asyncio.sleep(0.05)
        most = one.connections + two.connections
        net.gate.set()
        async with asyncio.timeout(30):
            while len(book.attempts) < 400:
                most = max(most, one.connections + two.connections)
                await asyncio.sleep(0.001)
        assert 5 < most <= 10
        assert all(attempt.delivery is not None for _, attempt in book.attempts)
    assert sum(sum(held.values()) for held in pool.held.values()) == 0


async def test_idle_sites_give_back_and_ask_for_nothing() -> None:
    pool, net, book = Pool(), Net(), Book()
    net.gate.set()
    async with _opened(pool, net) as site:
        site.put(book.parcel())
        await book.wait_for(1)
        await _until(lambda: not site.connections and not pool.held["site:mx:a"]["a"])
        asked = pool.asked
        await asyncio.sleep(0.12)
        assert pool.asked == asked
        site.put(book.parcel())  # and again
        await book.wait_for(2)


async def test_a_smaller_share_closes_connections_after_their_message() -> None:
    pool, net, book = Pool(), Net(), Book()
    async with _opened(pool, net, idle=5) as site:
        for _ in range(50):
            site.put(book.parcel(Lane.CRITICAL))
        await _until(lambda: site.connections >= 10)
        pool.cap = 2
        net.gate.set()
        await book.wait_for(50)
        await _until(lambda: site.connections <= 2)


async def test_work_for_full_connections_costs_no_asking() -> None:
    pool, net, book = Pool(), Net(), Book()
    async with _opened(pool, net, connections=4) as site:
        for _ in range(20):
            site.put(book.parcel(Lane.CRITICAL))
        await _until(lambda: site.connections >= 4)
        asked = pool.asked
        for _ in range(1000):
            site.put(book.parcel(Lane.CRITICAL))
            if _ % 100 == 0:
                await asyncio.sleep(0)
        assert pool.asked <= asked + 2
        net.gate.set()
        await book.wait_for(1020)


async def test_urgent_mail_goes_first_even_with_one_slot() -> None:
    pool, net, book = Pool(), Net(), Book()
    pool.cap = 1
    async with _opened(pool, net) as site:
        for _ in range(5):
            site.put(book.parcel(Lane.BULK))
        await _until(lambda: net.in_flight > 0)
        site.put(book.parcel(Lane.CRITICAL))
        net.gate.set()
        await book.wait_for(6)
        lanes = [parcel.lane for parcel, _ in book.attempts]
        assert lanes.index(Lane.CRITICAL) == 1
        assert net.most == 1


def test_ceilings_of_few_slots() -> None:
    assert [shared_ceilings(n) for n in range(4)] == [(0, 0, 0), (1, 1, 1), (2, 2, 1), (3, 3, 2)]
    assert shared_ceilings(20) == lane_ceilings(20)
    for granted in range(200):
        critical, transactional, bulk = shared_ceilings(granted)
        assert bulk <= transactional <= critical == granted
