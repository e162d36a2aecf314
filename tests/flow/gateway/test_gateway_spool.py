"""Where messages are kept until they are whole, and what happens when there is no room."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from mmap import mmap
from pathlib import Path
from typing import Any

import pytest
from heard import BODY, ENVELOPE, OK, House, client, gateway, until

from posthouse.smtp.offer import Limits
from posthouse.smtp.reply import Reply
from posthouse.smtpd.gateway import Gateway

LINE = b"0123456789" * 9 + b"\r\n"
LARGE = b"Subject: large\r\n\r\n" + LINE * 20_000  # 1.8 MB
SMALL = {"in_memory": 64 * 1024}
NO_ROOM = b"452 4.3.1 No room for the message now; try again later"


def used(running: Gateway) -> int:
    shared = running._shared  # pyright: ignore[reportPrivateUsage]
    assert shared is not None
    return shared.spool.used


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_a_large_message_is_a_map_of_a_file_without_a_name(tmp_path: Path) -> None:
    seen: list[tuple[str, list[Path], mmap]] = []

    async def look(message: Any) -> list[Reply]:
        seen.append((type(message).__name__, list(tmp_path.iterdir()), message))
        with pytest.raises(TypeError):
            message[0] = 0
        assert message.find(b"Subject") == 0
        return [OK]

    house = House(end=look)
    before = descriptors()
    async with gateway(house, tmp_path, spooling=SMALL) as running:
        async with client(running.ports[0]) as peer:
            assert await peer.message(LARGE) == b"250 2.0.0 Kept"
            assert await peer.message() == b"250 2.0.0 Kept"
            large = b"".join(b"BDAT %d\r\n" % 90_000 + LARGE[at : at + 90_000] for at in range(0, 900_000, 90_000))
            rest = LARGE[900_000:]
            sent = ENVELOPE + large + b"BDAT %d LAST\r\n" % len(rest) + rest
            assert (await peer.say(sent, 13))[-1] == b"250 2.0.0 Kept"
            assert used(running) == 0
        await house.lost()
    assert house.messages == [LARGE, BODY, LARGE]
    assert [(kind, paths) for kind, paths, _ in seen] == [("mmap", []), ("bytes", []), ("mmap", [])]
    assert seen[0][2].closed
    await until(lambda: descriptors() <= before + 2)


async def test_memory_is_bounded_by_going_to_files_and_then_refusing(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def later() -> list[Reply]:
        await release.wait()
        return [OK]

    house = House(end=lambda _: later())
    piece = b"x" * 98 + b"\r\n"
    async with gateway(house, tmp_path, spooling={"in_memory": 100_000, "memory": 150_000}) as running:
        port = running.ports[0]
        async with client(port) as first, client(port) as second, client(port) as third:
            for peer in (first, second):
                await peer.say(ENVELOPE + b"DATA\r\n", 3)
            first.writer.write(piece * 990 + b".\r\n")  # 99,000 in memory while `end` is at work
            await until(lambda: house.kinds == ["bytes"])
            second.writer.write(piece * 600)
            await until(lambda: used(running) <= 99_000 + 60_000)
            second.writer.write(piece * 100 + b".\r\n")
            await until(lambda: len(house.messages) == 2)
            assert house.kinds == ["bytes", "mmap"]  # though it was small: all together was too much
            release.clear()
            assert used(running) == 99_000
            async with client(port) as fourth:
                await fourth.say(ENVELOPE + b"DATA\r\n", 3)
                fourth.writer.write(piece * 520 + b".\r\n")
                await until(lambda: len(house.messages) == 3)
                if used(running) >= 150_000:
                    assert await third.say(b"MAIL FROM:<>\r\n") == [NO_ROOM]
                release.set()
                assert await first.replies() == [b"250 2.0.0 Kept"]
                assert await fourth.replies() == [b"250 2.0.0 Kept"]
            assert await third.message() == b"250 2.0.0 Kept"
            assert used(running) == 0


async def test_no_transaction_begins_when_memory_is_used_up(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def later() -> list[Reply]:
        await release.wait()
        return [OK]

    house = House(end=lambda _: later())
    async with (
        gateway(house, tmp_path, spooling={"memory": len(BODY)}) as running,
        client(running.ports[0]) as first,
        client(running.ports[0]) as second,
    ):
        await first.say(ENVELOPE + b"DATA\r\n", 3)
        first.writer.write(BODY[:-10])
        first.writer.write(BODY[-10:] + b".\r\n")
        await until(lambda: len(house.messages) == 1)
        if house.kinds == ["bytes"]:
            assert await second.say(b"MAIL FROM:<>\r\n") == [NO_ROOM]
        release.set()
        assert await first.replies() == [b"250 2.0.0 Kept"]
        assert (await second.say(b"MAIL FROM:<>\r\n"))[0][:3] == b"250"
    assert house.messages == [BODY]


async def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    free = state.f_bavail * state.f_frsize
    house = House()
    async with gateway(house, tmp_path, spooling={"least_free": 2 * free}) as running, client(running.ports[0]) as peer:
        assert await peer.say(b"MAIL FROM:<a@client.test>\r\n") == [NO_ROOM]
        assert await peer.say(b"NOOP\r\n") == [b"250 2.0.0 Ok"]
    assert "mail" not in house.steps
    async with (
        gateway(House(), tmp_path, limits=Limits(size=10**18), spooling={"least_free": 0}) as running,
        client(running.ports[0]) as peer,
    ):
        assert await peer.say(b"MAIL FROM:<a@client.test> SIZE=%d\r\n" % (2 * free)) == [NO_ROOM]
        assert await peer.message() == b"250 2.0.0 Kept"


@pytest.mark.parametrize("fails", ["open", "first", "last"])
@pytest.mark.parametrize("chunks", [False, True])
async def test_a_write_that_fails_is_told_and_the_session_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, chunks: bool
) -> None:
    real, written = os.write, 0

    def write(descriptor: int, data: Any) -> int:
        nonlocal written
        if threading.current_thread().name.startswith("spool"):
            written += len(data)
            if fails == "first" or written >= len(LARGE) - 1000:
                raise OSError(errno.ENOSPC, "disk full")
        return real(descriptor, data)

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "disk full")

    house = House()
    async with gateway(house, tmp_path, spooling=SMALL) as running, client(running.ports[0]) as peer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            if fails == "open":
                patch.setattr("posthouse.smtpd.gateway.spool.Spool.open", refuse)
            if chunks:
                sent = ENVELOPE + b"BDAT %d LAST\r\n" % len(LARGE) + LARGE
                assert (await peer.say(sent, 3))[-1] == NO_ROOM
            else:
                assert await peer.message(LARGE) == NO_ROOM
        assert house.steps == ["connected", "hello", "mail", "rcpt", "reset"]
        assert used(running) == 0
        assert await peer.message(LARGE) == b"250 2.0.0 Kept"
    assert house.messages == [LARGE]


async def test_a_slow_disk_stops_the_reading_and_not_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real = threading.Event(), os.write

    def write(descriptor: int, data: Any) -> int:
        if threading.current_thread().name.startswith("spool"):
            assert gate.wait(10)
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    house = House()
    size = 30_000_000
    async with (
        gateway(house, tmp_path, spooling=SMALL) as running,
        client(running.ports[0]) as slow,
        client(running.ports[0]) as other,
    ):
        await slow.say(ENVELOPE + b"BDAT %d LAST\r\n" % size, 2)
        slow.writer.write(LINE * (size // len(LINE)) + b"x" * (size % len(LINE)))
        await until(lambda: used(running) > 64_000)
        await asyncio.sleep(0.1)
        assert used(running) < 2_000_000
        assert await other.message() == b"250 2.0.0 Kept"
        gate.set()
        assert await slow.replies() == [b"250 2.0.0 Kept"]
        assert used(running) == 0
    assert len(house.messages[1]) == size


@pytest.mark.parametrize("busy", [False, True])
async def test_a_connection_lost_while_spooling_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    gate, real = threading.Event(), os.write
    if not busy:
        gate.set()

    def write(descriptor: int, data: Any) -> int:
        if threading.current_thread().name.startswith("spool"):
            assert gate.wait(10)
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    house = House()
    async with gateway(house, tmp_path, spooling=SMALL) as running:
        before = descriptors()
        async with client(running.ports[0]) as peer:
            await peer.say(ENVELOPE + b"DATA\r\n", 3)
            peer.writer.write(LARGE[:200_000])
            await until(lambda: used(running) > 1000 or not busy)
            await asyncio.sleep(0.05)
            peer.reset()
        if not busy:
            await house.lost()
        gate.set()
        await house.lost()
        await until(lambda: used(running) == 0)
        await until(lambda: descriptors() <= before)
    assert house.steps[-2:] == ["reset", "lost"]


async def test_stale_files_are_removed_at_the_start_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "posthouse-0123456789abcdef.spool").write_bytes(b"half")
    (tmp_path / "mine.txt").write_bytes(b"mine")
    async with gateway(House(), tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


async def test_a_file_system_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_WRONLY | os.O_EXCL | os.O_CREAT)  # of a directory: refused
    modes: list[int] = []
    real = os.unlink

    def unlink(path: Any, **how: Any) -> None:
        if str(path).endswith(".spool"):
            modes.append(Path(path).stat().st_mode & 0o777)
        real(path, **how)

    monkeypatch.setattr(os, "unlink", unlink)
    house = House()
    async with gateway(house, tmp_path, spooling=SMALL) as running, client(running.ports[0]) as peer:
        assert await peer.message(LARGE) == b"250 2.0.0 Kept"
        assert list(tmp_path.iterdir()) == []
    assert set(modes) == {0o600}
    assert house.kinds == ["mmap"]


@pytest.mark.parametrize(("text_line", "reply"), [(1000, b"550 5.6.0"), (0, b"250 2.0.0")])
async def test_36_megabytes_of_one_line(tmp_path: Path, text_line: int, reply: bytes) -> None:
    house = House()
    limits = Limits(size=36 * 1024 * 1024, text_line=text_line)
    async with gateway(house, tmp_path, limits=limits) as running, client(running.ports[0]) as peer:
        await peer.say(ENVELOPE + b"DATA\r\n", 3)
        most = 0
        for _ in range(35):
            peer.writer.write(b"x" * 1024 * 1024)
            await peer.writer.drain()
            most = max(most, used(running))
        assert (await peer.say(b"\r\n.\r\n"))[0].startswith(reply)
        assert most < 4 * 1024 * 1024
        assert await peer.say(b"NOOP\r\n") == [b"250 2.0.0 Ok"]
    assert [len(message) for message in house.messages] == ([] if text_line else [35 * 1024 * 1024 + 2])


async def test_far_more_than_a_message_may_have(tmp_path: Path) -> None:
    async with gateway(House(), tmp_path, limits=Limits(size=100_000)) as running, client(running.ports[0]) as peer:
        await peer.say(ENVELOPE + b"DATA\r\n", 3)
        assert await peer.say(LINE * 2000 + b".\r\n") == [b"552 5.3.4 The message is too large"]
        await peer.say(ENVELOPE + b"DATA\r\n", 3)
        peer.writer.write(LINE * 30_000)
        assert (await peer.ended()).startswith(b"421 4.3.4 Far more octets")
