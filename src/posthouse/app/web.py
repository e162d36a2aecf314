"""The API's listener: uvicorn, with our bounds and our signals."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn

from posthouse.api.edge import Api
from posthouse.api.server import BoundedProtocol
from posthouse.config import Settings
from posthouse.errors import Misconfigured


class Web:
    """Its port is taken; it answers while `run` runs.

    :raises Misconfigured: code `port_taken`.
    """

    def __init__(self, settings: Settings, application: Api) -> None:
        self._sock = _listen(settings.http.host, settings.http.port, settings.http.backlog)
        self._server, self.url = _server(settings, application, self._sock)

    async def run(self) -> None:
        await self._server.serve(sockets=[self._sock])

    async def started(self, task: asyncio.Task[None]) -> None:
        """Returns when it answers, or when `task`, in which it runs, has ended."""
        while not self._server.started and not task.done():  # noqa: ASYNC110 - uvicorn sets a flag, no event
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """No more requests; `run` returns when those in flight are answered."""
        self._server.should_exit = True


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
