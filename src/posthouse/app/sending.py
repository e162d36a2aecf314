"""The sending flow, wired: what the API knows of it, and the stages behind the queue."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from posthouse.accounts.service import Accounts
from posthouse.accounts.streams import Streams
from posthouse.app import values
from posthouse.app.ahead import Accepting, accepting, gather
from posthouse.app.storage import Storage
from posthouse.clock import Clock
from posthouse.config import Settings
from posthouse.domains.records import Sender
from posthouse.domains.service import Domains
from posthouse.egress.destinations import Destinations
from posthouse.egress.opening import Opener
from posthouse.egress.sites import Sites
from posthouse.egress.slots import Slots
from posthouse.events.handover import RELAY
from posthouse.net.dns import Resolver
from posthouse.outbound import Render, Send
from posthouse.outbound.flow import Flow
from posthouse.outbound.prepare import Prepare, Specs
from posthouse.outbound.relay import Relay
from posthouse.outbound.report import Report
from posthouse.outbound.settle import Outcome, Recorder
from posthouse.outbound.submit import RENDER
from posthouse.rendering.pool import RenderPool
from posthouse.rendering.process import Setup
from posthouse.seal import load_or_create
from posthouse.storage.bus.base import Bus
from posthouse.storage.bus.invalidation import Invalidation
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.records.base import Records, Tx
from posthouse.suppression.model import Entry, Reason
from posthouse.suppression.service import Suppressions
from posthouse.templates.service import Templates
from posthouse.worker import Worker

_RELAYED = 256
"""Received messages on their way to the sending flow, at once."""


@dataclass(frozen=True, slots=True)
class Features:
    accounts: Accounts
    streams: Streams
    templates: Templates
    domains: Domains
    suppressions: Suppressions


@dataclass(frozen=True, slots=True)
class Sending:
    """The flow behind the API: what claims, renders, sends and records."""

    worker: Worker
    relay: Worker
    sweep: Callable[[Records], Awaitable[int]]
    recorder: Recorder
    sites: Sites
    pool: RenderPool
    render: Render
    specs: Specs
    accepting: Accepting


def features_of(settings: Settings, records: Records, clock: Clock, bus: Bus) -> Features:
    return Features(
        Accounts(records, clock, values.limits(settings), Invalidation(bus, "accounts")),
        Streams(records, clock, Invalidation(bus, "streams")),
        Templates(records, clock, cache_bytes=settings.render.cache, elsewhere=Invalidation(bus, "templates")),
        Domains(
            records,
            clock,
            seal=load_or_create(settings.secret_key_file),
            # A resolver of its own: a check forgets what is cached.
            resolver=Resolver(values.servers(settings.dns.servers), lifetime=settings.dns.timeout),
            sender=Sender(hostname=settings.hostname, spf=f"a:{settings.hostname}"),
            require_verified=settings.send.require_verified_domain,
            elsewhere=Invalidation(bus, "domains"),
        ),
        Suppressions(records, clock),
    )


def sending(
    settings: Settings, storage: Storage, features: Features, stack: AsyncExitStack, slots: Slots | None
) -> Sending:
    """:param slots: of connections that several processes share."""
    clock, retry, room = storage.clock, values.retry(settings), settings.send.max_in_flight
    pool = RenderPool(Setup(values.blob_options(settings)), settings.render.processes or len(os.sched_getaffinity(0)))
    stack.push_async_callback(pool.close)
    destinations = _destinations(settings, clock)
    sites = Sites(
        open_connection=Opener(hostname=settings.hostname, connect_timeout=settings.send.connect_timeout),
        addresses=destinations.addresses,
        idle=settings.send.idle_seconds,
        clock=clock,
        slots=slots,
    )

    async def run(jobs: Sequence[Job]) -> None:
        await flow(jobs)

    worker = Worker(
        RENDER,
        storage.queue,
        run,
        room={Lane.CRITICAL: max(1, room // 4), Lane.TRANSACTIONAL: room, Lane.BULK: room},
        lease=settings.worker.lease,
        clock=clock,
        gather=gather(settings),
    )
    recorder = Recorder(
        storage.records,
        storage.queue,
        _suppressor(features.suppressions),
        current=worker.current,
        release=worker.release,
        leases=worker.leases,
        relayed=lambda tx, ended, failed: relay.settled(tx, ended, failed),  # noqa: PLW0108 - it is made below
    )
    relayer, relay = _relay(settings, storage, features, worker)
    specs = Specs(storage.blobs)
    render = Render(features.templates, features.domains, pool, storage.contents, clock)
    prepare = Prepare(storage.records, specs, features.suppressions, destinations, sites, recorder, retry, clock)
    flow = Flow(prepare, render, Send(recorder, retry, clock, lease_end=lambda job: worker.current(job).due_at))
    accept = accepting(settings, storage.records, storage.queue, worker, clock)
    return Sending(worker, relayer, relay.sweep, recorder, sites, pool, render, specs, accept)


def _relay(settings: Settings, storage: Storage, features: Features, render: Worker) -> tuple[Worker, Relay]:
    async def run(jobs: Sequence[Job]) -> None:
        await relay(jobs)

    worker = Worker(
        RELAY,
        storage.queue,
        run,
        room={Lane.TRANSACTIONAL: _RELAYED},
        lease=settings.worker.lease,
        clock=storage.clock,
    )
    relay = Relay(
        storage.records,
        storage.queue,
        features.streams,
        storage.contents,
        wake=render.wake,
        current=worker.current,
        release=worker.release,
        clock=storage.clock,
        report=Report(storage.queue, storage.contents, host=settings.hostname, clock=storage.clock),
    )
    return worker, relay


def _destinations(settings: Settings, clock: Clock) -> Destinations:
    resolver = Resolver(
        values.servers(settings.dns.servers), lifetime=settings.dns.timeout, capacity=settings.dns.cache_entries
    )
    return Destinations(
        values.routes(settings),
        resolver,
        hostname=settings.hostname,
        private_addresses=settings.send.private_addresses,
        clock=clock,
    )


def _suppressor(suppressions: Suppressions) -> Callable[[Tx, Sequence[Outcome]], Awaitable[None]]:
    """Addresses that do not exist, with the peer's words as evidence, in the outcome's transaction."""

    async def suppress(tx: Tx, outcomes: Sequence[Outcome]) -> None:
        by_tenant: dict[str, list[Entry]] = {}
        for outcome in outcomes:
            entry = Entry(
                outcome.due.address, Reason.BOUNCE, source=f"smtp:{outcome.due.id}", evidence=outcome.suppress
            )
            by_tenant.setdefault(outcome.due.tenant_id, []).append(entry)
        for tenant_id, entries in by_tenant.items():
            await suppressions.add_in(tx, suppressions.rows_for(tenant_id, entries))

    return suppress
