"""How commands reach Posthouse: always its HTTP API, so that there is one code path and one
authorisation.

1. `--url` or `POSTHOUSE_URL`: that server, with `--key` or `POSTHOUSE_API_KEY`.
2. Else, when `serve` runs on this data directory (it leaves `serve.json` there): that one.
3. Else the API in this process, over `posthouse.app`, without listeners or pipeline.

Without `--key`, the key in `DATA_DIR/operator.key` is used; `posthouse init` puts it there.
It takes a tenth of a second to import: `Session.client` is the way to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx

from posthouse.cli.server import IN_PROCESS, KEY_FILE, App, Asgi, Problem, announced, load_app
from posthouse.config import Environment, Settings
from posthouse.errors import Misconfigured, Unauthorized, Unavailable

_LOCAL = "http://posthouse.local"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_START_LIMIT = 10.0  # seconds that a server may take from its lock to its first answer
_START_PAUSE = 0.1
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class Client:
    """Typed access for commands: JSON in, JSON out, problems raised."""

    http: httpx.AsyncClient
    where: str
    """For messages: the server's address, or `in this process`."""

    async def get(self, path: str, **query: object) -> Any:
        params = {name.rstrip("_"): str(value) for name, value in query.items() if value is not None}
        return _answer(await self._call("GET", path, params=params))

    async def octets(self, path: str) -> bytes:
        """A body as it is, whatever its type."""
        response = await self._call("GET", path)
        return response.content if response.is_success else _answer(response)

    async def post(self, path: str, body: object = None, *, idempotency_key: str | None = None) -> Any:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return _answer(await self._call("POST", path, json={} if body is None else body, headers=headers))

    async def patch(self, path: str, body: object) -> Any:
        return _answer(await self._call("PATCH", path, json=body))

    async def delete(self, path: str) -> None:
        _answer(await self._call("DELETE", path))

    async def pages(self, path: str, limit: int, **query: object) -> list[dict[str, Any]]:
        """Up to `limit` items of a list, page by page."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(items) < limit:
            page = await self.get(path, limit=min(limit - len(items), 200), cursor=cursor, **query)
            items += page["data"]
            cursor = page.get("next")
            if cursor is None or not page["data"]:
                break
        return items[:limit]

    async def all_pages(self, path: str, limit: int, **query: object) -> list[dict[str, Any]]:
        """As `pages`, of a list whose pages may be empty before the last."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(items) < limit:
            page = await self.get(path, limit=min(limit - len(items), 200), cursor=cursor, **query)
            items += page["data"]
            cursor = page.get("next")
            if cursor is None:
                break
        return items[:limit]

    async def _call(self, method: str, path: str, **rest: Any) -> httpx.Response:
        try:
            return await self.http.request(method, path, **rest)
        except httpx.HTTPError as wrong:
            raise Unavailable(
                f"The server at {self.where} does not answer. Is `posthouse serve` running there?",
                detail=f"{type(wrong).__name__}: {wrong}",
            ) from wrong


def _answer(response: httpx.Response) -> Any:
    kind = response.headers.get("content-type", "").partition(";")[0]
    if response.is_success:
        return response.json() if kind.endswith("json") and response.content else response.content
    try:
        body = cast("dict[str, Any]", response.json())
        errors = tuple((str(one.get("pointer", "")), str(one.get("message", ""))) for one in body.get("errors") or ())
        code, detail = str(body.get("code", "")), str(body.get("detail") or body.get("title") or "")
    except (ValueError, AttributeError):
        errors, code, detail = (), "", ""
    raise Problem(
        response.status_code,
        code or "not_posthouse",
        detail or f"the server answered {response.status_code} without saying why",
        errors,
        response.headers.get("retry-after"),
    )


@asynccontextmanager
async def connect(
    settings: Settings,
    environment: Environment,
    *,
    url: str | None = None,
    key: str | None = None,
    app: App | None = None,
) -> AsyncGenerator[Client]:
    """
    :param url: `--url`; `key`: `--key`; `app`: for tests.
    :raises Unauthorized: there is no key to use.
    :raises Misconfigured: there is no data directory yet, and no server.
    """
    named = url or environment.url
    remote = named or await serving(settings)
    secret = key or environment.api_key or stored_key(settings, named)
    headers = {"Authorization": f"Bearer {secret}", "User-Agent": "posthouse-cli"}
    async with AsyncExitStack() as stack:
        asgi = None if remote else await _in_process(stack, app or load_app(), settings)
        remote = remote or (await _starting(settings) if asgi is None else None)
        if asgi is not None:
            transport = httpx.ASGITransport(app=cast(Any, asgi))
            http = httpx.AsyncClient(transport=transport, base_url=_LOCAL, headers=headers, timeout=None)  # noqa: S113 - in process
        else:
            http = httpx.AsyncClient(base_url=remote or "", headers=headers, timeout=_TIMEOUT, trust_env=False)
        yield Client(await stack.enter_async_context(http), remote or IN_PROCESS)


async def _in_process(stack: AsyncExitStack, app: App, settings: Settings) -> Asgi | None:
    """The API on open storage; None when a `serve` that is just starting owns it."""
    try:
        return await stack.enter_async_context(app.asgi(settings))
    except Misconfigured as wrong:
        if wrong.code != "database_in_use":
            raise
        return None


async def _starting(settings: Settings) -> str:
    """:raises Unavailable: what owns the database does not answer in time."""
    if url := await appeared(settings, _START_LIMIT):
        return url
    raise Unavailable(
        f"A `posthouse serve` owns {settings.data_dir} but its API does not answer. Wait until it has started, "
        "or name it with --url.",
        code="server_not_found",
    )


async def appeared(settings: Settings, limit: float) -> str | None:
    """The address of the `serve` on this data directory as soon as one answers; None after
    `limit` seconds without."""
    for _ in range(max(1, round(limit / _START_PAUSE))):
        if url := await serving(settings):
            return url
        await asyncio.sleep(_START_PAUSE)
    return None


def stored_key(settings: Settings, named: str | None = None) -> str:
    """The operator key of `init`; it never goes to a named server on another machine.

    :raises Unauthorized: a server was named, but no key.
    :raises Misconfigured: `init` has not been run.
    """
    path = settings.data_dir / KEY_FILE
    if named and httpx.URL(named).host not in _LOOPBACK:
        raise Unauthorized(f"No API key for {named}: give --key or set POSTHOUSE_API_KEY.")
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        if named:
            raise Unauthorized("No API key: give --key or set POSTHOUSE_API_KEY.") from None
        raise Misconfigured(
            f"{settings.data_dir} is not set up yet. Run `posthouse init`, or name a server with --url.",
            code="not_initialised",
        ) from None
    except OSError as wrong:
        raise Unauthorized(f"{path} cannot be read ({wrong.strerror}). Give --key or run as its owner.") from None


async def serving(settings: Settings) -> str | None:
    """The address of the `serve` on this data directory, if one answers."""
    if (url := announced(settings)) is None:
        return None
    try:
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as http:
            answered = await http.get(f"{url}/healthz")
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return url if answered.is_success else None
