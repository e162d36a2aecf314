"""A process: its listeners, its stages, its signals, its end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import structlog
import uvicorn

from posthouse.api.app import build_app, build_probes
from posthouse.api.edge import Api
from posthouse.api.server import BoundedProtocol
from posthouse.app import values
from posthouse.app.parts import Parts, opened
from posthouse.app.probes import probes
from posthouse.app.waiting import entered
from posthouse.config import Settings
from posthouse.errors import Misconfigured
from posthouse.smtpd.gateway.gateway import Gateway
from posthouse.worker import Worker

log = structlog.get_logger("app")


@asynccontextmanager
async def asgi(settings: Settings) -> AsyncGenerator[Any, None]:
    """The API on open storage, without listeners, stages or background work."""
    async with opened(settings) as parts:
        yield build_app(parts.services, values.options(settings))


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
    async with AsyncExitStack() as under, AsyncExitStack() as stack:
        parts = await entered(under, lambda: opened(settings), wait=not settings.embedded)
        roles = set(settings.roles)
        await stack.enter_async_context(parts.presence.running())
        if settings.http.health_port:
            watched = build_probes(parts.services, values.options(settings))
            await stack.enter_async_context(probes(settings.http.host, settings.http.health_port, watched))
        server, url, socks = None, "", list[socket.socket]()
        if "api" in roles:
            socks = [_listen(settings.http.host, settings.http.port, settings.http.backlog)]
            server, url = _server(settings, build_app(parts.services, values.options(settings)), socks[0])
        gateway = parts.receiving.gateway if "mx" in roles else None
        if gateway is not None:
            await _open(gateway)  # nothing behind it need run yet
        run = Running(url)
        tasks: list[asyncio.Task[None]] = []
        if roles & {"render", "send"}:
            await parts.sending.pool.start()
        if "store" in roles and parts.receiving.examine is not None:
            await parts.receiving.examine.start()
        workers = parts.workers(roles)
        tasks += [asyncio.create_task(worker.run(), name="worker") for worker in workers]
        tasks.append(asyncio.create_task(parts.duties.run(schedule="schedule" in roles), name="schedule"))
        if "schedule" in roles:
            tasks.append(asyncio.create_task(parts.lag.run(), name="lag"))
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
            if gateway is not None:
                await gateway.stop(settings.worker.drain_timeout)
            await _drain(parts, workers, server, tasks, settings.worker.drain_timeout)


def _quiet_collector() -> None:
    """What lives from the start on is never looked at again; the rest rarely makes cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def _started(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn sets a flag, no event
        await asyncio.sleep(0.01)


async def _open(gateway: Gateway) -> None:
    """:raises Misconfigured: a port is taken or not ours to take, or the spool is no directory of ours."""
    try:
        await gateway.start()
    except OSError as error:
        where = ", ".join(f"{one.host}:{one.port}" for one in gateway.options.listeners)
        raise Misconfigured(
            f"receive.mx and receive.lmtp: cannot listen on {where} ({(error.strerror or str(error)).lower()}); "
            "a port under 1024 needs the right to it (CAP_NET_BIND_SERVICE)",
            code="port_taken",
        ) from error


async def _drain(
    parts: Parts,
    workers: Sequence[Worker],
    server: uvicorn.Server | None,
    tasks: list[asyncio.Task[None]],
    timeout: float,
) -> None:
    """Stop taking requests and jobs, finish what is in flight, hand the rest back."""
    if server is not None:
        server.should_exit = True
    parts.lag.stop()
    parts.duties.stop()
    for worker in workers:
        worker.stop()
    await parts.sending.sites.close(timeout)
    await parts.sending.recorder.drain(timeout)
    for task in tasks:
        if task.get_name() == "worker":
            await asyncio.wait([task], timeout=timeout)  # a claim on its way
    for worker in workers:
        await worker.hand_back_all()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
    log.info("stopped", in_flight=sum(worker.held for worker in workers))


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
        why = os.strerror(error.errno or 0).lower()
        raise Misconfigured(
            f"http.port: cannot listen on {host}:{port} ({why}); choose another with --port", code="port_taken"
        ) from error


def _server(settings: Settings, application: Api, sock: socket.socket) -> tuple[uvicorn.Server, str]:
    host, port = sock.getsockname()[:2]
    config = uvicorn.Config(
        application,
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
