"""The composition root: Settings → backends → services → roles. The only file that names a backend.

`running` is a server, `asgi` the API in this process without a server, `bootstrap` the first
start on an empty data directory.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import structlog
import uvicorn

from posthouse import clock as clocks
from posthouse.accounts.model import ALL_SCOPES, Limits
from posthouse.accounts.service import Accounts
from posthouse.accounts.streams import Streams
from posthouse.api.app import build_app
from posthouse.api.edge import Options
from posthouse.api.ports import Services
from posthouse.api.server import BoundedProtocol
from posthouse.config import Settings
from posthouse.config.schema import Route as RouteSettings
from posthouse.domains.records import Sender
from posthouse.domains.service import Domains
from posthouse.egress.destinations import Destinations
from posthouse.egress.model import Kind, Route
from posthouse.egress.opening import Opener
from posthouse.egress.routes import Routes
from posthouse.egress.sites import Sites
from posthouse.errors import Misconfigured
from posthouse.net.dns import Resolver
from posthouse.net.tls import TlsMode, TlsPolicy
from posthouse.outbound import Outbound, Render, Send, Submit
from posthouse.outbound.check import Bounds
from posthouse.outbound.compose import Compose
from posthouse.outbound.flow import Flow
from posthouse.outbound.housekeeping import Housekeeping
from posthouse.outbound.pool import RenderPool
from posthouse.outbound.prepare import Prepare, Specs
from posthouse.outbound.render_process import Setup
from posthouse.outbound.settle import Outcome, Recorder
from posthouse.outbound.submit import RENDER
from posthouse.outbound.verdict import RetryPolicy
from posthouse.seal import load_or_create
from posthouse.smtp.sasl import Credentials
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations.run import migrate
from posthouse.suppression.model import Entry, Reason
from posthouse.suppression.service import Suppressions
from posthouse.templates.service import Templates
from posthouse.worker import Worker

log = structlog.get_logger("app")

_BATCH = 256
_POLL = 1.0


@dataclass(slots=True)
class _Parts:
    """Everything a process is made of, opened and wired, nothing running."""

    services: Services
    accounts: Accounts
    worker: Worker
    recorder: Recorder
    sites: Sites
    pool: RenderPool
    housekeeping: Housekeeping


async def bootstrap(settings: Settings, *, tenant: str) -> str:
    """Makes the master key file, the schema and the tenant of this name where missing;
    returns the secret of a fresh operator key (every scope)."""
    load_or_create(settings.secret_key_file)
    await migrate(settings.records.url)
    async with AsyncExitStack() as stack:
        records = await open_records(settings.records.url, exclusive=True)
        stack.push_async_callback(records.close)
        accounts = Accounts(records, clocks.now, _limits(settings))
        found = [one for one in await accounts.list_tenants(limit=1000) if one.name == tenant]
        owner = found[0] if found else await accounts.create_tenant(tenant)
        made = await accounts.create_key(owner.id, "operator", ALL_SCOPES)
        return made.secret


@asynccontextmanager
async def asgi(settings: Settings) -> AsyncGenerator[Any, None]:
    """The API on open storage, without listeners, stages or background work."""
    async with _opened(settings) as parts:
        yield build_app(parts.services, _options(settings))


class Running:
    """A server with its listeners open and its stages at work."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stop = asyncio.Event()
        self.failed: BaseException | None = None

    def stop(self) -> None:
        self._stop.set()

    async def wait(self) -> None:
        """Returns when SIGTERM or SIGINT asked for a stop; raises what made a part fail."""
        await self._stop.wait()
        if self.failed is not None:
            raise self.failed


@asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[Running, None]:
    """Starts `settings.roles`; leaving it finishes what is in flight and closes."""
    async with _opened(settings) as parts, AsyncExitStack() as stack:
        roles = set(settings.roles)
        server, url, socks = None, "", list[socket.socket]()
        if "api" in roles:
            socks = [_listen(settings.http.host, settings.http.port, settings.http.backlog)]
            server, url = _server(settings, parts.services, socks[0])
        run = Running(url)
        tasks: list[asyncio.Task[None]] = []
        if roles & {"render", "send"}:
            await parts.pool.start()
            tasks.append(asyncio.create_task(parts.worker.run(), name="worker"))
        if "schedule" in roles:
            tasks.append(asyncio.create_task(parts.housekeeping.run(), name="schedule"))
        if server is not None:
            tasks.append(asyncio.create_task(server.serve(sockets=socks), name="api"))
            await _started(server, tasks[-1])
        for task in tasks:
            task.add_done_callback(lambda done: _part_ended(run, done))
        stack.enter_context(_signals(run))
        _quiet_collector()
        try:
            yield run
        finally:
            await _drain(parts, server, tasks, settings.worker.drain_timeout)


