"""What answers HTTP: uvicorn, with our bounds and our signals."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from posthouse.api.edge import Api
from posthouse.api.server import BoundedProtocol
from posthouse.config import Settings
from posthouse.errors import Misconfigured

_REACHED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""How to reach from here what listens everywhere."""


class Web:
    """Its port is taken; it answers while `run` runs."""

    def __init__(self, sock: socket.socket, application: Api, **options: Any) -> None:
        """:param options: further ones of `uvicorn.Config`."""
        bound, port = sock.getsockname()[:2]
        host = _REACHED.get(bound, str(bound))
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._sock = sock
        self._server = _Server(
            uvicorn.Config(
                application,
                loop="none",
                ws="none",
                access_log=False,
                log_level="error",
                server_header=False,
                proxy_headers=False,
                **options,
            )
        )

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
    """Signals are ours: they stop more than what answers HTTP."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def api(settings: Settings, application: Api) -> Web:
    """:raises Misconfigured: code `port_taken`."""
    http = settings.http
    return Web(
        listen(http.host, http.port, "http.port", "; choose another with --port", backlog=http.backlog),
        application,
        http=BoundedProtocol,
        timeout_graceful_shutdown=int(settings.worker.drain_timeout),
        backlog=http.backlog,
        timeout_keep_alive=75,
        limit_concurrency=10_000,
    )


def listen(host: str, port: int, setting: str, advice: str = "", *, backlog: int | None = None) -> socket.socket:
    """:raises Misconfigured: code `port_taken`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise Misconfigured(f"{setting}: cannot listen on {host}:{port} ({why}){advice}", code="port_taken") from error
