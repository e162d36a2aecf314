"""Mail that nobody should send, and peers that nobody should be: clear replies, bounded memory,
and mail of others arrives meanwhile."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mail_house import MEGABYTE, MailHouse, letters, mail_house, some_small
from tests.crash.receive_load import SENDER
from tests.receiving import DOMAIN, open_house

ENVELOPE = f"MAIL FROM:<peer@{SENDER}>\r\nRCPT TO:<ann@{DOMAIN}>\r\n".encode()
HEAD = f"From: Peer <peer@{SENDER}>\r\nSubject: Odd\r\nMessage-ID: <odd@{SENDER}>\r\n".encode()


class Talk:
    """A connection that says any octets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Talk:
        talk = cls(*await asyncio.open_connection("127.0.0.1", port))
        await talk.say(b"EHLO mx.peer.example\r\n", 2)
        return talk

    async def say(self, octets: bytes, replies: int = 1) -> list[bytes]:
        """The last line of each reply; fewer when the connection ends."""
        self.writer.write(octets)
        found: list[bytes] = []
        async with asyncio.timeout(60):
            await self.writer.drain()
            while len(found) < replies and (line := await self.reader.readline()):
                if line[3:4] != b"-":
                    found.append(line.rstrip())
        return found

    async def message(self, pieces: Iterator[bytes]) -> bytes:
        """The reply to its end. What is given holds no line that begins with a dot."""
        begun = await self.say(ENVELOPE + b"DATA\r\n", 3)
        assert begun[2].startswith(b"354"), begun
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
        (said,) = await self.say(b"\r\n.\r\n")
        return said

    def close(self) -> None:
        self.writer.close()


def one_line() -> Iterator[bytes]:
    yield HEAD + b"\r\n"
    for _ in range(35):
        yield b"x" * MEGABYTE


def many_headers() -> Iterator[bytes]:
    yield HEAD
    for start in range(0, 100_000, 1000):
        yield b"".join(b"X-Odd-%d: value %d\r\n" % (n, n) for n in range(start, start + 1000))
    yield b"\r\nHello\r\n"


def one_header() -> Iterator[bytes]:
    """A megabyte in one field, folded, with what sorts of it are hard to read."""
    yield HEAD + b"References:"
    for n in range(20_000):
        yield b" <%d@peer.example>\r\n" % n
    yield b"To: " + b",\r\n ".join(b'"a (b" <x%d@[' % n for n in range(20_000)) + b"\r\n\r\nHello\r\n"


def deep() -> Iterator[bytes]:
    yield HEAD
    for n in range(10_000):
        yield b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n)
    yield b"Content-Type: text/plain\r\n\r\nDeep\r\n"


def deep_messages() -> Iterator[bytes]:
    yield HEAD
    for _ in range(10_000):
        yield b"Content-Type: message/rfc822\r\n\r\n"
    yield b"Subject: Deep\r\n\r\nDeep\r\n"


def wide() -> Iterator[bytes]:
    yield HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
    for n in range(200):
        yield b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" * 1000 if n else b"--b\r\n\r\nFirst\r\n"
    yield b"--b--\r\n"


def zip_bomb() -> Iterator[bytes]:
    """A hundred archives in one, 50 MB of zeros in each."""
    inner = io.BytesIO()
    with (
        zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("zeros.txt", "w") as file,
    ):
        for _ in range(50):
            file.write(bytes(MEGABYTE))
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(100):
            archive.writestr(f"{n}.zip", inner.getvalue())
    yield HEAD + b'Content-Type: application/zip; name="a.zip"\r\nContent-Transfer-Encoding: binary\r\n\r\n'
    hexed = outer.getvalue().hex().encode()
    for start in range(0, len(hexed), 76):
        yield hexed[start : start + 76] + b"\r\n"


