"""Everything a process is made of, opened and wired."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

from posthouse import clock as clocks
from posthouse.accounts.model import ALL_SCOPES
from posthouse.accounts.service import Accounts
from posthouse.api.ports import Services
from posthouse.app import values
from posthouse.app.cluster import Overview
from posthouse.app.duties import Duties, Round
from posthouse.app.lag import Lag
from posthouse.app.presence import Presence, Progress
from posthouse.app.receiving import Ground, Receiving, receiving
from posthouse.app.sending import Features, Sending, features_of, sending
from posthouse.app.shared import connection_slots, dns_shelf, limiter, shared
from posthouse.app.storage import Storage, open_storage, own_records
from posthouse.clock import DAY
from posthouse.config import Settings
from posthouse.config.schema import Role
from posthouse.mail.srs import Srs
from posthouse.outbound import Outbound
from posthouse.outbound.compose import Compose
from posthouse.outbound.housekeeping import Housekeeping
from posthouse.outbound.reconcile import Reconcile
from posthouse.outbound.retention import Retention
from posthouse.seal import load_or_create
from posthouse.storage.bus.factory import Shared
from posthouse.storage.queue.base import Lane
from posthouse.storage.records.address import Holder
from posthouse.storage.records.partitions import Partitions
from posthouse.suppression.service import Suppressions
from posthouse.worker import Worker


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
    async with AsyncExitStack() as stack:
        records = await own_records(settings, stack, Holder.COMMAND)
        accounts = Accounts(records, clocks.now, values.limits(settings))
        found = [one for one in await accounts.list_tenants(limit=1000) if one.name == tenant]
        owner = found[0] if found else await accounts.create_tenant(tenant)
        made = await accounts.create_key(owner.id, "operator", ALL_SCOPES)
        return made.secret


@asynccontextmanager
async def opened(settings: Settings, *, holder: Holder = Holder.COMMAND) -> AsyncGenerator[Parts, None]:
    """Closed again in reverse order. `holder`: of a database for one process."""
    async with AsyncExitStack() as stack:
        storage = await open_storage(settings, stack, holder)
        presence = Presence(storage.records, storage.clock, roles=settings.roles, version=_version())
        common = await shared(settings, storage.records, presence, stack)
        features = features_of(settings, storage.records, storage.clock, common.bus)
        sends = sending(settings, storage, features, stack, connection_slots(common))
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
            wake_relay=lambda: sends.relay.wake(Lane.TRANSACTIONAL),
            once=storage.once,
            lease=storage.lease,
            lagging=storage.lagging,
        )
        received = await receiving(settings, ground, stack)
        duties = _duties(settings, storage, sends, received)
        _watch(presence, settings, sends, received, duties.progress)
        yield Parts(
            _services(settings, storage, features, sends, received, common, presence),
            presence,
            sends,
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
