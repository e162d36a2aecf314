"""A stand-in for `posthouse.app`: an ASGI app that answers from a table and keeps what it got."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from posthouse.cli.client import Asgi
from posthouse.config import Settings

Answer = tuple[int, Any] | Callable[["Request"], tuple[int, Any]]


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class StubRunning:
    url: str = "http://127.0.0.1:1"
    waited: bool = False

    async def wait(self) -> None:
        self.waited = True


@dataclass
class StubApp:
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    """By `METHOD /path`."""
    requests: list[Request] = field(default_factory=list[Request])
    settings: list[Settings] = field(default_factory=list[Settings])
    keys: set[str] = field(default_factory=lambda: {"ph_operator"})
    bootstrapped: list[str] = field(default_factory=list[str])
    started: StubRunning = field(default_factory=StubRunning)
    failure: Exception | None = None

    @asynccontextmanager
    async def asgi(self, settings: Settings) -> AsyncGenerator[Asgi]:
        self.settings.append(settings)
        if self.failure:
            raise self.failure
        yield self._serve

    @asynccontextmanager
    async def running(self, settings: Settings) -> AsyncGenerator[StubRunning]:
        self.settings.append(settings)
        if self.failure:
            raise self.failure
        yield self.started

    async def bootstrap(self, settings: Settings, *, tenant: str) -> str:
        self.bootstrapped.append(tenant)
        key = f"ph_operator{len(self.bootstrapped)}"
        self.keys.add(key)
        return key

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        content = b""
        while True:
            part = await receive()
            content += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        query = dict(parse_qsl(scope["query_string"].decode()))
        request = Request(scope["method"], scope["path"], query, headers, json.loads(content) if content else None)
        self.requests.append(request)
        status, body = self._answer(request)
        kind = b"application/json" if status < 400 else b"application/problem+json"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra = [(b"retry-after", b"7")] if status in {429, 503} else []
        if isinstance(body, bytes):
            kind = b"message/rfc822"
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *extra]})
        await send({"type": "http.response.body", "body": data})

    def _answer(self, request: Request) -> tuple[int, Any]:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.keys:
            return 401, {"code": "unauthorized", "detail": "A valid API key is needed"}
        answer = self.answers.get(f"{request.method} {request.path}")
        if answer is None:
            return 404, {"code": "not_found", "detail": f"There is no {request.path}"}
        return answer(request) if callable(answer) else answer


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]