def attachment() -> Iterator[bytes]:
    """As large as it may be, and in order."""
    yield HEAD + b"Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    for _ in range(34):
        yield (b"QUJD" * 19 + b"\r\n") * (MEGABYTE // 78)


def markup() -> Iterator[bytes]:
    """Nested and unclosed."""
    yield HEAD + b"Content-Type: text/html\r\n\r\n"
    for _ in range(2000):
        yield b"<div><table><tr><td><b>" * 20 + b"\r\n" + b"<!--" * 20 + b"&lt" * 20 + b"\r\n"


@pytest.mark.timeout(110)
async def test_messages_that_nobody_should_send(tmp_path: Path) -> None:
    """Each is stored or refused in a sentence; memory stays within a few times the largest."""
    kinds: tuple[Callable[[], Iterator[bytes]], ...] = (
        one_line, many_headers, one_header, deep, deep_messages, wide, zip_bomb, attachment, markup,
    )  # fmt: skip
    async with mail_house(tmp_path) as house:
        assert set(await house.all_brought(letters(20))) == {"250"}
        await house.stored()
        growth: dict[str, int] = {}
        stored = 0
        for kind in kinds:
            before = house.forget_memory()
            talk = await Talk.open(house.port)
            said = await talk.message(kind())
            assert said[:4] in (b"250 ", b"550 ", b"552 ", b"554 "), (kind.__name__, said)
            assert len(said) > 15, said
            stored += said.startswith(b"250")
            assert (await talk.say(b"NOOP\r\n"))[0].startswith(b"250")
            talk.close()
            await house.stored(30)
            assert house.waiting("store") == 0
            growth[kind.__name__] = (house.most_memory() - before) // MEGABYTE
        assert max(growth.values()) < 250, growth
        assert set(await house.all_brought(letters(5, seed=2))) == {"250"}
        assert stored >= 5
        assert await _only_odd_ones_are_new(house) == stored


async def _only_odd_ones_are_new(house: MailHouse) -> int:
    """How many odd ones were stored; all else is as it should be."""
    await house.stored()
    await house.stop()
    async with open_house(house.server.settings) as opened:
        held = await opened.held()
        odd = [raw for raw, _ in held["ann"].letters if raw.startswith(HEAD)]
        assert await opened.findings() == []
        wanted = sum("ann" in claim.accounts for claim in house.accepted)
        assert len(held["ann"].letters) == wanted + len(odd)
    return len(odd)


@pytest.mark.timeout(90)
async def test_a_million_recipients_over_time(tmp_path: Path) -> None:
    """A fiftieth of them: unknown ones are refused, each with a reply, until the session ends;
    tagged ones are known. Neither is remembered for long."""
    async with mail_house(tmp_path) as house:
        assert set(await house.all_brought(some_small(10))) == {"250"}
        await _recipients(house, 5000, "nobody-{}")  # what is kept of them is kept now
        before = house.memory()
        refused, taken = await _recipients(house, 10_000, "stranger-{}")
        assert (refused, taken) == (10_000, 0)
        refused, taken = await _recipients(house, 10_000, "ann+{}")
        assert (refused, taken) == (0, 10_000)
        assert house.memory() - before < 25 * MEGABYTE
        assert await house.judged() == []


async def _recipients(house: MailHouse, count: int, name: str) -> tuple[int, int]:
    refused = taken = said = 0
    while said < count:
        talk = await Talk.open(house.port)
        block = b"".join(f"RCPT TO:<{name.format(said + n)}@{DOMAIN}>\r\n".encode() for n in range(100))
        replies = await talk.say(b"MAIL FROM:<>\r\n" + block, 101)
        refused += sum(reply.startswith(b"550 5.1.1") for reply in replies)
        taken += sum(reply.startswith(b"250 2.1.5") for reply in replies)
        said += 100
        talk.close()
    return refused, taken


@pytest.mark.timeout(60)
async def test_peers_that_leave_in_the_middle(tmp_path: Path) -> None:
    """Nothing of theirs is kept, and QUIT in a body is content."""
    async with mail_house(tmp_path) as house:
        for early in (
            b"QUIT\r\n",
            b"MAIL FROM:<>\r\nQUIT\r\n",
            ENVELOPE + b"QUIT\r\n",
            ENVELOPE + b"BDAT 5\r\nHelloQUIT\r\n",
        ):
            talk = await Talk.open(house.port)
            assert (await talk.say(early, early.count(b"\r\n")))[-1].startswith(b"221 ")
            assert await talk.reader.read() == b""
            talk.close()
        for gone in (
            ENVELOPE,
            ENVELOPE + b"DATA\r\n" + HEAD + b"\r\nQUIT\r\n",
            ENVELOPE + b"DATA\r\n" + HEAD + b"\r\nHello\r\n.",
            ENVELOPE + b"DATA\r\n" + HEAD + b"\r\n" + b"x" * 70 * MEGABYTE,
            ENVELOPE + b"BDAT 100 LAST\r\n" + HEAD,
        ):
            talk = await Talk.open(house.port)
            talk.writer.write(gone)
            await asyncio.sleep(0.1)
            talk.writer.transport.abort()
        talk = await Talk.open(house.port)
        said = await talk.say(ENVELOPE + b"DATA\r\n" + HEAD + b"\r\nQUIT\r\n.\r\nQUIT\r\n", 5)
        assert [line[:3] for line in said] == [b"250", b"250", b"354", b"250", b"221"]
        talk.close()
        assert set(await house.all_brought(letters(5))) == {"250"}
        assert await _only_odd_ones_are_new(house) == 1


@pytest.mark.timeout(110)
async def test_sessions_that_send_an_octet_a_minute(tmp_path: Path) -> None:
    """Forty of them, and mail of others comes as ever. Minutes pass when the test says so."""
    async with mail_house(tmp_path, shim=True) as house:
        assert set(await house.all_brought(letters(5))) == {"250"}
        before = house.memory()
        slow = [await Talk.open(house.port) for _ in range(40)]
        for n, talk in enumerate(slow):
            if n % 2:
                await talk.say(ENVELOPE + b"DATA\r\n", 3)
        ends = [asyncio.create_task(talk.reader.read()) for talk in slow]
        for minute in range(1, 13):
            for talk in slow:
                talk.writer.write(b"X")
            house.machine.set(clock=minute * 60)
            await asyncio.sleep(0.05)
        (letter,) = letters(1, seed=3)
        started = time.monotonic()
        assert await house.brought(letter) == "250"
        assert time.monotonic() - started < 60
        async with asyncio.timeout(20):
            said = await asyncio.gather(*ends)
        assert {one[:9] for one in said} == {b"421 4.4.2"}
        assert house.memory() - before < 20 * MEGABYTE
        for talk in slow:
            talk.close()
        assert await house.judged() == []
