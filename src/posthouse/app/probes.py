"""`/healthz`, `/readyz` and `/metrics` on a port of their own, for processes without the API too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from posthouse.api.edge import Api
from posthouse.app.web import Web, listen

_GRACE = 1


@asynccontextmanager
async def probes(host: str, port: int, application: Api) -> AsyncGenerator[str, None]:
    """Answers while it is open; gives its address.

    :raises Misconfigured: code `port_taken`.
    """
    web = Web(
        listen(host, port, "http.health_port"),
        application,
        lifespan="off",
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=100,
    )
    task = asyncio.create_task(web.run(), name="probes")
    await web.started(task)
    try:
        yield web.url
    finally:
        web.stop()
        await asyncio.wait([task], timeout=_GRACE + 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
