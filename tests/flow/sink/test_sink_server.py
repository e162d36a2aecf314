"""The sink as a server: log, counts, processes, command, bounds."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from posthouse.smtp.offer import Limits
from posthouse.smtpd.sink import Options, Sink
from posthouse.smtpd.sink.processes import Group
from posthouse.smtpd.sink.stats import StatsServer

BODY = b"Subject: x\r\nMessage-ID: <1@x.test>\r\n\r\n" + b"line\r\n" * 1000


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes, replies: int = 1) -> list[bytes]:
        """Write, and read whole replies."""
        self.writer.write(data)
        lines: list[bytes] = []
        async with asyncio.timeout(10):
            while len(lines) < replies:
                line = await self.reader.readline()
                if not line:
                    break
                if line[3:4] == b" ":
                    lines.append(line.rstrip())
        return lines


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Peer(reader, writer)
    await client.say(b"EHLO client.test\r\n", 2)
    try:
        yield client
    finally:
        writer.close()


def transaction(to: str = "user@x.test", body: bytes = BODY) -> bytes:
    return f"MAIL FROM:<a@x.test>\r\nRCPT TO:<{to}>\r\nBDAT {len(body)} LAST\r\n".encode() + body


async def test_every_outcome_is_in_the_log_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Sink(Options(log=log, memory=0)) as sink:
        async with peer(sink.port) as client:
            await client.say(transaction(), 3)
            await client.say(transaction("bounce@x.test") + b"RSET\r\n", 4)
            await client.say(transaction("spam@x.test"), 3)
            await client.say(transaction(body=b"bare\nlf\r\n"), 3)
            await client.say(transaction("drop-final@x.test"), 9)
        await asyncio.sleep(0.12)
        lines = [json.loads(line) for line in log.read_bytes().splitlines()]
        assert not sink.messages
    assert [(line["outcome"], line["stage"], line["to"]) for line in lines] == [
        ("250 2.0.0", "data", ["user@x.test"]),
        ("550 5.1.1", "rcpt", ["bounce@x.test"]),
        ("550 5.7.1", "data", ["spam@x.test"]),
        ("550 5.6.11", "data", ["user@x.test"]),
        ("dropped", "data", ["drop-final@x.test"]),
    ]
    assert [line.get("message_id") for line in lines] == ["<1@x.test>", None, "<1@x.test>", None, "<1@x.test>"]
    assert lines[0]["size"] == lines[4]["size"] == len(BODY)
    assert lines[0]["from"] == "a@x.test"


async def test_a_large_message_in_many_pieces_is_kept_whole(tmp_path: Path) -> None:
    body = b"".join(b"%07d\r\n" % number for number in range(300_000))
    async with Sink(Options(keep=tmp_path / "mail", memory=1)) as sink, peer(sink.port) as client:
        assert (await client.say(transaction(body=body), 3))[2].startswith(b"250")
        await client.say(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<u@x.test>\r\nDATA\r\n", 3)
        assert (await client.say(b"." + body + b".\r\n"))[0].startswith(b"250")
        assert sink.messages[0].data == body
    assert [path.read_bytes() == body for path in sorted((tmp_path / "mail").glob("*.eml"))] == [True, True]


async def test_stopping_says_421_and_writes_the_log(tmp_path: Path) -> None:
    async with Sink(Options(log=tmp_path / "log")) as sink, peer(sink.port) as client:
        await client.say(transaction(), 3)
        client.writer.write(transaction("slow-60@x.test"))
        await asyncio.sleep(0.05)
        await sink.stop()
        assert (await client.say(b"", 9))[-1].startswith(b"421 4.3.2")
        assert len((tmp_path / "log").read_bytes().splitlines()) == 1
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", sink.port)


async def test_received_waits_and_gives_up() -> None:
    async with Sink() as sink, peer(sink.port) as client:
        with pytest.raises(TimeoutError):
            await sink.received(1, 0.05)
        waiting = asyncio.create_task(sink.received(2, 10))
        await client.say(transaction() + transaction(), 6)
        await waiting
        assert sink.counts.per_second > 0


async def test_a_peer_that_reads_nothing_is_not_read_for_ever() -> None:
    async with Sink(Options(limits=Limits(idle=10**9))) as sink, peer(sink.port) as client:
        client.writer.transport.pause_reading()
        for _ in range(4000):
            client.writer.write(b"NOOP\r\n" * 10_000)
            if client.writer.transport.get_write_buffer_size() > 16_000_000:
                break
            await asyncio.sleep(0)
        assert client.writer.transport.get_write_buffer_size() > 16_000_000
        client.writer.transport.abort()


async def http(port: int, request: bytes) -> tuple[int, dict[str, object]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return (int(head.split()[1]), json.loads(body)) if head else (0, {})


async def test_counts_over_http() -> None:
    async with Sink() as sink, peer(sink.port) as client:

        async def read():
            return sink.counts

        async def reset() -> None:
            sink.counts.reset()

        stats = StatsServer(read, reset)
        await stats.start("127.0.0.1", 0)
        await client.say(transaction() + transaction("full@x.test"), 6)
        status, report = await http(stats.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, report["accepted"], report["refused"]) == (200, 1, {"452 4.2.2": 1})
        assert (await http(stats.port, b"GET /x HTTP/1.1\r\n\r\n"))[0] == 404
        assert (await http(stats.port, b"DELETE / HTTP/1.1\r\n\r\n"))[0] == 405
        assert (await http(stats.port, b"x" * 10_000))[0] == 0
        status, report = await http(stats.port, b"POST /reset HTTP/1.1\r\n\r\n")
        assert (status, report["accepted"], report["open"]) == (200, 0, 1)
        await stats.stop()


async def test_processes_share_a_port_and_add_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Group(Options(log=log, tls=False), 2) as group:
        for _ in range(12):
            async with peer(group.port) as client:
                await client.say(transaction() + transaction("bounce@x.test"), 6)
        counts = await group.counts()
        assert (counts.accepted, counts.refused["550 5.1.1"], counts.connections) == (12, 12, 12)
        await group.reset()
        assert (await group.counts()).accepted == 0
    assert len([json.loads(line) for line in log.read_bytes().splitlines()]) == 24


async def test_a_group_that_cannot_start_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="did not start"):
        async with Group(Options(log=tmp_path / "no" / "log"), 1):
            pass
    with pytest.raises(ValueError, match="one process"):
        Group(Options(), 0)


COMMAND = "import typer; from posthouse.cli.sink import command; typer.run(command)"


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        COMMAND,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "src"},
    )


async def test_the_command_runs_until_told() -> None:
    process = await start("--port", "0", "--json", "--no-chunking", "--no", "dsn", "--no-tls", "--stats-port", "0")
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(30):
        said = (await process.stderr.readline()).decode()
        match = re.search(r":(\d+), counts on http://127.0.0.1:(\d+)/", said)
        assert match, said
        reader, writer = await asyncio.open_connection("127.0.0.1", int(match[1]))
        writer.write(b"EHLO x.test\r\n")
        hello = await reader.readuntil(b"250 LIMITS RCPTMAX=1000\r\n")
        assert b"PIPELINING" in hello
        assert not re.search(rb"CHUNKING|BINARYMIME|DSN|STARTTLS", hello)
        writer.write(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<u@x.test>\r\nDATA\r\n")
        await reader.readuntil(b"354 End data with <CR><LF>.<CR><LF>\r\n")
        writer.write(b"x\r\n.\r\n")
        await reader.readuntil(b"Ok\r\n")
        writer.close()
        process.send_signal(signal.SIGUSR1)
        assert json.loads(await process.stdout.readline())["accepted"] == 1
        assert (await http(int(match[2]), b"GET / HTTP/1.1\r\n\r\n"))[1]["accepted"] == 1
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["accepted"] == 1


async def test_the_command_stops_by_itself_and_refuses_nonsense() -> None:
    process = await start("--port", "0", "--json", "--stop-after", "2")
    assert process.stderr is not None
    async with asyncio.timeout(30):
        port = int((await process.stderr.readline()).decode().rpartition(":")[2])
        async with peer(port) as client:
            await client.say(transaction() + transaction(), 6)
        out, _ = await process.communicate()
        assert json.loads(out)["accepted"] == 2
    wrongs = [["--mix", "bounce"], ["--no", "what"], ["--keep-as", "tar"], ["--log", "/nonexistent/log"]]
    for process, wrong in zip(
        await asyncio.gather(*(start("--port", "0", *wrong) for wrong in wrongs)), wrongs, strict=True
    ):
        async with asyncio.timeout(30):
            _, error = await process.communicate()
        assert process.returncode != 0, wrong
        assert b"Traceback" not in error
