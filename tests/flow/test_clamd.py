"""Scanners over real sockets: clamd's protocol from a script, and an HTTP hook."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from posthouse.errors import Misconfigured, TooLarge, Unavailable
from posthouse.inbound.filter.hook import HttpScanner
from posthouse.inbound.filter.scanner import ClamdScanner
from posthouse.net.clamd import Clamd

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
MAIL = b"From: a@b.example\r\n\r\n" + b"x" * 200_000


@asynccontextmanager
async def serving(handler: Handler, path: Path | None = None) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[object]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    if path is not None:
        server = await asyncio.start_unix_server(run, str(path))
    else:
        server = await asyncio.start_server(run, "127.0.0.1", 0)
    try:
        yield str(path) if path else f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Daemon:
    """Reads a stream as clamd does and answers `reply`. `limit`: octets it takes."""

    def __init__(self, reply: bytes, *, limit: int = 10**9, wait: float = 0.0) -> None:
        self.reply, self.limit, self.wait = reply, limit, wait
        self.heard: list[bytes] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            writer.write(await self._answer(reader))
            await writer.drain()
        finally:
            self.at_once -= 1

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if await reader.readuntil(b"\0") == b"zPING\0":
            return b"PONG\0"
        whole = b""
        while size := struct.unpack("!I", await reader.readexactly(4))[0]:
            whole += await reader.readexactly(size)
            if len(whole) > self.limit:
                return b"INSTREAM size limit exceeded. ERROR\0"
        self.heard.append(whole)
        await asyncio.sleep(self.wait)
        return self.reply


@pytest.mark.parametrize(
    ("reply", "virus"),
    [
        (b"stream: OK\0", None),
        (b"stream: Eicar-Test-Signature FOUND\0", "Eicar-Test-Signature"),
        (b"stream: Odd\x1b[31m Name FOUND\n", "Odd�[31m Name"),
    ],
)
async def test_what_clamd_answers(reply: bytes, virus: str | None) -> None:
    daemon = Daemon(reply)
    async with serving(daemon) as address:
        assert await Clamd(address).scan(MAIL) == virus
    assert daemon.heard == [MAIL]


async def test_it_listens_on_a_socket_file(tmp_path: Path) -> None:
    async with serving(Daemon(b"stream: OK\0"), tmp_path / "clamd.ctl") as path:
        clamd = Clamd(path)
        await clamd.ping()
        assert await clamd.scan(b"") is None


async def test_a_size_that_it_refuses() -> None:
    async with serving(Daemon(b"", limit=70_000)) as address:
        with pytest.raises(TooLarge):
            await Clamd(address).scan(MAIL * 20)
        with pytest.raises(TooLarge):
            await Clamd(address, most=100).scan(MAIL)
        finding = await ClamdScanner(Clamd(address, most=100), required=True).scan(MAIL)
        assert finding.holds
        assert not (await ClamdScanner(Clamd(address, most=100)).scan(MAIL)).holds


@pytest.mark.parametrize("reply", [b"", b"stream: Can't open file. ERROR\0", b"x" * 10_000, b"\0"])
async def test_an_answer_that_is_none(reply: bytes) -> None:
    async with serving(Daemon(reply)) as address:
        with pytest.raises(Unavailable):
            await Clamd(address).scan(MAIL)
        finding = await ClamdScanner(Clamd(address)).scan(MAIL)
        assert finding.unscanned
        assert not finding.holds


async def test_nobody_listens() -> None:
    async with serving(Daemon(b"")) as address:
        pass
    clamd = Clamd(address)
    with pytest.raises(Unavailable):
        await clamd.scan(MAIL)
    with pytest.raises(Unavailable):
        await ClamdScanner(clamd, required=True).scan(MAIL)


async def test_a_server_that_hangs_is_not_waited_for_by_everybody() -> None:
    daemon = Daemon(b"stream: OK\0", wait=30.0)
    async with serving(daemon) as address:
        clamd = Clamd(address, timeout=0.2, connections=2)
        started = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(clamd.scan(b"x") for _ in range(20)), return_exceptions=True)
        assert asyncio.get_running_loop().time() - started < 2.0
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert len(daemon.heard) <= 4


async def test_a_queue_before_a_slow_server_is_no_failure() -> None:
    daemon = Daemon(b"stream: OK\0", wait=0.05)
    async with serving(daemon) as address:
        clamd = Clamd(address, timeout=0.5, connections=2)
        assert await asyncio.gather(*(clamd.scan(b"x") for _ in range(30))) == [None] * 30
    assert daemon.most_at_once <= 2


@pytest.mark.parametrize("address", ["", "localhost", "localhost:0", "localhost:x", ":3310", "localhost:99999"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(Misconfigured):
        Clamd(address)


def answering(body: bytes, status: str = "200 OK", *, wait: float = 0.0, heard: list[bytes] | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = [
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        ]
        whole = await reader.readexactly(length)
        if heard is not None:
            heard.append(whole)
        await asyncio.sleep(wait)
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nLocation: http://192.0.2.1/\r\n\r\n".encode() + body
        )
        await writer.drain()

    return handle


async def test_what_the_hook_answers() -> None:
    heard: list[bytes] = []
    async with serving(answering(b'{"score": 2.5, "reasons": ["odd"], "more": 1}', heard=heard)) as address:
        scanner = HttpScanner(f"http://{address}/scan")
        finding = await scanner.scan(MAIL)
        await scanner.close()
    assert (finding.score, finding.reasons, finding.holds) == (2.5, ("odd",), False)
    assert heard == [MAIL]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"no json", "200 OK"), (b'{"score": "many"}', "200 OK"), (b"{}", "500 Oops"), (b"", "302 Found"), (b" " * 70_000, "200 OK"),
     (b'{"reasons": [1]}', "200 OK"), (b"\xff", "200 OK")],
)  # fmt: skip
async def test_an_answer_of_the_hook_that_is_none(body: bytes, status: str) -> None:
    async with serving(answering(body, status)) as address:
        open_, closed = HttpScanner(f"http://{address}/"), HttpScanner(f"http://{address}/", required=True)
        assert (await open_.scan(MAIL)).unscanned
        with pytest.raises(Unavailable):
            await closed.scan(MAIL)
        await open_.close()
        await closed.close()


async def test_a_hook_that_hangs_or_is_away() -> None:
    async with serving(answering(b"{}", wait=20.0)) as address:
        scanner = HttpScanner(f"http://{address}/", timeout=0.2)
        assert "in time" in str((await scanner.scan(MAIL)).unscanned)
        await scanner.close()
    scanner = HttpScanner(f"http://{address}/", timeout=0.5)
    assert "reached" in str((await scanner.scan(MAIL)).unscanned)
    assert "larger" in str((await HttpScanner("http://127.0.0.1:9/", most=10).scan(MAIL)).unscanned)
    await scanner.close()
