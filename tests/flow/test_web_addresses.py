"""The address that a server leaves for commands is one that reaches it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import httpx
import pytest

from posthouse.app.web import Web, listen


def _hosts() -> list[str]:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:  # a machine without IPv6
        return ["127.0.0.1", "0.0.0.0"]
    return ["127.0.0.1", "0.0.0.0", "::1", "::"]


async def _answers(scope: dict[str, Any], _receive: object, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("host", _hosts())
async def test_a_server_is_reached_at_its_url(host: str) -> None:
    web = Web(listen(host, 0, "http.port"), cast(Any, _answers), lifespan="off")
    task = asyncio.create_task(web.run())
    await web.started(task)
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(web.url)).status_code == 204
    finally:
        web.stop()
        await task
