"""The counts over HTTP, on loopback: `GET /` gives JSON, `POST /reset` starts anew.

Not a web server: one request a connection, a head of 4 KB, five seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec

from posthouse.smtpd.sink.counts import Counts

Read = Callable[[], Awaitable[Counts]]
Reset = Callable[[], Awaitable[None]]
_SECONDS = 5.0
_HEAD = 4096


class StatsServer:
    def __init__(self, read: Read, reset: Reset) -> None:
        self._read = read
        self._reset = reset
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """:raises OSError: the port is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = await self._answer(head)
                writer.write(_response(status, body))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # whoever asked like that gets no answer
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> tuple[HTTPStatus, object]:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0]
        if (method, path) in {(b"GET", b"/"), (b"HEAD", b"/")}:
            return HTTPStatus.OK, (await self._read()).report()
        if (method, path) == (b"POST", b"/reset"):
            await self._reset()
            return HTTPStatus.OK, (await self._read()).report()
        if path in {b"/", b"/reset"}:
            return HTTPStatus.METHOD_NOT_ALLOWED, {"error": "GET / or POST /reset"}
        return HTTPStatus.NOT_FOUND, {"error": "GET / or POST /reset"}


def _response(status: HTTPStatus, body: object) -> bytes:
    data = msgspec.json.encode(body) + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data