def _quiet_collector() -> None:
    """What lives from the start on is never looked at again; the rest rarely makes cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def _started(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn sets a flag, no event
        await asyncio.sleep(0.01)


async def _drain(parts: _Parts, server: uvicorn.Server | None, tasks: list[asyncio.Task[None]], timeout: float) -> None:
    """Stop taking requests and jobs, finish what is in flight, hand the rest back."""
    if server is not None:
        server.should_exit = True
    parts.housekeeping.stop()
    parts.worker.stop()
    await parts.sites.close(timeout)
    await parts.recorder.drain(timeout)
    for task in tasks:
        if task.get_name() == "worker":
            await asyncio.wait([task], timeout=timeout)  # a claim on its way
    await parts.worker.hand_back_all()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
    log.info("stopped", in_flight=parts.worker.held)


def _part_ended(run: Running, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("part_failed", part=task.get_name(), error=repr(error))
        run.failed = error
    run.stop()


@contextmanager
def _signals(run: Running) -> Generator[None, None, None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, run.stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    """Signals are ours: they stop more than the API."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), backlog=backlog, family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise Misconfigured(
            f"http.port: cannot listen on {host}:{port} ({error.strerror}); choose another with --port",
            code="port_taken",
        ) from error


def _server(settings: Settings, services: Services, sock: socket.socket) -> tuple[uvicorn.Server, str]:
    host, port = sock.getsockname()[:2]
    config = uvicorn.Config(
        build_app(services, _options(settings)),
        loop="none",
        http=BoundedProtocol,
        access_log=False,
        log_level="error",
        timeout_graceful_shutdown=int(settings.worker.drain_timeout),
        backlog=settings.http.backlog,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=75,
        limit_concurrency=10_000,
    )
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    return _Server(config), f"http://{shown}:{port}"


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[_Parts, None]:
    async with AsyncExitStack() as stack:
        yield await _open(settings, stack)


