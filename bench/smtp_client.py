"""An SMTP client that costs little, in a process of its own: keep-alive connections that send
one message after the other, MAIL, RCPT and DATA in one write, the body in the next."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from bench import material

OCTETS = 6 * 1024
_LINE = b"A line of a letter as people write them, neither very long nor short.\r\n"


def letter(octets: int = OCTETS) -> bytes:
    """A message of about so many octets, with the dot that ends it."""
    head = (
        b"From: The Shop <shop@client.example>\r\nTo: user@mx.example\r\nSubject: A letter\r\n"
        b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%08d@client.example>\r\n\r\n"
    )
    return head + _LINE * ((octets - len(head)) // len(_LINE)) + b".\r\n"


def conversations(accounts: int) -> Callable[[int], bytes]:
    """Messages by their number, each with a subject of its own; a third answer an earlier one to
    the same account."""
    head, _, rest = letter().partition(b"Subject: A letter\r\n")
    date, _, body = rest.partition(b"Message-ID: <%08d@client.example>\r\n")

    def make(number: int) -> bytes:
        if number % 3 == 2 and number >= accounts and accounts % 3:
            answers = b"%08d" % (number - accounts)
            subject = b"Subject: Re: A letter about %s\r\nIn-Reply-To: <%s@client.example>\r\n" % (answers, answers)
        else:
            subject = b"Subject: A letter about %08d\r\n" % number
        return b"%s%s%sMessage-ID: <%08d@client.example>\r\n%s" % (head, subject, date, number, body)

    return make


def alike(_accounts: int) -> Callable[[int], bytes]:
    """The same message again and again, but for its id."""
    head, _, tail = letter().partition(b"%08d")
    return lambda number: b"%s%08d%s" % (head, number, tail)


class _Session(asyncio.Protocol):
    """Greeting, EHLO, then messages while `numbers` last; `done` is set at its end."""

    def __init__(self, numbers: Iterator[int], make: Callable[[int], bytes], accounts: int, greeting: bytes) -> None:
        self._greeting = greeting
        self._numbers = numbers
        self._accounts = accounts
        self._make = make
        self._number = 0
        self._got = b""
        self._due = 1  # replies
        self._step = self._hello
        self._transport = cast(asyncio.Transport, None)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed a connection"))

    def data_received(self, data: bytes) -> None:
        if self._got:
            data = self._got + data
        if data[:1] not in b"23" or not data.endswith(b"\r\n"):
            if data.endswith(b"\r\n"):
                self._fail(data)
            self._got = data
            return
        count = sum(line[3:4] == b" " for line in data.split(b"\r\n"))
        if count < self._due:
            self._got = data
            return
        self._got = b""
        self._step()

    def _fail(self, data: bytes) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"the server said {data!r}"))

    def _hello(self) -> None:
        self._say(self._greeting + b" client.example\r\n", 1, self._mail)

    def _mail(self) -> None:
        number = next(self._numbers, None)
        if number is None:
            self._say(b"QUIT\r\n", 1, self._bye)
            return
        self._number = number
        envelope = b"MAIL FROM:<bounces@client.example>\r\nRCPT TO:<user%d@mx.example>\r\nDATA\r\n"
        self._say(envelope % (number % self._accounts), 3, self._body)

    def _bye(self) -> None:
        self.done.set_result(None)
        self._transport.close()

    def _body(self) -> None:
        self._say(self._make(self._number), 1, self._mail)

    def _say(self, data: bytes, due: int, then: Callable[[], None]) -> None:
        self._due = due
        self._step = then
        self._transport.write(data)


async def _send(port: int, count: int, connections: int, accounts: int, lmtp: bool) -> tuple[float, float]:
    loop = asyncio.get_running_loop()
    base = time.time_ns() // 1_000 % 90_000_000  # the same mail twice would be known again
    numbers, greeting = iter(range(base, base + count)), b"LHLO" if lmtp else b"EHLO"
    make = (conversations if lmtp else alike)(accounts)
    started = time.perf_counter()
    sessions = [
        (await loop.create_connection(lambda: _Session(numbers, make, accounts, greeting), "127.0.0.1", port))[1]
        for _ in range(min(count, connections))
    ]
    await asyncio.gather(*(session.done for session in sessions))
    return started, time.perf_counter()


def _run(pipe: Connection, port: int, count: int, connections: int, accounts: int, lmtp: bool) -> None:
    try:
        pipe.send(uvloop.run(_send(port, count, connections, accounts, lmtp)))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def send(port: int, count: int, connections: int, accounts: int = 1, *, lmtp: bool = False) -> float:
    """Seconds from the first connection to the last 250. Recipients are `user0@mx.example` and
    on, in turn.

    :param lmtp: speak LMTP, and send `conversations`.
    :raises RuntimeError: a message was not accepted.
    """
    began, ended = sent(port, count, connections, accounts, lmtp=lmtp)
    return ended - began


def sent(port: int, count: int, connections: int, accounts: int = 1, *, lmtp: bool = False) -> tuple[float, float]:
    """As `send`: when the first connection was made and when the last 250 came, by
    `time.perf_counter`, which is one clock for all processes of a machine. The client's own
    start, a second of imports, is not between them."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(theirs, port, count, connections, accounts, lmtp)
    )
    process.start()
    theirs.close()
    try:
        answer = material.received(ours, max(300.0, count / 100))
    finally:
        process.join(5)
        if process.is_alive():
            process.terminate()
    if not isinstance(answer, tuple):
        raise RuntimeError(str(answer))
    began, ended = cast(tuple[float, float], answer)
    return began, ended
