"""The demo's client: it hands in all mail in a thread of its own, and meets the kill as any
client would: no answer, so the same request with the same Idempotency-Key again."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from posthouse.cli.demo import mails
from posthouse.cli.demo.mails import BATCH, CONVERSATIONS, Person
from posthouse.cli.demo.processes import Server

_URGENT = 20
"""Sign-in codes of the stream `critical`, while the orders are being sent."""
_URGENT_EVERY = 0.2
_AGAIN = 0.1


@dataclass(slots=True)
class Run:
    """What the run has seen, from outside. Seconds."""

    orders: int
    people: Sequence[Person]
    urgent: int = _URGENT
    ids: list[str] = field(default_factory=list[str])
    """Of every message that a 202 named."""
    submitted: bool = False
    submit_seconds: float = 0.0
    down_seconds: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    killed_after: int | None = None
    """Mails in the mailboxes when the server was killed."""
    failure: Exception | None = None

    @property
    def wanted(self) -> int:
        """Messages."""
        return self.orders + self.urgent + sum(map(len, CONVERSATIONS))

    @property
    def nobodys(self) -> int:
        """Orders to addresses that nobody has."""
        return mails.nobodys(self.orders)

    @property
    def copies(self) -> int:
        """Emails that have to be in mailboxes at the end, but for what is sent on."""
        letters = sum(len(one.to) for letters in CONVERSATIONS for one in letters)
        return self.orders - self.nobodys + self.urgent + letters


class Post:
    """`with Post(server, run)`: submits until `run.submitted`, or the block is left."""

    def __init__(self, server: Server, run: Run) -> None:
        self._server = server
        self._run = run
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._all, name="post", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(10)

    def _all(self) -> None:
        try:
            self._orders()
            self._conversations()
            self._codes()
        except (httpx.HTTPError, KeyError) as error:
            self._run.failure = error
        self._run.submitted = True

    def _orders(self) -> None:
        run, began = self._run, time.monotonic()
        for start in range(0, run.orders, BATCH):
            body = mails.batch(start, run.orders, run.people)
            answer = self._post("/v1/messages/batch", body, f"batch-{start}")
            run.ids.extend(result["id"] for result in answer["results"])
        run.submit_seconds = time.monotonic() - began

    def _conversations(self) -> None:
        for number, letters in enumerate(CONVERSATIONS):
            known: list[str] = []
            for place, one in enumerate(letters):
                body = mails.letter(one, known, self._run.people)
                answer = self._post("/v1/messages", body, f"letter-{number}-{place}")
                self._run.ids.append(answer["id"])
                known.append(mails.message_id(answer["id"], one, self._run.people))

    def _codes(self) -> None:
        """Now and then one that must not wait for the orders."""
        for number in range(self._run.urgent):
            answer = self._post("/v1/messages", mails.urgent(number, self._run.people), f"urgent-{number}")
            self._run.ids.append(answer["id"])
            self._over.wait(_URGENT_EVERY)

    def _post(self, path: str, body: object, key: str) -> Any:
        """Repeated until there is an answer; the key makes that safe."""
        while not self._over.is_set():
            try:
                with self._server.http() as http:
                    answer = http.post(path, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                self._over.wait(_AGAIN)
                continue
            if answer.status_code == 503:
                self._over.wait(_AGAIN)
                continue
            return answer.raise_for_status().json()
        raise httpx.RequestError("stopped")