async def _open(settings: Settings, stack: AsyncExitStack) -> _Parts:
    clock = clocks.now
    await migrate(settings.records.url)
    records = await open_records(
        settings.records.url,
        exclusive=True,
        connections=settings.records.pool_size,
        statement_timeout=settings.records.statement_timeout,
    )
    stack.push_async_callback(records.close)
    blob_options = _blob_options(settings)
    blobs = await open_blobs(**blob_options)
    stack.push_async_callback(blobs.close)
    queue = RecordsQueue(records, clock=clock)
    if records.capabilities.exclusive:
        await queue.free_leases()

    accounts = Accounts(records, clock, _limits(settings))
    streams = Streams(records, clock)
    templates = Templates(records, clock, cache_bytes=settings.render.cache)
    servers = _servers(settings.dns.servers)
    resolver = Resolver(servers, lifetime=settings.dns.timeout, capacity=settings.dns.cache_entries)
    domains = Domains(
        records,
        clock,
        seal=load_or_create(settings.secret_key_file),
        resolver=Resolver(servers, lifetime=settings.dns.timeout),  # its own: a check forgets what is cached
        sender=Sender(hostname=settings.hostname, spf=f"a:{settings.hostname}"),
        require_verified=settings.send.require_verified_domain,
    )
    suppressions = Suppressions(records, clock)

    pool = RenderPool(
        Setup(blob_options),
        settings.render.processes or os.cpu_count() or 1,
    )
    stack.push_async_callback(pool.close)
    routes = Routes(
        [_route(number, one, settings) for number, one in enumerate(settings.routes)], _default_route(settings)
    )
    destinations = Destinations(
        routes, resolver, hostname=settings.hostname, private_addresses=settings.send.private_addresses, clock=clock
    )
    sites = Sites(
        open_connection=Opener(hostname=settings.hostname, connect_timeout=settings.send.connect_timeout),
        addresses=destinations.addresses,
        idle=settings.send.idle_seconds,
        clock=clock,
    )
    specs = Specs(blobs)
    retry = _retry(settings)
    room = settings.send.max_in_flight

    async def run(jobs: Sequence[Job]) -> None:
        await flow(jobs)

    worker = Worker(
        RENDER,
        queue,
        run,
        room={Lane.CRITICAL: max(1, room // 4), Lane.TRANSACTIONAL: room, Lane.BULK: room},
        batch=_BATCH,
        lease=settings.worker.lease,
        poll=_POLL,
        clock=clock,
    )
    recorder = Recorder(
        records, queue, _suppressor(suppressions), current=worker.current, release=worker.release, leases=worker.leases
    )
    prepare = Prepare(records, specs, suppressions, destinations, sites, recorder, retry, clock)
    render = Render(templates, domains, pool, clock)
    flow = Flow(prepare, render, Send(recorder, retry, clock))
    compose = Compose(records, blobs, templates, domains, clock)
    messages = Outbound(
        records,
        queue,
        streams,
        compose,
        Submit(records, queue, worker.wake, clock),
        render,
        specs,
        _bounds(settings),
        clock,
        in_flight=worker.holds if records.capabilities.exclusive else None,
    )
    services = Services(
        accounts=accounts,
        streams=streams,
        messages=messages,
        templates=templates,
        domains=domains,
        suppressions=suppressions,
        records=records,
        queue=queue,
        checks={"records": records.ready, "blobs": blobs.ready},
        clock=clock,
    )
    housekeeping = Housekeeping(records, suppressions, sites, clock)
    return _Parts(services, accounts, worker, recorder, sites, pool, housekeeping)


# Settings → the values that each part takes.


def _options(settings: Settings) -> Options:
    return Options(
        max_body=settings.http.max_body, body_seconds=settings.http.read_timeout, access_log=settings.log.access
    )


def _limits(settings: Settings) -> Limits:
    given = settings.limits
    return Limits(given.rate_per_second, given.burst, given.daily_quota)


def _bounds(settings: Settings) -> Bounds:
    given = settings.limits
    return Bounds(given.recipients, given.batch, given.fan_out, given.attachments)


def _retry(settings: Settings) -> RetryPolicy:
    given = settings.retry
    return RetryPolicy(
        first=given.first,
        factor=given.factor,
        cap=given.cap,
        jitter=given.jitter,
        soft_attempts=given.soft_bounce_after,
        soft_window=given.soft_bounce_window,
    )


def _blob_options(settings: Settings) -> dict[str, str]:
    given = settings.blobs
    options = {"url": str(given.url)}
    if given.endpoint is not None:
        options["url"] += "?" + urlencode({"endpoint": str(given.endpoint), "region": given.region})
    if given.access_key is not None:
        options["access_key"] = given.access_key.get_secret_value()
    if given.secret_key is not None:
        options["secret_key"] = given.secret_key.get_secret_value()
    return options


def _servers(given: tuple[str, ...]) -> list[tuple[str, int]] | None:
    """`ADDRESS`, `ADDRESS:PORT` or `[V6]:PORT`."""
    return [_host_port(one, 53) for one in given] or None


def _host_port(text: str, default: int) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, int(port.removeprefix(":") or default)
    host, _, port = text.partition(":")
    if ":" in port:
        return text, default
    return host, int(port or default)


def _default_route(settings: Settings) -> Route:
    return Route("mx", Kind.MX, ("*",), _tls(settings.send.tls, None), connections=settings.send.connections)


def _route(number: int, given: RouteSettings, settings: Settings) -> Route:
    secret = given.password or given.oauth_token
    credentials = None
    if given.username is not None and secret is not None:
        credentials = Credentials(given.username, secret.get_secret_value(), token=given.oauth_token is not None)
    return Route(
        name=f"{given.kind}-{number + 1}",
        kind=Kind(given.kind),
        domains=given.domains,
        tls=_tls(given.tls or settings.send.tls, str(given.ca_file) if given.ca_file else None),
        hosts=tuple(_host_port(host, given.port) for host in given.hosts),
        port=given.port,
        credentials=credentials,
        connections=given.connections or settings.send.connections,
    )


def _tls(mode: str, ca_file: str | None) -> TlsPolicy:
    return TlsPolicy(TlsMode(mode), ca_file=ca_file)


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
