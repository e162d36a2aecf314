"""uvicorn with the bounds it lacks: on the size of a request's head, and on how long a
connection may take to send one (a peer that dribbles bytes would hold it for ever)."""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from posthouse import errors
from posthouse.api import problems
from posthouse.api.edge import Api
from posthouse.api.http import Receive, Scope, Send, TooSlow

MAX_HEAD = 32 * 1024  # octets of request line and header fields
HEAD_SECONDS = 10.0
LINGER_SECONDS = 1.0  # in which a refused peer may read why


class HeadTooLarge(errors.TooLarge):
    code = "headers_too_large"
    status = 431
    title = "The request's header fields are too large"


class OneWrite:
    """ASGI's `send` for answers whose body is one message of a stated length, as all of `Api`
    are: one write where uvicorn makes two, each a system call and a packet (25 µs together).
    What else an application sends goes uvicorn's way."""

    __slots__ = ("_cycle", "_start")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._start: dict[str, Any] | None = None

    async def send(self, message: dict[str, Any]) -> None:
        cycle = self._cycle
        if message["type"] == "http.response.start" and not cycle.response_started:
            self._start = message
            return
        start, self._start = self._start, None
        if start is None:
            await cycle.send(message)  # type: ignore[arg-type]
            return
        body = message.get("body", b"")
        if not self._plain(start, message, len(body)):
            await cycle.send(start)  # type: ignore[arg-type]
            await cycle.send(message)  # type: ignore[arg-type]
            return
        cycle.transport.write(self._head(start) + body)
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()

    def _plain(self, start: dict[str, Any], message: dict[str, Any], size: int) -> bool:
        cycle = self._cycle
        return (
            cycle.keep_alive
            and start["status"] < 400  # those may close the connection
            and not (cycle.disconnected or cycle.flow.write_paused or message.get("more_body"))
            and cycle.scope["method"] != "HEAD"
            and (b"content-length", b"%d" % size) in start["headers"]
        )

    def _head(self, start: dict[str, Any]) -> bytes:
        """:raises RuntimeError: a value with a line break."""
        headers = [*self._cycle.default_headers, *start["headers"]]
        head = b"".join([b"%b: %b\r\n" % header for header in headers])
        if not head.count(b"\n") == head.count(b"\r") == len(headers):
            raise RuntimeError("a header with a line break")
        return STATUS_LINE[start["status"]] + head + b"\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """A head has to be complete `HEAD_SECONDS` after its first byte (or the connection), and
    within `MAX_HEAD`. One timer a connection, none a request."""

    head_seconds = HEAD_SECONDS
    _refused = False
    _head_size = 0
    _head_since: float | None = None
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since = self.loop.time()
        self._watch = self.loop.call_later(self.head_seconds, self._check_head)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._head_since is None or self._head_size + len(data) <= MAX_HEAD:
            if self._head_since is not None:
                self._head_size += len(data)
            super().data_received(data)
            return
        self._feed_in_pieces(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_size = 0
        self._head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._head_since = None
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def whole(scope: Scope, receive: Receive, _: Send) -> None:
            await app(scope, receive, OneWrite(cycle).send)

        super()._start_asgi_task(cycle, whole)  # type: ignore[arg-type]

    def _feed_in_pieces(self, data: bytes) -> None:
        """More than a head may have came at once: it is fine if most of it is body."""
        for start in range(0, len(data), MAX_HEAD):
            piece = data[start : start + MAX_HEAD]
            if self._head_since is not None:
                self._head_size += len(piece)
                if self._head_size > 2 * MAX_HEAD:
                    self._refuse(HeadTooLarge())
                    return
            super().data_received(piece)
            if self._refused or self.transport.is_closing():
                return

    def _check_head(self) -> None:
        since = self._head_since
        now = self.loop.time()
        if since is not None and now - since >= self.head_seconds:
            self._refuse(TooSlow())
            return
        self._watch = self.loop.call_at((since or now) + self.head_seconds, self._check_head)

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses."""
        self._refuse(errors.Malformed("This is not HTTP as it should be", code="malformed_http"))

    def _refuse(self, error: errors.Error) -> None:
        """Answer what never became a request, and close."""
        if self._refused or self.transport.is_closing():
            return
        reply = problems.reply(error)
        status = HTTPStatus(reply.status)
        self.transport.write(
            f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: {reply.content_type.decode()}\r\n"
            f"content-length: {len(reply.body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n".encode()
            + reply.body
        )
        # Closed at once, with octets unread, the peer's kernel would throw the answer away.
        self._refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._watch = self.loop.call_later(LINGER_SECONDS, self.transport.close)


def build_server(
    app: Api,
    *,
    host: str = "127.0.0.1",
    port: int = 8025,
    proxies: str = "",
    max_connections: int = 10_000,
    stop_seconds: int = 30,
) -> uvicorn.Server:
    """Run it with `await server.serve(sockets=[listen(...)])`, or `serve()` alone.

    :param proxies: addresses whose `X-Forwarded-*` are believed, with commas between.
    :param max_connections: more are answered 503.
    :param stop_seconds: for what is in flight when the server stops.
    """
    forwarding: dict[str, Any] = {"proxy_headers": bool(proxies), "forwarded_allow_ips": proxies or None}
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=max_connections,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=stop_seconds,
        backlog=2048,
        **forwarding,
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that port 0 can be asked for its number before serving."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(2048)
    return listener
