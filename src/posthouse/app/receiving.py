"""The receiving flow, wired: accept behind the gateway, the stages behind their queues."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from posthouse.accounts.passwords import hash_password, verify_password
from posthouse.api.ports import Mail
from posthouse.app import values
from posthouse.clock import DAY, SECOND, Clock
from posthouse.config import Settings
from posthouse.directory.resolve import Resolver as Recipients
from posthouse.directory.service import Directory
from posthouse.domains.service import Domains
from posthouse.errors import Unavailable
from posthouse.inbound.accept import Accept
from posthouse.inbound.decide import decide
from posthouse.inbound.dispatch import Dispatch
from posthouse.inbound.examine import Examine, here
from posthouse.inbound.filter.judge import Filter
from posthouse.inbound.filter.lists import DomainList, DomainLists
from posthouse.inbound.filter.scanner import ClamdScanner, Scanner
from posthouse.inbound.forwarding import Forwarding
from posthouse.inbound.greylist import Greylist
from posthouse.inbound.house import Rules
from posthouse.inbound.housekeeping import Housekeeping
from posthouse.inbound.importing import Importing
from posthouse.inbound.index import Index, Indexing, rebuild_if_due, reindex
from posthouse.inbound.journal import Journal
from posthouse.inbound.lists import DnsList
from posthouse.inbound.model import INDEX, STORE
from posthouse.inbound.notify import announce
from posthouse.inbound.pool import ExaminePool, processes_for
from posthouse.inbound.refusals import Refusals
from posthouse.inbound.screen import Screen
from posthouse.inbound.store import Store
from posthouse.inbound.upkeep import Upkeep
from posthouse.mail.parse import text
from posthouse.mail.srs import Srs
from posthouse.mailbox.check import Check
from posthouse.mailbox.mend import Mend
from posthouse.mailbox.reading import Reading
from posthouse.mailbox.service import Mailboxes
from posthouse.net.clamd import Clamd
from posthouse.net.dns import Resolver, Shelf
from posthouse.smtp.offer import Limits
from posthouse.smtpd.gateway.gateway import Gateway
from posthouse.smtpd.gateway.options import Listener, Options, Spooling
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.bus.base import Bus
from posthouse.storage.bus.invalidation import Invalidation
from posthouse.storage.bus.local import LocalBus
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job, Lane, Queue
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.lease import Lease
from posthouse.storage.search.factory import open_search, where
from posthouse.worker import Worker

log = structlog.get_logger("app")

_TEXT_LINE = 2**20
"""Octets. RFC 5321 §4.5.3.1.6 asks for 1000; much mail has longer lines, and they are kept as they are."""
_ROOM = 2048
_BATCH = 256
_INDEX_ROOM = 32
_GATHER = 0.1
"""Seconds for which messages gather while others are stored: groups cost less, and are soon enough."""


@dataclass(frozen=True, slots=True)
class Receiving:
    """Nothing of it runs yet. `gateway` is None without listeners."""

    mail: Mail
    accept: Accept
    gateway: Gateway | None
    store: Worker
    index: Worker
    examine: ExaminePool | None
    """None: messages are examined in this process."""
    housekeeping: Housekeeping
    look_after_search: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Ground:
    """What it stands on."""

    records: Records
    queue: Queue
    blobs: Blobs
    contents: Contents
    clock: Clock
    domains: Domains
    srs: Srs
    bus: Bus
    shelf: Shelf | None
    wake_relay: Callable[[], None]
    once: Records
    """For what one process does for all, while it holds `lease`."""
    lease: Lease | None
    lagging: Records
    """For lists."""


async def receiving(settings: Settings, ground: Ground, stack: AsyncExitStack) -> Receiving:
    resolver = Resolver(
        values.servers(settings.dns.servers),
        lifetime=settings.dns.timeout,
        capacity=settings.dns.cache_entries,
        shelf=ground.shelf,
    )
    mail = await open_mail(
        where(settings.search.url, settings.records.url),
        stack,
        records=ground.records,
        queue=ground.queue,
        blobs=ground.blobs,
        contents=ground.contents,
        clock=ground.clock,
        bus=ground.bus,
        lagging=ground.lagging,
    )
    index = _index(settings, ground, mail)
    judge = _filter(settings, ground.records, resolver, stack)
    pool = _examine(settings, stack)
    store = _store(settings, ground, mail, judge, pool or here, wake_index=lambda: index.wake(Lane.TRANSACTIONAL))
    accept = Accept(
        records=ground.records,
        contents=ground.contents,
        queue=ground.queue,
        resolver=mail.directory.resolver,
        lookup=resolver,
        clock=ground.clock,
        wake=lambda: store.wake(Lane.TRANSACTIONAL),
        hostname=settings.hostname,
        authserv_id=settings.receive.authserv_id,
        lists=[DnsList(one.zone, one.kind, one.weight, one.refuse, one.answers) for one in settings.lists],
        greylist_delay=settings.receive.greylist_delay,
        srs=ground.srs,
        screen=Screen(ground.records, judge, ground.clock),
        rules=Rules(
            frozenset(one.lower() for one in settings.receive.trusted_forwarders),
            settings.receive.refuse_unknown_senders,
        ),
    )
    stack.push_async_callback(accept.close)
    listeners = _listeners(settings)
    gateway = Gateway(accept.begin, _options(settings, listeners)) if listeners else None
    housekeeping = Housekeeping(
        ground.once,
        Contents(ground.once, ground.blobs, small=settings.receive.small, clock=ground.clock),
        Refusals(ground.once, ground.clock),
        Greylist(ground.once, ground.clock, delay=settings.receive.greylist_delay),
        ground.clock,
        kept=settings.receive.log_days * DAY,
        still=(lambda: lease.sure) if (lease := ground.lease) is not None else (lambda: True),
    )
    return Receiving(mail, accept, gateway, store, index, pool, housekeeping, _search_keeper(ground, mail, index))


def _search_keeper(ground: Ground, mail: Mail, index: Worker) -> Callable[[], Awaitable[None]]:
    """Looks once an hour whether the index has to be made again."""
    next_at = 0

    async def look() -> None:
        nonlocal next_at
        if ground.clock() < next_at:
            return
        try:
            await rebuild_if_due(
                ground.once, ground.queue, mail.indexing, mail.search, wake=lambda: index.wake(Lane.BULK)
            )
            next_at = ground.clock() + 3600 * SECOND
        except Unavailable as error:
            log.warning("search_is_away", detail=error.detail)

    return look


async def open_mail(
    url: str,
    stack: AsyncExitStack,
    *,
    records: Records,
    queue: Queue,
    blobs: Blobs,
    contents: Contents,
    clock: Clock,
    bus: Bus | None = None,
    lagging: Records | None = None,
) -> Mail:
    """What the API needs of the receiving side; closed with `stack`. `url`: of the search index."""
    search = await open_search(url)
    stack.push_async_callback(search.close)
    bus = bus or LocalBus()
    indexing = Indexing(queue, clock=clock)
    directory = Directory(
        records,
        clock,
        Recipients(records),
        hash_password=hash_password,
        verify_password=verify_password,
        elsewhere=Invalidation(bus, "directory"),
    )
    mailboxes = Mailboxes(records, contents, clock=clock, tell=announce(bus), indexing=indexing)
    check = Check(records, blobs)

    async def index(account: int | None) -> int:
        # The stage looks at its queue by itself.
        return await reindex(records, indexing, search, account=account, wake=lambda: None)

    upkeep = Upkeep(check, Mend(records, contents, blobs, queue, clock=clock), index, clock)
    stack.push_async_callback(upkeep.close)
    return Mail(
        directory,
        mailboxes,
        Reading(records, contents),
        check,
        search,
        bus,
        contents,
        indexing,
        Journal(records, clock, lagging=lagging),
        Importing(records, mailboxes, contents, clock),
        upkeep,
    )


def _worker(
    stage: str,
    settings: Settings,
    ground: Ground,
    run: Callable[[Sequence[Job]], Awaitable[None]],
    room: int,
    batch: int,
    gather: float,
) -> Worker:
    return Worker(
        stage,
        ground.queue,
        run,
        room={Lane.TRANSACTIONAL: room, Lane.BULK: room},
        batch=batch,
        lease=settings.worker.lease,
        clock=ground.clock,
        gather=gather,
    )


def _store(
    settings: Settings,
    ground: Ground,
    mail: Mail,
    judge: Filter,
    examine: Examine,
    *,
    wake_index: Callable[[], None],
) -> Worker:
    async def run(jobs: Sequence[Job]) -> None:
        await stage(jobs)

    worker = _worker(STORE, settings, ground, run, _ROOM, _BATCH, _GATHER)
    stage = Store(
        ground.records,
        ground.contents,
        ground.queue,
        judge,
        clock=ground.clock,
        current=worker.current,
        release=worker.release,
        leases=worker.leases,
        examine=examine,
        decide=decide,
        sender=_dispatch(settings, ground),
        indexing=mail.indexing,
        tell=announce(mail.bus),
        wake_index=wake_index,
    )
    return worker


def _examine(settings: Settings, stack: AsyncExitStack) -> ExaminePool | None:
    count = settings.receive.processes or processes_for(len(os.sched_getaffinity(0)))
    if not count:
        return None
    pool = ExaminePool(count)
    stack.push_async_callback(pool.close)
    return pool


def _dispatch(settings: Settings, ground: Ground) -> Dispatch:
    forwarding = Forwarding(
        ground.contents,
        ground.srs,
        ground.domains.signing_keys,
        authserv_id=settings.receive.authserv_id or settings.hostname,
        clock=ground.clock,
    )
    return Dispatch(
        ground.queue,
        ground.contents,
        forwarding,
        host=settings.hostname,
        clock=ground.clock,
        wake=ground.wake_relay,
    )


def _index(settings: Settings, ground: Ground, mail: Mail) -> Worker:
    async def run(jobs: Sequence[Job]) -> None:
        await stage(jobs)

    worker = _worker(INDEX, settings, ground, run, _INDEX_ROOM, _INDEX_ROOM // 2, _GATHER)
    stage = Index(
        ground.records,
        ground.contents,
        ground.queue,
        mail.search,
        clock=ground.clock,
        current=worker.current,
        release=worker.release,
        leases=worker.leases,
    )
    return worker


def _filter(settings: Settings, records: Records, resolver: Resolver, stack: AsyncExitStack) -> Filter:
    given = settings.receive
    asked = [
        DomainList(one.zone, one.weight, tuple(ipaddress.IPv4Network(answer) for answer in one.answers))
        for one in settings.lists
        if one.kind == "domain"
    ]
    scanners: list[Scanner] = []
    if given.clamd:
        scanners.append(ClamdScanner(Clamd(given.clamd), required=given.clamd_required))
    if given.scanner:
        # Only where it is used, as its client.
        from posthouse.inbound.filter.hook import HttpScanner  # noqa: PLC0415

        asked_by_http = HttpScanner(given.scanner, required=given.scanner_required)
        stack.push_async_callback(asked_by_http.close)
        scanners.append(asked_by_http)
    return Filter(
        text,
        _correspondents(records),
        lists=DomainLists(asked, resolver) if asked else None,
        scanners=scanners,
        bound=given.junk_score,
    )


def _correspondents(records: Records) -> Callable[[Sequence[tuple[int, str]]], Awaitable[frozenset[tuple[int, str]]]]:
    async def known(pairs: Sequence[tuple[int, str]]) -> frozenset[tuple[int, str]]:
        async def work(tx: Tx) -> frozenset[tuple[int, str]]:
            return frozenset((account, address) for account, address in await tx.each(_KNOWN, list(pairs)))

        return await records.read(work) if pairs else frozenset()

    return known


_KNOWN = """
SELECT c.account, c.address FROM {v(account int, address text)} CROSS JOIN correspondent c
WHERE c.account = v.account AND c.address = v.address"""


def _listeners(settings: Settings) -> list[Listener]:
    given = settings.receive
    proxies = tuple(ipaddress.ip_network(one) for one in given.proxies)
    mx = [Listener("mx", *values.host_port(one, 25), proxies=proxies) for one in given.mx]
    return mx + [Listener("lmtp", *values.host_port(one, 24), proxies=proxies) for one in given.lmtp]


def _options(settings: Settings, listeners: Sequence[Listener]) -> Options:
    given = settings.receive
    return Options(
        settings.hostname,
        listeners,
        Spooling(given.spool, least_free=given.least_free),
        certificate=given.tls_certificate,
        key=given.tls_key,
        connections=given.connections,
        per_address=given.connections_per_address,
        limits=Limits(size=given.max_size, text_line=_TEXT_LINE, recipients=given.recipients),
    )
