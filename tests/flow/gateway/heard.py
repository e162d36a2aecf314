"""A house that writes down what it was asked, and a client that says any octets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path
from typing import Any

from posthouse.smtp.command import Hello, Mail, Rcpt
from posthouse.smtp.peer import Peer, Tls
from posthouse.smtp.reply import Reply
from posthouse.smtpd.conversation import Answer
from posthouse.smtpd.gateway import Gateway, Listener, Options, Spooling

OK = Reply(250, "2.0.0", ("Kept",))
BODY = b"Subject: x\r\n\r\n" + b"a line of the message\r\n" * 20
ENVELOPE = b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@mx.test>\r\n"


@dataclass
class Talk:
    """The conversation of one connection. `house.answers` maps a step to what it answers: a
    reply, an exception to raise, or a function that gives either or an awaitable."""

    house: House
    peer: Peer
    steps: list[str] = field(default_factory=list)
    recipients: list[Rcpt] = field(default_factory=list)

    def _answer(self, step: str, *what: Any) -> Any:
        self.steps.append(step)
        answer = self.house.answers.get(step)
        if callable(answer):
            answer = answer(*what)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def connected(self) -> Answer:
        return self._answer("connected")

    def early(self) -> None:
        self._answer("early")

    def hello(self, command: Hello, tls: Tls | None) -> Answer:
        self.house.tls.append(tls)
        return self._answer("hello", command)

    def mail(self, command: Mail) -> Answer:
        self.house.mails.append(command)
        self.recipients = []
        return self._answer("mail", command)

    def rcpt(self, command: Rcpt) -> Answer:
        answer = self._answer("rcpt", command)
        if answer is None:
            self.recipients.append(command)
        return answer

    def end(self, message: bytes | mmap) -> Awaitable[Sequence[Reply]]:
        answer = self._answer("end", message)
        self.house.kinds.append(type(message).__name__)
        self.house.messages.append(bytes(message))
        if answer is None:
            replies = [OK] * (len(self.recipients) if self.peer.listener == "lmtp" else 1)
            answer = asyncio.get_running_loop().create_future()
            answer.set_result(replies)
        return answer

    def reset(self) -> None:
        self._answer("reset")

    def lost(self) -> None:
        self._answer("lost")


class House:
    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.talks: list[Talk] = []
        self.messages: list[bytes] = []
        self.kinds: list[str] = []
        self.mails: list[Mail] = []
        self.tls: list[Tls | None] = []

    def __call__(self, peer: Peer) -> Talk:
        talk = Talk(self, peer)
        self.talks.append(talk)
        return talk

    @property
    def steps(self) -> list[str]:
        """Of the only connection."""
        (talk,) = self.talks
        return talk.steps

    async def lost(self) -> None:
        """Until every connection is gone."""
        await until(lambda: all(talk.steps[-1:] == ["lost"] for talk in self.talks))


async def until(there: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not there():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def gateway(
    house: House, spool: Path, *listeners: Listener, spooling: dict[str, Any] | None = None, **options: Any
) -> AsyncGenerator[Gateway, None]:
    """`spooling`: what differs from the usual."""
    chosen = Options(
        "mx.test", listeners or (Listener("mx"),), Spooling(spool, **{"least_free": 0, **(spooling or {})}), **options
    )
    async with Gateway(house, chosen) as running:
        yield running


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes, replies: int = 1) -> list[bytes]:
        """Write, and read so many whole replies, or fewer when the connection ends."""
        self.writer.write(data)
        return await self.replies(replies)

    async def replies(self, count: int = 1) -> list[bytes]:
        """The last line of each."""
        found: list[bytes] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                line = await self.reader.readline()
                if not line:
                    break
                if line[3:4] == b" ":
                    found.append(line.rstrip())
        return found

    async def ended(self) -> bytes:
        """What comes until the other side ends it."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b"reset"

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def message(self, body: bytes = BODY) -> bytes:
        """A transaction; the reply to its end."""
        wire = body.replace(b"\r\n.", b"\r\n..")
        assert [line[:3] for line in await self.say(ENVELOPE + b"DATA\r\n", 3)] == [b"250", b"250", b"354"]
        return (await self.say(wire + b".\r\n"))[0]

    async def start_tls(self) -> None:
        assert (await self.say(b"STARTTLS\r\n"))[0][:3] == b"220"
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        async with asyncio.timeout(10):
            await self.writer.start_tls(context)


@asynccontextmanager
async def client(port: int, hello: bytes = b"EHLO client.test\r\n") -> AsyncGenerator[Client, None]:
    """Greeted, when `hello` is not empty."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    found = Client(reader, writer)
    if hello:
        assert (await found.say(hello, 2))[-1][:3] == b"250"
    try:
        yield found
    finally:
        writer.close()
