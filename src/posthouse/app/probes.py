"""`/healthz`, `/readyz` and `/metrics` on a port of their own, for processes without the API too."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from posthouse.api.edge import Api
from posthouse.errors import Misconfigured

_GRACE = 1


class _Server(uvicorn.Server):
    """Signals are the process's own."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def probes(host: str, port: int, application: Api) -> AsyncGenerator[str, None]:
    """Answers while it is open; gives its address.

    :raises Misconfigured: code `port_taken`.
    """
    sock = _listen(host, port)
    config = uvicorn.Config(
        application,
        loop="none",
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=100,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]), name="probes")
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn sets a flag, no event
        await asyncio.sleep(0.01)
    try:
        yield f"http://{host}:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait([task], timeout=_GRACE + 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise Misconfigured(f"http.health_port: cannot listen on {host}:{port} ({why})", code="port_taken") from error
