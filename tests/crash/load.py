"""A client that keeps sending, through whatever happens to the server.

A request without an answer is repeated with its Idempotency-Key until there is one; some
that were answered are repeated too, and must get the same answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.product import DOMAIN

FROM = f"The Crew <crew@{DOMAIN}>"
TEMPLATE = {"name": "crash", "subject": "Hello {{ name }}", "html": "<p>Dear {{ name }}, number {{ number }}.</p>"}


@dataclass(frozen=True, slots=True)
class Single:
    """`at`: when its 202 came, seconds since 1970."""

    at: float
    stream: str
    address: str


class Load:
    """:param where: the server's address and key now; an address changes with every start."""

    def __init__(self, where: Callable[[], tuple[str, str]], seed: int) -> None:
        self._where = where
        self._random = random.Random(seed)
        self._number = 0
        self._open = asyncio.Event()
        self.stopping = False
        self.accepted: list[str] = []
        """Ids that an answer 202 named, each once."""
        self.singles: dict[str, Single] = {}
        """Messages that were submitted alone, by id."""
        self.repeats = 0
        """Requests that had no answer at first."""
        self.wrong: list[str] = []

    async def run(self, clients: int = 4, pause: float = 0.15) -> None:
        """Until `stopping`; then finishes what has no answer yet. `pause`: seconds at most between two requests."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client(pause))

    async def _client(self, pause: float) -> None:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            while not self.stopping:
                path, body = self._request()
                self._number += 1
                key = f"request-{self._number}"
                answer = await self._answered(http, path, body, key)
                ids = [one["id"] for one in answer["results"]] if "results" in answer else [answer["id"]]
                self.accepted.extend(ids)
                if len(ids) == 1 and "stream" in body:
                    self.singles[ids[0]] = Single(time.time(), body["stream"], body["to"][0])
                if self._random.random() < 0.15 and await self._answered(http, path, body, key) != answer:
                    self.wrong.append(f"{key}: a repeated request got another answer")
                await asyncio.sleep(self._random.uniform(0, pause))

    async def _answered(self, http: httpx.AsyncClient, path: str, body: object, key: str) -> Any:
        """The body of the 202, however often it has to be asked for."""
        for attempt in range(10_000):
            url, secret = self._where()
            headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": key}
            try:
                answer = await http.post(url + path, json=body, headers=headers)
            except httpx.TransportError:
                self.repeats += attempt == 0
                await asyncio.sleep(0.02)
                continue
            if answer.status_code == 202:
                return answer.json()
            if answer.status_code not in (409, 503):  # in flight elsewhere, or storage away
                raise AssertionError(f"{answer.status_code} {answer.text}")
            await asyncio.sleep(0.05)
        raise AssertionError(f"no answer to {key}")

    def _request(self) -> tuple[str, dict[str, Any]]:
        kind = self._random.random()
        stream = self._random.choice(["critical", "transactional", "broadcast"])
        if kind < 0.5:
            return "/v1/messages", self._single(stream)
        count = self._random.randint(2, 20)
        if kind < 0.7:
            return "/v1/messages/batch", {"messages": [self._single(stream) for _ in range(count)]}
        recipients = [{"to": self._address(), "variables": {"name": "Ann", "number": n}} for n in range(count)]
        return "/v1/messages/batch", {
            "from": FROM,
            "template": "crash",
            "stream": "broadcast",
            "recipients": recipients,
        }

    def _single(self, stream: str) -> dict[str, Any]:
        return {"from": FROM, "to": [self._address()], "subject": "One", "text": "Hello\n", "stream": stream}

    def _address(self) -> str:
        return f"user{self._random.getrandbits(48):x}@sink.example"
