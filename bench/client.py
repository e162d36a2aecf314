"""An HTTP client that costs little, in a process of its own: keep-alive connections that send
requests made in advance, one at a time each, and note when the answer is there."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from bench import material

_TEXT = "Your order left our house and will be with you soon, as promised.\n" * 30


@dataclass(frozen=True, slots=True)
class Answer:
    """`due`: when the request was to be sent, `at`: when its answer was there, both in seconds
    since 1970. A request that had to wait for a free connection waited as part of its time."""

    due: float
    at: float
    status: int
    body: bytes

    @property
    def seconds(self) -> float:
        return self.at - self.due


@dataclass(frozen=True, slots=True)
class Single:
    """`POST /v1/messages`: one recipient, a text of 2 KB. Picklable."""

    port: int
    key: str
    stream: str = "transactional"
    to: str = "single00000000@sink.example"
    """Its zeros become the message's number."""

    def requests(self) -> Callable[[int], bytes]:
        """From a message's number to the octets of its request."""
        body = json.dumps(
            {
                "from": "The Shop <shop@example.com>",
                "to": [self.to],
                "subject": "Your order 00000000",
                "text": _TEXT,
                "stream": self.stream,
            }
        )
        head = (
            f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        pieces = (head + body).encode().split(b"00000000")
        return lambda number: (b"%08d" % number).join(pieces)


class _Connection(asyncio.Protocol):
    def __init__(self, free: Callable[[_Connection], None], note: Callable[[Answer], None]) -> None:
        self._free = free
        self._note = note
        self._due = 0.0
        self._got = b""
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_exception(exc or ConnectionError("the server closed a connection"))

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, blank, body = self._got.partition(b"\r\n\r\n")
        if not blank or len(body) < _content_length(head):
            return
        self._got = b""
        self._note(Answer(self._due, time.time(), int(head[9:12]), body))
        self._free(self)

    def close(self) -> None:
        self.closed.cancel()
        if self._transport is not None:
            self._transport.close()


def _content_length(head: bytes) -> int:
    start = head.lower().find(b"\r\ncontent-length:") + len(b"\r\ncontent-length:")
    return int(head[start : head.find(b"\r\n", start) if b"\r\n" in head[start:] else None])


class _Load:
    """Requests over `connections`; a request that is due while all are busy waits."""

    def __init__(self, single: Single) -> None:
        self._single = single
        self._request = single.requests()
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[tuple[int, float]] = deque()
        self._connections: list[_Connection] = []
        self.answers: list[Answer] = []

    async def connect(self, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(
                lambda: _Connection(self._free, self.answers.append), "127.0.0.1", self._single.port
            )
            self._connections.append(connection)
            self._idle.append(connection)

    def submit(self, number: int, due: float) -> None:
        if self._idle:
            self._idle.popleft().send(self._request(number), due)
        else:
            self._waiting.append((number, due))

    def _free(self, connection: _Connection) -> None:
        if self._waiting:
            number, due = self._waiting.popleft()
            connection.send(self._request(number), due)
        else:
            self._idle.append(connection)

    async def finished(self, count: int) -> None:
        """:raises ConnectionError: a connection was lost."""
        while len(self.answers) < count:
            done, _ = await asyncio.wait(
                [each.closed for each in self._connections], timeout=0.02, return_when=asyncio.FIRST_COMPLETED
            )
            for lost in done:
                lost.result()
        for connection in self._connections:
            connection.close()


async def _as_fast_as_answered(single: Single, numbers: range, connections: int) -> list[Answer]:
    load = _Load(single)
    await load.connect(connections)
    now = time.time()
    for number in numbers:  # all wait for a connection but the first few
        load.submit(number, now)
    await load.finished(len(numbers))
    return load.answers


async def _on_schedule(single: Single, numbers: range, per_second: float, connections: int) -> list[Answer]:
    """Due at even intervals whether or not the ones before were answered."""
    load = _Load(single)
    await load.connect(connections)
    start = time.time() + 0.05
    for place, number in enumerate(numbers):
        due = start + place / per_second
        wait = due - time.time()
        if wait > 0.0005:
            await asyncio.sleep(wait)
        elif place % 16 == 0:
            await asyncio.sleep(0)
        load.submit(number, due)
    await load.finished(len(numbers))
    return load.answers


def _run(pipe: Connection, single: Single, numbers: range, per_second: float | None, connections: int) -> None:
    if per_second is None:
        answers = uvloop.run(_as_fast_as_answered(single, numbers, connections))
    else:
        answers = uvloop.run(_on_schedule(single, numbers, per_second, connections))
    pipe.send(answers)


@contextmanager
def singles(
    single: Single, numbers: range, *, per_second: float | None = None, connections: int = 64
) -> Generator[Callable[[], Sequence[Answer]], None, None]:
    """The client at work; the function waits until it is done and gives the answers in order.

    :param per_second: None: each connection sends as soon as it has an answer.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(theirs, single, numbers, per_second, connections)
    )
    process.start()
    theirs.close()
    try:
        yield lambda: material.received(ours)
    finally:
        process.join(5)
        if process.is_alive():
            process.terminate()


def run_singles(
    single: Single, numbers: range, *, per_second: float | None = None, connections: int = 64
) -> Sequence[Answer]:
    """:raises RuntimeError: not all were answered with 202."""
    with singles(single, numbers, per_second=per_second, connections=connections) as answers:
        found = answers()
    bad = next((answer for answer in found if answer.status != 202), None)
    if bad is not None:
        raise RuntimeError(f"answered {bad.status}: {bad.body[:300]!r}")
    return found


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
