"""The whole product in the test's own loop: HTTP API to SMTP sink, over real sockets."""

from __future__ import annotations

import asyncio
import email
import email.policy
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx

from posthouse.app import bootstrap, running
from posthouse.config import Settings
from posthouse.smtpd.sink import Options, Sink

FINAL = {"delivered", "bounced", "suppressed", "canceled", "failed"}
DOMAIN = "sender.example"
QUICK = {"first": 0.3, "factor": 1.2, "cap": 1.0}
SECONDS = 30.0


class House:
    """A running Posthouse and a key of its first tenant that may do everything."""

    def __init__(self, http: httpx.AsyncClient, settings: Settings, domain: dict[str, Any]) -> None:
        self.http = http
        self.settings = settings
        self.domain = domain

    async def post(self, path: str, body: object = None, status: int | None = None, **headers: str) -> Any:
        answer = await self.http.post(path, json={} if body is None else body, headers=headers)
        if status is None:
            assert answer.status_code < 300, f"{path}: {answer.status_code} {answer.text}"
        else:
            assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def send(self, to: str | Sequence[str], **more: Any) -> str:
        """The id of a message with a text."""
        body = {"from": f"Ann <ann@{DOMAIN}>", "to": [to] if isinstance(to, str) else list(to), **more}
        if "template" not in body:
            body = {"subject": "Hello", "text": "Hello\n", **body}
        return str((await self.post("/v1/messages", body, 202))["id"])

    async def until(self, name: str, *states: str, seconds: float = SECONDS) -> dict[str, Any]:
        """The message, once it is in one of the states; any final one when none is named."""
        wanted = set(states) or FINAL
        end = time.monotonic() + seconds
        while True:
            message = await self.get(f"/v1/messages/{name}")
            if message["status"] in wanted:
                return message
            assert message["status"] not in FINAL, f"{message}: {await self.story(name)}"
            assert time.monotonic() < end, f"still {message['status']}: {await self.story(name)}"
            await asyncio.sleep(0.02)

    async def story(self, name: str) -> str:
        told = await self.get(f"/v1/messages/{name}/explain")
        return told["summary"] + "\n" + "\n".join(line["text"] for line in told["story"])

    async def events(self, name: str) -> list[dict[str, Any]]:
        return list((await self.get(f"/v1/messages/{name}/events"))["data"])


@asynccontextmanager
async def house(
    directory: Path,
    *,
    sink: Sink | None = None,
    routes: Sequence[Mapping[str, Any]] = (),
    records: str | None = None,
    **sections: Mapping[str, Any],
) -> AsyncIterator[House]:
    """:param sections: settings by section, such as `retry={"first": 1}`."""
    if sink is not None:
        routes = [{"domains": ["*"], "kind": "static", "hosts": [f"127.0.0.1:{sink.port}"], "connections": 8}]
    given: dict[str, Any] = {
        "data_dir": str(directory / f"data-{secrets.token_hex(3)}"),
        "hostname": f"mail.{DOMAIN}",
        "http": {"port": 0},
        "render": {"processes": 1},
        "retry": QUICK,
        "worker": {"drain_timeout": 5.0},
        "routes": list(routes),
        **sections,
    }
    if records is not None:
        given["records"] = {"url": records}
    settings = Settings(**given)
    settings.data_dir.mkdir()
    key = await bootstrap(settings, tenant="first")
    async with running(settings) as server, client(server.url, key) as http:
        domain = (await http.post("/v1/domains", json={"name": DOMAIN})).json()
        yield House(http, settings, domain)


def client(url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS, trust_env=False)


def sink(**options: Any) -> Sink:
    return Sink(Options(**options))


def read(data: bytes) -> EmailMessage:
    """What the standard library makes of a message."""
    return email.message_from_bytes(data, policy=email.policy.default)
