"""The one ASGI layer: find the operation, authenticate, read the body, answer.

Everything that other frameworks spread over middleware is one function here, because this
is the hot path of `POST /v1/messages`: about a tenth of what a bare route of a framework
costs. docs/decisions/ tells the figures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from time import perf_counter

import structlog
from prometheus_client import Counter, Histogram

from posthouse import errors
from posthouse.accounts.limits import RateLimiter, Standing
from posthouse.api import once, problems
from posthouse.api.background import Background
from posthouse.api.http import Call, ClientGone, Receive, Reply, Scope, Send, read_body, refuse_parameters
from posthouse.api.operations import Context, Operation, Router
from posthouse.api.ports import Services

log = structlog.get_logger("posthouse.api")

REQUESTS = Counter("posthouse_http_requests_total", "HTTP requests by operation and status.", ("operation", "status"))
SECONDS = Histogram(
    "posthouse_http_request_seconds",
    "Time from the complete request headers to the answer.",
    ("operation",),
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
)

_CLIENT_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_NOWHERE = "none"
_FIXED = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


@dataclass(frozen=True, slots=True)
class Options:
    max_body: int = 40 * 1024 * 1024
    """Octets of a request body: 25 MB of attachments in base64, and the rest."""
    body_seconds: float = 60.0
    """For the whole body to arrive."""
    metrics: bool = True
    """Serve `/metrics`."""
    access_log: bool = False
    """A line for every request; without it, only for those that failed on our side."""


class Api:
    """An ASGI application."""

    def __init__(self, services: Services, operations: Sequence[Operation], options: Options) -> None:
        self._context = Context(services, services.limiter or RateLimiter(services.clock))
        self._authenticate = services.accounts.authenticate
        self._router = Router(operations)
        self._options = options
        self._background = Background(services)
        self._once = once.Once(services)
        self._boot = os.urandom(5).hex()
        self._numbers = count(1)
        self._counters: dict[tuple[str, int], Counter] = {}
        self._timers = {operation.id: SECONDS.labels(operation.id) for operation in operations}
        self._timers[_NOWHERE] = SECONDS.labels(_NOWHERE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self._request_id(headers.get(b"x-request-id"))
        call = Call(_NOWHERE, {}, headers, scope["query_string"])
        limited = False
        try:
            operation, call.path = self._router.find(scope["method"], scope["path"])
            call.operation_id = operation.id
            limited = operation.limited
            reply = await self._answer(operation, call, receive)
        except errors.Error as error:
            reply = self._problem(error, scope, call, request_id)
        except ClientGone:
            return
        except Exception as error:
            reply = self._problem(_unexpected(error), scope, call, request_id)
        await self._send(send, reply, request_id, self._standing(call) if limited else None)
        self._record(call, reply.status, perf_counter() - started, request_id)

    async def _answer(self, operation: Operation, call: Call, receive: Receive) -> Reply:
        if operation.scopes is not None:
            caller = await self._authenticate(call.headers.get(b"authorization"))
            call.caller = caller
            if operation.scopes and caller.scopes.isdisjoint(operation.scopes):
                caller.need(*sorted(operation.scopes))
        if call.query_string and operation.query is None:
            refuse_parameters(call.query_string)
        if operation.body is not None:
            options = self._options
            limit = max(options.max_body, operation.largest)
            call.data = await read_body(receive, call.headers, limit=limit, seconds=options.body_seconds)
        if operation.once:
            return await self._once.run(operation.handler, self._context, call, secret=operation.secret)
        return await operation.handler(self._context, call)

    async def _send(self, send: Send, reply: Reply, request_id: bytes, standing: Standing | None) -> None:
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", str(len(reply.body)).encode()),
            (b"x-request-id", request_id),
            *_FIXED,
        ]
        if reply.headers:
            replaced = {name for name, _ in reply.headers}
            headers = [header for header in headers if header[0] not in replaced]
            headers.extend(reply.headers)
        if standing is not None:
            headers.extend(rate_headers(standing))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _standing(self, call: Call) -> Standing | None:
        if call.standing is not None:
            return call.standing
        if call.known_caller is None:
            return None
        tenant = call.caller.tenant
        return self._context.limiter.standing(tenant.id, tenant.limits)

    def _problem(self, error: errors.Error, scope: Scope, call: Call, request_id: bytes) -> Reply:
        if error.status >= 500:
            # A part that is away is told in `detail`; where it was noticed tells nobody anything.
            cause = None if error.temporary else error.__cause__
            tell = log.warning if error.temporary else log.error
            tell(
                "request failed",
                operation=call.operation_id,
                request_id=request_id.decode(),
                code=error.code,
                detail=error.detail,
                exc_info=cause if cause is not None else None,
            )
        return problems.reply(error, path=scope["path"], request_id=request_id.decode())

    def _record(self, call: Call, status: int, seconds: float, request_id: bytes) -> None:
        operation = call.operation_id
        counter = self._counters.get((operation, status))
        if counter is None:
            counter = self._counters[operation, status] = REQUESTS.labels(operation, str(status))
        counter.inc()
        self._timers[operation].observe(seconds)
        if self._options.access_log:
            caller = call.known_caller
            log.info(
                "request",
                operation=operation,
                status=status,
                ms=round(seconds * 1000, 2),
                request_id=request_id.decode(),
                tenant=caller.tenant.id if caller else None,
            )

    def _request_id(self, given: bytes | None) -> bytes:
        if given is not None and _CLIENT_ID.fullmatch(given):
            return given
        return f"{self._boot}{next(self._numbers):08x}".encode()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            await receive()
            await stack.enter_async_context(self._background)
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def rate_headers(standing: Standing) -> list[tuple[bytes, bytes]]:
    """Those of draft-ietf-httpapi-ratelimit-headers (its structured pair, and the older trio)."""
    limit, remaining, reset = b"%d" % standing.limit, b"%d" % standing.remaining, b"%d" % standing.reset
    return [
        (b"ratelimit-policy", b'"messages";q=%b;w=%d' % (limit, standing.window)),
        (b"ratelimit", b'"messages";r=%b;t=%b' % (remaining, reset)),
        (b"ratelimit-limit", limit),
        (b"ratelimit-remaining", remaining),
        (b"ratelimit-reset", reset),
    ]


def _unexpected(error: Exception) -> errors.Error:
    """What nobody foresaw: logged with its trace, told to the caller without any of it."""
    if isinstance(error, RecursionError):
        return errors.Malformed("The request is nested too deeply", code="malformed_json")
    wrapped = errors.Error(detail=f"{type(error).__name__}: {error}"[:1000])
    wrapped.__cause__ = error
    return wrapped
