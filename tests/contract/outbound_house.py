"""The sending flow wired as the server wires it, over given records, with peers made of a dict."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from posthouse import clock as clocks
from posthouse.accounts.model import ALL_SCOPES, Caller, Limits
from posthouse.accounts.service import Accounts
from posthouse.accounts.streams import Streams
from posthouse.clock import SECOND
from posthouse.domains.records import Sender
from posthouse.domains.service import Domains
from posthouse.egress.destinations import Destinations
from posthouse.egress.model import Destination, Kind, Route, Target
from posthouse.egress.routes import Routes
from posthouse.egress.sites import Sites
from posthouse.events.handover import RELAY, Handover
from posthouse.net.dns import Resolver
from posthouse.net.tls import TlsPolicy
from posthouse.outbound import Outbound, Render, Send, Submit
from posthouse.outbound.check import Bounds
from posthouse.outbound.compose import Compose
from posthouse.outbound.flow import Flow
from posthouse.outbound.model import MessageDraft
from posthouse.outbound.prepare import Prepare, Specs
from posthouse.outbound.relay import Relay
from posthouse.outbound.settle import Outcome, Recorder
from posthouse.outbound.submit import RENDER
from posthouse.outbound.verdict import RetryPolicy
from posthouse.rendering.pool import RenderPool
from posthouse.rendering.process import Setup
from posthouse.seal import Seal
from posthouse.smtp.outcome import Delivery, Envelope, Peer, Stage
from posthouse.smtp.reply import Reply
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx
from posthouse.suppression.service import Suppressions
from posthouse.templates.service import Templates
from posthouse.worker import Worker

DOMAIN = "a.example"


class Time:
    """The real time, moved on."""

    ahead = 0

    def __call__(self) -> int:
        return clocks.now() + self.ahead


@dataclass
class Peers:
    """What each address is answered at RCPT, else 250; what came, by address."""

    answers: dict[str, Reply] = field(default_factory=dict)
    got: Counter[str] = field(default_factory=Counter)
    data: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self, destination: Destination, target: Target) -> Any:
        return _Connection(self, target)


class _Connection:
    reusable = True

    def __init__(self, peers: Peers, target: Target) -> None:
        self._peers = peers
        self.peer = Peer(target.host, target.ip)

    async def deliver(self, envelope: Envelope, data: bytes, *, canonical: bool) -> Delivery:
        await self._peers.gate.wait()
        final = Reply(250, "2.0.0", ("taken",))
        replies = tuple(self._peers.answers.get(one, final) for one in envelope.recipients)
        self._peers.got.update(one for one, reply in zip(envelope.recipients, replies, strict=True) if reply.ok)
        self._peers.data.append(data)
        self._peers.paths.append(envelope.reverse_path)
        return Delivery(replies, final, Stage.FINAL, self.peer)

    def abort(self) -> None:
        self.reusable = False

    async def quit(self) -> None: ...


class House:
    """`outbound` for a tenant with the domain `DOMAIN`; `work()` runs the stages."""

    def __init__(self, records: Records, directory: Path) -> None:
        self.records = records
        self.directory = directory
        self.clock = Time()
        self.peers = Peers()
        self.peers.gate.set()
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self, *, tenant: str = "one") -> House:
        records, clock = self.records, self.clock
        options = {"url": f"file://{self.directory / 'blobs'}"}
        self.blobs = await open_blobs(**options)
        self.queue = RecordsQueue(records, clock=clock)
        self.accounts = Accounts(records, clock)
        self.streams = Streams(records, clock)
        self.templates = Templates(records, clock)
        resolver = Resolver([("127.0.0.1", 9)], timeout=0.1, lifetime=0.1)
        seal, sender = Seal([bytes(32)]), Sender("mail.test", "a:mail.test")
        self.domains = Domains(records, clock, seal=seal, resolver=resolver, sender=sender)
        self.suppressions = Suppressions(records, clock)
        self.pool = RenderPool(Setup(options), 1)
        route = Route("to", Kind.STATIC, ("*",), TlsPolicy(), (("127.0.0.1", 25),), connections=4)
        other = Route("other", Kind.STATIC, ("c.example",), TlsPolicy(), (("127.0.0.2", 25),), connections=4)
        destinations = Destinations(
            Routes([other, route], route), resolver, hostname="me.test", private_addresses=True, clock=clock
        )
        self.sites = Sites(open_connection=self.peers.open, addresses=destinations.addresses, idle=0.05, clock=clock)
        self._wire(destinations)
        self.caller = await self.tenant(tenant)
        return self

    def _wire(self, destinations: Destinations) -> None:
        self.destinations = destinations
        records, clock, queue, retry = self.records, self.clock, self.queue, RetryPolicy()

        async def run(jobs: Sequence[Job]) -> None:
            await flow(jobs)

        self.worker = Worker(
            RENDER, queue, run, room=dict.fromkeys(Lane, 100), batch=50, lease=60, poll=0.05, clock=clock
        )
        self.recorder = Recorder(
            records,
            queue,
            _unsuppressing,
            current=self.worker.current,
            release=self.worker.release,
            leases=self.worker.leases,
            relayed=self._relayed,
        )
        specs = Specs(self.blobs)
        self.contents = Contents(records, self.blobs, small=1000, clock=clock)
        self.render = Render(self.templates, self.domains, self.pool, self.contents, clock)
        prepare = Prepare(records, specs, self.suppressions, destinations, self.sites, self.recorder, retry, clock)
        flow = Flow(
            prepare,
            self.render,
            Send(self.recorder, retry, clock, lease_end=lambda job: self.worker.current(job).due_at),
        )
        self.reported: list[tuple[str, str | None]] = []

        async def relay(jobs: Sequence[Job]) -> None:
            await self.relay(jobs)

        self.relayer = Worker(
            RELAY, queue, relay, room=dict.fromkeys(Lane, 100), batch=50, lease=60, poll=0.05, clock=clock
        )
        self.relay = Relay(
            records,
            queue,
            self.streams,
            self.contents,
            wake=self.worker.wake,
            current=self.relayer.current,
            release=self.relayer.release,
            clock=clock,
            report=self._report,
        )
        self.submit = Submit(records, queue, self.worker.wake, clock)
        self.outbound = Outbound(
            records,
            queue,
            self.streams,
            Compose(records, self.blobs, self.templates, self.domains, clock),
            self.submit,
            self.render,
            specs,
            Bounds(recipients=10, batch=20, fan_out=50, attachments=100_000),
            clock,
            in_flight=self.worker.holds if records.capabilities.exclusive else None,
        )

    async def _relayed(self, tx: Tx, ended: Sequence[str], failed: Sequence[Outcome]) -> None:
        await self.relay.settled(tx, ended, failed)

    async def _report(self, tx: Tx, failed: Sequence[tuple[Outcome, Handover]]) -> None:
        self.reported.extend((outcome.due.address, one.report_to) for outcome, one in failed)

    async def tenant(self, name: str, quota: int = 0) -> Caller:
        made = await self.accounts.create_tenant(name, Limits(daily_quota=quota))
        await self.domains.create(made.id, DOMAIN)
        return Caller(made, "key_test", frozenset(ALL_SCOPES))

    def work(self) -> None:
        self.tasks += [asyncio.create_task(worker.run()) for worker in (self.worker, self.relayer)]

    async def rest(self) -> None:
        """What a graceful stop does."""
        self.worker.stop()
        self.relayer.stop()
        await self.sites.close(5)
        await self.recorder.drain(5)
        await asyncio.gather(*self.tasks)
        await self.worker.hand_back_all()

    async def close(self) -> None:
        await self.rest()
        await self.pool.close()
        await self.blobs.close()

    async def message(self, **changes: Any) -> str:
        """Sends one; its id."""
        return msgspec.json.decode((await self.outbound.send(self.caller, draft(**changes), idempotency=None)).body)[
            "id"
        ]

    async def states(self, message_id: str) -> dict[str, str]:
        view = await self.outbound.get(self.caller, message_id)
        return {one.address: one.status for one in view.recipients}

    async def settled(self, message_id: str, *states: str) -> None:
        """Until its recipients are in these states."""
        async with asyncio.timeout(20):
            while sorted((await self.states(message_id)).values()) != sorted(states):
                await asyncio.sleep(0.02)

    async def count(self, table: str) -> int:
        async def work(tx: Tx) -> int:
            row = await tx.row(f"SELECT count(*) FROM {table}")
            assert row is not None
            return row[0]

        return await self.records.read(work)


async def _unsuppressing(tx: Tx, outcomes: Sequence[Outcome]) -> None: ...


def draft(**changes: Any) -> MessageDraft:
    given: dict[str, Any] = {
        "from_": f"Ann <ann@{DOMAIN}>",
        "to": ["bob@b.example"],
        "subject": "Hi",
        "text": "Hello",
    }
    return MessageDraft(**{**given, **changes})


def at(clock: Time, seconds: float) -> Any:
    """A `send_at` so far ahead."""
    return clocks.to_datetime(clock() + int(seconds * SECOND))
