"""A site's parcels, connections and health, with connections that need no socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from posthouse.clock import SECOND, now
from posthouse.egress.model import Attempt, Destination, Kind, Parcel, Route, Target
from posthouse.egress.site import Limits, Site, lane_ceilings
from posthouse.errors import Misconfigured
from posthouse.net.tls import TlsPolicy
from posthouse.smtp.outcome import Cause, Delivery, Envelope, Failure, Peer, SessionFailed, Stage
from posthouse.smtp.reply import Reply
from posthouse.storage.queue.base import Lane

OK = Reply(250, "2.0.0", ("ok",))
PEER = Peer("mx.example", "192.0.2.1")


class FakeConnection:
    def __init__(self, net: Net) -> None:
        self.net = net
        self.reusable = True
        self.sent = 0

    async def deliver(self, envelope: Envelope, data: bytes, *, canonical: bool) -> Delivery:
        assert canonical
        self.net.in_flight += 1
        self.net.most = max(self.net.most, self.net.in_flight)
        await self.net.gate.wait()
        await asyncio.sleep(0)
        self.net.in_flight -= 1
        if self.net.fault is not None:
            raise self.net.fault
        if self.net.closes_idle and self.sent >= 1:
            self.reusable = False
            reply = Reply(451, "4.4.2", ("closed",))
            ours = frozenset(range(len(envelope.recipients)))
            failure = Failure(self.net.closes_idle, Cause.LOST, reply)
            return Delivery((reply,), None, self.net.closes_idle, PEER, ours=ours, failure=failure)
        self.sent += 1
        if self.net.one_each:
            self.reusable = False
        return Delivery((OK,) * len(envelope.recipients), OK, Stage.FINAL, PEER)

    def abort(self) -> None:
        self.reusable = False

    async def quit(self) -> None:
        self.net.quits += 1

    peer = PEER


@dataclass
class Net:
    """What the connections see, and how opening goes."""

    up: bool = True
    one_each: bool = False
    fault: Exception | None = None
    closes_idle: Stage | None = None
    opening_fault: Exception | None = None
    opened: list[Target] = field(default_factory=list)
    refused_after: int = 10_000
    in_flight: int = 0
    most: int = 0
    quits: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self, destination: Destination, target: Target) -> FakeConnection:
        await asyncio.sleep(0)
        if self.opening_fault is not None:
            raise self.opening_fault
        if not self.up or len(self.opened) >= self.refused_after:
            raise SessionFailed(Failure(Stage.CONNECT, Cause.UNREACHABLE, Reply(451, "4.4.1", ("refused",))), PEER)
        self.opened.append(target)
        return FakeConnection(self)

    async def addresses(self, destination: Destination, host: str) -> list[str]:
        return ["192.0.2.1"]


def site(net: Net, connections: int = 10, idle: float = 0.05) -> Site:
    route = Route("mx", Kind.MX, ("*",), TlsPolicy(), connections=connections)
    destination = Destination("mx:a,b", route, (("a.example", 25), ("b.example", 25)))
    return Site(
        destination,
        Limits(connections, idle),
        open_connection=net.open,
        addresses=net.addresses,
        clock=now,  # type: ignore[arg-type]
    )


class Book:
    """Settled parcels; `hold` keeps settling from ending, as storage that is away would."""

    def __init__(self) -> None:
        self.attempts: list[tuple[Parcel, Attempt]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def settle(self, parcel: Parcel, attempt: Attempt) -> None:
        self.attempts.append((parcel, attempt))
        await self.hold.wait()

    def parcel(self, lane: Lane = Lane.TRANSACTIONAL, deadline: int | None = None) -> Parcel:
        return Parcel(lane, "s@a.example", ("r@b.example",), b"x", False, deadline or now() + 60 * SECOND, self.settle)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.attempts) < count:
                await asyncio.sleep(0.002)


async def test_parcels_are_delivered_over_reused_connections() -> None:
    net, book = Net(), Book()
    net.gate.set()
    one = site(net, connections=4)
    for _ in range(50):
        one.put(book.parcel())
    await book.wait_for(50)
    assert all(attempt.delivery is not None for _, attempt in book.attempts)
    assert len(net.opened) <= 4
    await one.close(1)


async def test_no_more_connections_than_the_limit_and_each_lane_keeps_some() -> None:
    net, book = Net(), Book()
    one = site(net, connections=10)
    for _ in range(100):
        one.put(book.parcel(Lane.BULK))
    await asyncio.sleep(0.05)
    bulk = len(net.opened)
    assert bulk == lane_ceilings(10)[Lane.BULK] == 6
    for _ in range(100):
        one.put(book.parcel(Lane.TRANSACTIONAL))
    await asyncio.sleep(0.05)
    assert len(net.opened) == lane_ceilings(10)[Lane.TRANSACTIONAL] == 8
    one.put(book.parcel(Lane.CRITICAL))
    await asyncio.sleep(0.05)
    assert len(net.opened) == 9
    net.gate.set()
    await book.wait_for(201)
    await one.close(1)


async def test_the_next_message_waits_until_the_last_outcome_is_recorded() -> None:
    """The promise: at most one message of a connection is sent and not recorded."""
    net, book = Net(), Book()
    net.gate.set()
    book.hold.clear()
    one = site(net, connections=3)
    for _ in range(20):
        one.put(book.parcel())
    await asyncio.sleep(0.05)
    assert len(book.attempts) == len(net.opened) == lane_ceilings(3)[Lane.TRANSACTIONAL]
    book.hold.set()
    await book.wait_for(20)
    await one.close(1)


async def test_a_site_that_cannot_be_reached_is_suspended_and_gives_all_back() -> None:
    net, book = Net(up=False), Book()
    one = site(net)
    for _ in range(30):
        one.put(book.parcel())
    await book.wait_for(30)
    assert one.suspended_until > now()
    assert {attempt.cause for _, attempt in book.attempts} == {"site_unreachable"}
    assert all(
        attempt.delivery is None and attempt.site_retry_at == one.suspended_until for _, attempt in book.attempts
    )
    one.put(book.parcel())
    await book.wait_for(31)
    assert not net.opened


async def test_a_refused_further_connection_does_not_suspend_the_site() -> None:
    net, book = Net(refused_after=1), Book()
    one = site(net, connections=8)
    one.put(book.parcel())
    await asyncio.sleep(0.02)
    for _ in range(10):
        one.put(book.parcel())
    await asyncio.sleep(0.02)
    net.gate.set()
    await book.wait_for(11)
    assert one.suspended_until == 0
    assert all(attempt.delivery is not None for _, attempt in book.attempts)
    await one.close(1)


async def test_a_parcel_past_its_deadline_is_not_sent() -> None:
    net, book = Net(), Book()
    net.gate.set()
    one = site(net)
    one.put(book.parcel(deadline=now() - 1))
    await book.wait_for(1)
    assert book.attempts[0][1].cause == "too_late"
    assert book.attempts[0][1].delivery is None
    await one.close(1)


async def test_a_connection_that_ends_is_replaced() -> None:
    net, book = Net(one_each=True), Book()
    net.gate.set()
    one = site(net, connections=2)
    for _ in range(12):
        one.put(book.parcel())
    await book.wait_for(12)
    assert len(net.opened) == 12
    await one.close(1)


async def test_idle_connections_are_closed() -> None:
    net, book = Net(), Book()
    net.gate.set()
    one = site(net, idle=0.02)
    one.put(book.parcel())
    await book.wait_for(1)
    await asyncio.sleep(0.15)
    assert (one.connections, net.quits) == (0, 1)


async def test_close_finishes_what_is_in_flight_and_drops_what_waits() -> None:
    net, book = Net(), Book()
    one = site(net, connections=3)
    for _ in range(10):
        one.put(book.parcel())
    await asyncio.sleep(0.02)
    closing = asyncio.ensure_future(one.close(2))
    await asyncio.sleep(0.02)
    net.gate.set()
    await closing
    assert 1 <= len(book.attempts) <= 3
    assert one.connections == 0


async def test_idle_connections_of_one_lane_work_for_another_within_its_ceiling() -> None:
    """A burst in one lane left its connections idle, and the others waited until they closed."""
    net, book = Net(), Book()
    net.gate.set()
    one = site(net, connections=10, idle=60)
    for _ in range(60):
        one.put(book.parcel(Lane.CRITICAL))
    await book.wait_for(60)
    assert len(net.opened) == 10
    net.gate.clear()
    net.most = 0
    for _ in range(40):
        one.put(book.parcel(Lane.BULK))
    await asyncio.sleep(0.05)
    assert net.in_flight == lane_ceilings(10)[Lane.BULK]
    for _ in range(40):
        one.put(book.parcel(Lane.TRANSACTIONAL))
    await asyncio.sleep(0.05)
    assert net.in_flight == lane_ceilings(10)[Lane.TRANSACTIONAL]
    one.put(book.parcel(Lane.CRITICAL))
    await asyncio.sleep(0.05)
    assert net.in_flight == lane_ceilings(10)[Lane.TRANSACTIONAL] + 1
    net.gate.set()
    await book.wait_for(141)
    assert len(net.opened) == 10
    await one.close(1)


async def test_an_urgent_parcel_goes_over_the_only_connection_that_a_peer_allows() -> None:
    net, book = Net(refused_after=1), Book()
    one = site(net, connections=10, idle=60)
    for _ in range(20):
        one.put(book.parcel(Lane.BULK))
    await asyncio.sleep(0.02)
    one.put(book.parcel(Lane.CRITICAL))
    await asyncio.sleep(0.02)
    net.gate.set()
    await book.wait_for(21)
    assert all(attempt.delivery is not None for _, attempt in book.attempts)
    assert book.attempts[1][0].lane == Lane.CRITICAL
    await one.close(1)


async def test_what_goes_wrong_on_our_side_while_opening_is_a_site_that_is_away() -> None:
    net, book = Net(opening_fault=Misconfigured("no such CA file")), Book()
    one = site(net)
    for _ in range(5):
        one.put(book.parcel())
    await book.wait_for(5)
    assert one.suspended_until > now()
    assert all("CA file" in attempt.detail for _, attempt in book.attempts)
    await one.close(1)


async def test_a_delivery_that_raises_is_a_failed_attempt() -> None:
    net, book = Net(fault=UnicodeEncodeError("ascii", "ü", 0, 1, "no")), Book()
    net.gate.set()
    one = site(net)
    one.put(book.parcel())
    await book.wait_for(1)
    delivery = book.attempts[0][1].delivery
    assert delivery is not None
    assert delivery.ours == {0}
    assert delivery.failure is not None
    assert not delivery.replies[0].permanent
    net.fault = None
    one.put(book.parcel())
    await book.wait_for(2)
    assert len(net.opened) == 2, "the connection was not used again"
    await one.close(1)


@pytest.mark.parametrize(("stage", "delivered"), [(Stage.MAIL, True), (Stage.RCPT, False)])
async def test_a_connection_that_the_peer_closed_meanwhile_costs_no_attempt(stage: Stage, delivered: bool) -> None:
    """As long as the peer has seen nothing of the message: then a new one is opened at once."""
    net, book = Net(closes_idle=stage), Book()
    net.gate.set()
    one = site(net, idle=5)
    one.put(book.parcel())
    await book.wait_for(1)
    one.put(book.parcel())
    await book.wait_for(2)
    delivery = book.attempts[1][1].delivery
    assert delivery is not None
    assert (delivery.failure is None) == delivered
    assert len(net.opened) == 1 + delivered
    await one.close(1)


async def test_a_site_where_parcels_grow_stale_is_given_fewer() -> None:
    """Each of them was rendered in vain."""
    net, book = Net(), Book()
    net.gate.set()
    one = site(net, connections=3)
    assert one.room(Lane.BULK) == 256
    for _ in range(20):
        one.put(book.parcel(Lane.BULK, deadline=now() - 1))
    await book.wait_for(20)
    assert one.room(Lane.BULK) == 16
    for _ in range(40):
        one.put(book.parcel(Lane.BULK))
    await book.wait_for(60)
    assert one.room(Lane.BULK) >= 56
    await one.close(1)
