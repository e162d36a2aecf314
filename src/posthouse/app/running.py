"""A process: its listeners, its stages, its signals, its end."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from posthouse.api.app import build_app, build_probes
from posthouse.app import values
from posthouse.app.parts import Parts, opened
from posthouse.app.waiting import entered
from posthouse.config import Settings
from posthouse.errors import Misconfigured
from posthouse.smtpd.gateway.gateway import Gateway
from posthouse.storage.records.address import Holder
from posthouse.worker import Worker

if TYPE_CHECKING:
    from posthouse.app.web import Web

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
        parts = await entered(under, lambda: opened(settings, holder=Holder.SERVER), wait=not settings.embedded)
        roles = set(settings.roles)
        await stack.enter_async_context(parts.presence.running())
        if settings.http.health_port:
            from posthouse.app.probes import probes  # noqa: PLC0415 - the web server's import costs a tenth of a second

            watched = build_probes(parts.services, values.options(settings))
            await stack.enter_async_context(probes(settings.http.host, settings.http.health_port, watched))
        web = _web(settings, parts) if "api" in roles else None
        gateway = parts.receiving.gateway if "mx" in roles else None
        if gateway is not None:
            await _open(gateway)  # nothing behind it need run yet
        run = Running(web.url if web is not None else "")
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
        if web is not None:
            tasks.append(asyncio.create_task(web.run(), name="api"))
            await web.started(tasks[-1])
        for task in tasks:
            task.add_done_callback(lambda done: _part_ended(run, done))
        stack.enter_context(_signals(run))
        _quiet_collector()
        try:
            yield run
        finally:
            if gateway is not None:
                await gateway.stop(settings.worker.drain_timeout)
            await _drain(parts, workers, web, tasks, settings.worker.drain_timeout)


def _web(settings: Settings, parts: Parts) -> Web:
    """:raises Misconfigured: the port is taken."""
    from posthouse.app import web  # noqa: PLC0415 - as the probes

    return web.api(settings, build_app(parts.services, values.options(settings)))


def _quiet_collector() -> None:
    """What lives from the start on is never looked at again; the rest rarely makes cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


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
    web: Web | None,
    tasks: list[asyncio.Task[None]],
    timeout: float,
) -> None:
    """Stop taking requests and jobs, finish what is in flight, hand the rest back."""
    if web is not None:
        web.stop()
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
