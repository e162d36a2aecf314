"""The demo's client: it hands in all mail in a thread of its own, and meets the kill as any
client would: no answer, so the same request with the same Idempotency-Key again."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from types import TracebackType
from typing import Any, Self

import httpx

from posthouse.cli.demo import mails
from posthouse.cli.demo.mails import BATCH, CONVERSATIONS, Person
from posthouse.cli.demo.processes import House

_URGENT = 20
"""Sign-in codes of the stream `critical`, while the orders are being sent."""
_AHEAD = 1000
"""Messages that may be accepted and not yet stored before the next orders are handed in."""
_PAUSE = 0.2
_AGAIN = 0.1


@dataclass(slots=True)
class Run:
    """What the run has seen, from outside. Seconds."""

    orders: int
    people: Sequence[Person]
    urgent: int = _URGENT
    ids: list[str] = field(default_factory=list[str])
    """Of every message that a 202 named."""
    stored: int = 0
    """Emails in mailboxes, when last asked."""
    submitted: bool = False
    submit_seconds: float = 0.0
    down_seconds: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    killed: list[str] = field(default_factory=list[str])
    """Parts of the server that were killed, in their order."""
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

    def __init__(self, server: House, run: Run) -> None:
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
        except (httpx.HTTPError, KeyError) as error:
            self._run.failure = error
        self._run.submitted = True

    def _orders(self) -> None:
        """Batches, never far ahead of what has arrived; and between them what people and other
        programs send, which must not wait for them."""
        run, others = self._run, deque(self._others())
        starts = range(0, run.orders, BATCH)
        for number, start in enumerate(starts):
            while len(run.ids) - run.stored > _AHEAD and not self._over.is_set():
                self._over.wait(_AGAIN)
            began = time.monotonic()
            answer = self._post("/v1/messages/batch", mails.batch(start, run.orders, run.people), f"batch-{start}")
            run.submit_seconds += time.monotonic() - began
            run.ids.extend(result["id"] for result in answer["results"])
            for _ in range(-(-len(others) // (len(starts) - number))):
                others.popleft()()
                self._over.wait(_PAUSE)

    def _others(self) -> list[Callable[[], None]]:
        """Sign-in codes, and letters in the order in which they answer each other."""
        known: list[list[str]] = [[] for _ in CONVERSATIONS]
        letters = [
            partial(self._letter, number, place, known[number])
            for number, letters in enumerate(CONVERSATIONS)
            for place in range(len(letters))
        ]
        codes = [partial(self._code, number) for number in range(self._run.urgent)]
        paired = [one for pair in zip_longest(codes, letters) for one in pair]
        return [one for one in paired if one is not None]

    def _letter(self, number: int, place: int, known: list[str]) -> None:
        one = CONVERSATIONS[number][place]
        answer = self._post("/v1/messages", mails.letter(one, known, self._run.people), f"letter-{number}-{place}")
        self._run.ids.append(answer["id"])
        known.append(mails.message_id(answer["id"], one, self._run.people))

    def _code(self, number: int) -> None:
        answer = self._post("/v1/messages", mails.urgent(number, self._run.people), f"urgent-{number}")
        self._run.ids.append(answer["id"])

    def _post(self, path: str, body: object, key: str) -> Any:
        """Repeated until there is an answer; the key makes that safe."""
        while not self._over.is_set():
            try:
                with self._server.http() as http:
                    answer = http.post(path, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                self._over.wait(_AGAIN)
                continue
            if answer.status_code in {409, 503}:  # 409: a process that died had claimed the key; for some seconds
                self._over.wait(_AGAIN)
                continue
            return answer.raise_for_status().json()
        raise httpx.RequestError("stopped")
