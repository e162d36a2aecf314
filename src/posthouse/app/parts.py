"""Everything a process is made of, opened and wired: the only file that names a backend."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

from posthouse import clock as clocks
from posthouse.accounts.model import ALL_SCOPES
from posthouse.accounts.service import Accounts
from posthouse.accounts.streams import Streams
from posthouse.api.ports import Services
from posthouse.app import values
from posthouse.app.ahead import Accepting, accepting, gather
from posthouse.app.cluster import Overview
from posthouse.app.duties import Duties, Round, guarded
from posthouse.app.lag import Lag
from posthouse.app.presence import Presence, Progress
from posthouse.app.receiving import Ground, Receiving, receiving
from posthouse.app.replica import lagging_records
from posthouse.app.set_back import SetBack
from posthouse.app.shared import connection_slots, dns_shelf, limiter, shared
from posthouse.clock import DAY, Clock
from posthouse.config import Settings
from posthouse.config.schema import Role
from posthouse.domains.records import Sender
from posthouse.domains.service import Domains
from posthouse.egress.destinations import Destinations
from posthouse.egress.opening import Opener
from posthouse.egress.sites import Sites
from posthouse.egress.slots import Slots
from posthouse.events.handover import RELAY
from posthouse.inbound.model import INDEX, STORE
from posthouse.mail.srs import Srs
from posthouse.moving import refuse_left, refuse_unfinished
from posthouse.net.dns import Resolver
from posthouse.outbound import Outbound, Render, Send
from posthouse.outbound.compose import Compose
from posthouse.outbound.flow import Flow
from posthouse.outbound.housekeeping import Housekeeping
from posthouse.outbound.prepare import Prepare, Specs
from posthouse.outbound.reconcile import Reconcile
from posthouse.outbound.relay import Relay
from posthouse.outbound.report import Report
from posthouse.outbound.retention import Retention
from posthouse.outbound.settle import Outcome, Recorder
from posthouse.outbound.submit import RENDER
from posthouse.rendering.pool import RenderPool
from posthouse.rendering.process import Setup
from posthouse.seal import load_or_create
from posthouse.storage.blob_uses import NotedBlobs
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.blobs.cached import Memory, near
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.bus.base import Bus
from posthouse.storage.bus.factory import Shared
from posthouse.storage.bus.invalidation import Invalidation
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job, Lane, Queue
from posthouse.storage.queue.factory import open_queue
from posthouse.storage.records.address import COMMAND
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.lease import Lease
from posthouse.storage.records.migrations.run import migrate
from posthouse.storage.records.partitions import Partitions
from posthouse.storage.records.server_clock import cluster_clock
from posthouse.suppression.model import Entry, Reason
from posthouse.suppression.service import Suppressions
from posthouse.templates.service import Templates
from posthouse.worker import Worker

_BATCH = 256
_POLL = 1.0


@dataclass(frozen=True, slots=True)
class Storage:
    records: Records
    queue: Queue
    blobs: Blobs
    arrived: Blobs
    contents: Contents
    set_back: SetBack
    clock: Clock
    measure: Round | None
    once: Records
    """For what one process does for all: guarded by `lease`, where several could."""
    lease: Lease | None
    lagging: Records
    """For lists: a replica, where there is one."""


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


@dataclass(frozen=True, slots=True)
class Parts:
    """Nothing of it runs yet."""

    services: Services
    presence: Presence
    sending: Sending
    receiving: Receiving
    lag: Lag
    duties: Duties

    def workers(self, roles: set[Role]) -> list[Worker]:
        """Of these roles, in the order in which mail passes them."""
        record = self.sending.accepting.recorder
        sending = [self.sending.relay, self.sending.worker] if roles & {"render", "send"} else []
        sending = [record, *sending] if sending and record is not None else sending
        store = [self.receiving.store] if "store" in roles else []
        return [*store, *([self.receiving.index] if "index" in roles else []), *sending]


async def bootstrap(settings: Settings, *, tenant: str) -> str:
    """Makes the master key file, the schema and the tenant of this name where missing;
    returns the secret of a fresh operator key (every scope)."""
    load_or_create(settings.secret_key_file)
    refuse_left(settings.records.url)
    await migrate(settings.records.url)
    async with AsyncExitStack() as stack:
        records = await open_records(settings.records.url, exclusive=COMMAND)
        stack.push_async_callback(records.close)
        await refuse_unfinished(records)
        accounts = Accounts(records, clocks.now, values.limits(settings))
        found = [one for one in await accounts.list_tenants(limit=1000) if one.name == tenant]
        owner = found[0] if found else await accounts.create_tenant(tenant)
        made = await accounts.create_key(owner.id, "operator", ALL_SCOPES)
        return made.secret


@asynccontextmanager
async def opened(settings: Settings, *, holder: str = COMMAND) -> AsyncGenerator[Parts, None]:
    """Closed again in reverse order. `holder`: of a database for one process: `SERVER` or `COMMAND`."""
    async with AsyncExitStack() as stack:
        storage = await _storage(settings, stack, holder)
        presence = Presence(storage.records, storage.clock, roles=settings.roles, version=_version())
        common = await shared(settings, storage.records, presence, stack)
        features = _features(settings, storage.records, storage.clock, common.bus)
        sending = _sending(settings, storage, features, stack, connection_slots(common))
        ground = Ground(
            storage.records,
            storage.queue,
            storage.arrived,
            storage.contents,
            storage.clock,
            features.domains,
            _srs(settings),
            common.bus,
            dns_shelf(common),
            wake_relay=lambda: sending.relay.wake(Lane.TRANSACTIONAL),
            once=storage.once,
            lease=storage.lease,
            lagging=storage.lagging,
        )
        received = await receiving(settings, ground, stack)
        duties = _duties(settings, storage, sending, received)
        _watch(presence, settings, sending, received, duties.progress)
        yield Parts(
            _services(settings, storage, features, sending, received, common, presence),
            presence,
            sending,
            received,
            Lag(storage.queue, storage.clock),
            duties,
        )


def _duties(settings: Settings, storage: Storage, sending: Sending, received: Receiving) -> Duties:
    clock, once, kept = storage.clock, storage.once, settings.retention
    still = (lambda: lease.sure) if (lease := storage.lease) is not None else (lambda: True)
    retention = Retention(
        once, storage.blobs, clock, messages=kept.messages_days * DAY, events=kept.events_days * DAY, still=still
    )
    rounds: list[Round] = [Partitions(once, clock).round] if once.capabilities.engine == "postgresql" else []
    rounds += [retention.round, lambda: sending.sweep(once), received.housekeeping.round, received.look_after_search]
    if settings.queue.url.startswith("records:"):
        rounds.append(Reconcile(once, storage.queue, sending.worker.wake, clock).round)
    housekeeping = Housekeeping(once, Suppressions(once, clock), clock, also=rounds)
    return Duties(storage.lease, housekeeping, sending.sites, [storage.set_back.round], storage.measure)


async def _storage(settings: Settings, stack: AsyncExitStack, holder: str) -> Storage:
    refuse_left(settings.records.url)
    await migrate(settings.records.url)
    records = await open_records(
        settings.records.url,
        exclusive=holder,
        connections=settings.records.pool_size,
        statement_timeout=settings.records.statement_timeout,
    )
    stack.push_async_callback(records.close)
    await refuse_unfinished(records)
    clock, measure = await cluster_clock(records)
    lagging = await lagging_records(settings, records, stack)
    memory = Memory(settings.blobs.cache)
    blobs = NotedBlobs(records, near(await open_blobs(**values.blob_options(settings)), memory), clock)
    stack.push_async_callback(blobs.close)
    queue = await open_queue(settings.queue.url, records, blobs, clock=clock)
    stack.push_async_callback(queue.close)
    if records.capabilities.exclusive:
        await queue.free_leases()
    set_back = SetBack(queue, (STORE, INDEX, RELAY), clock, lease=settings.worker.lease)
    await set_back.at_start()
    # Apart from the attachments of the sending flow, which nobody counts: what arrived is collected.
    arrived = await open_blobs(**values.blob_options(settings, "mail"))
    copied = near(arrived, memory)  # what checks and mends looks at the store itself
    stack.push_async_callback(copied.close)
    contents = Contents(records, copied, small=settings.receive.small, clock=clock)
    return Storage(records, queue, blobs, arrived, contents, set_back, clock, measure, *guarded(records), lagging)


def _features(settings: Settings, records: Records, clock: Clock, bus: Bus) -> Features:
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


def _sending(
    settings: Settings, storage: Storage, features: Features, stack: AsyncExitStack, slots: Slots | None
) -> Sending:
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
        batch=_BATCH,
        lease=settings.worker.lease,
        poll=_POLL,
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
        relayed=lambda tx, ended, failed: relay.settled(tx, ended, failed),  # noqa: PLW0108 - made below  # noqa: PLW0108 - it is made below
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
        room={Lane.TRANSACTIONAL: _BATCH},
        batch=_BATCH,
        lease=settings.worker.lease,
        poll=_POLL,
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


def _srs(settings: Settings) -> Srs:
    """With the keys of older master keys, so that a new one ends no address that is out."""
    key, *old = load_or_create(settings.secret_key_file).derive("srs")
    return Srs(key, tuple(old))


_SLOWEST_DELIVERY = 1800.0
"""Seconds: a peer may take the time-outs of RFC 5321 §4.5.3.2 one after another."""
_SLOWEST_ACCEPT = 120.0
"""Seconds for the durable step of a received message; each has its time-outs below this."""
_SLOWEST_ROUND = 1800.0
"""Seconds for one of the rounds of a minute, such as forgetting what retention says."""


def _watch(presence: Presence, settings: Settings, sending: Sending, received: Receiving, rounds: Progress) -> None:
    """:param rounds: of the housekeeping."""
    lease = settings.worker.lease
    watched = (
        ("send", sending.worker, max(lease, _SLOWEST_DELIVERY / 2), max(3 * lease, _SLOWEST_DELIVERY)),
        ("send", sending.relay, lease, 3 * lease),
        ("store", received.store, lease, 3 * lease),
        ("index", received.index, lease, 3 * lease),
    )
    if (recorder := sending.accepting.recorder) is not None:
        watched += (("send", recorder, lease, 3 * lease),)
    for role, worker, patience, hopeless in watched:
        named = next((one for one in ("render", "send") if one in settings.roles), "") if role == "send" else role
        if named in settings.roles:
            presence.watch(named, worker.stage, worker.progress, patience=patience, hopeless=hopeless)
    if "mx" in settings.roles:
        accept = received.accept.progress
        presence.watch("mx", "accept", accept, patience=_SLOWEST_ACCEPT, hopeless=3 * _SLOWEST_ACCEPT)
    if "schedule" in settings.roles:
        presence.watch("schedule", "housekeeping", rounds, patience=_SLOWEST_ROUND, hopeless=3 * _SLOWEST_ROUND)


def _services(
    settings: Settings,
    storage: Storage,
    features: Features,
    sending: Sending,
    received: Receiving,
    common: Shared,
    presence: Presence,
) -> Services:
    clock, records = storage.clock, storage.records
    messages = Outbound(
        records,
        storage.queue,
        features.streams,
        Compose(records, storage.blobs, features.templates, features.domains, clock),
        sending.accepting.submit,
        sending.render,
        sending.specs,
        values.bounds(settings),
        clock,
        in_flight=sending.worker.holds if records.capabilities.exclusive else None,
        recorded=sending.accepting.recorded,
        lagging=storage.lagging,
    )
    return Services(
        accounts=features.accounts,
        streams=features.streams,
        messages=messages,
        templates=features.templates,
        domains=features.domains,
        suppressions=features.suppressions,
        mail=received.mail,
        records=records,
        queue=storage.queue,
        checks={"records": records.ready, "blobs": storage.blobs.ready, "queue": storage.queue.ready},
        clock=clock,
        limiter=limiter(common, clock),
        health=presence.health,
        cluster=Overview(records, storage.queue),
    )


def _version() -> str:
    try:
        return package_version("posthouse")
    except PackageNotFoundError:
        return "0"


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
