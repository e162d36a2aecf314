"""Connections, times and pace: who is refused, who is ended, and who is not."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from heard import BODY, ENVELOPE, OK, Client, House, client, gateway, until

from posthouse.smtp.offer import Limits
from posthouse.smtp.reply import Reply
from posthouse.smtpd.gateway import Gateway, Listener, Options, Pace, Spooling, Timeouts

QUICK = Timeouts(command=0.2, data=0.2, linger=0.2)


async def test_too_many_connections(tmp_path: Path) -> None:
    async with gateway(House(), tmp_path, connections=2, per_address=0) as running:
        port = running.ports[0]
        async with client(port), client(port) as second, client(port, b"") as third:
            assert (await third.replies())[0].startswith(b"421 4.7.0 Too many connections here")
            assert await third.ended() == b""
            await second.say(b"QUIT\r\n")
            await until(lambda: running.sessions == 1)
            async with client(port) as fourth:
                assert await fourth.message() == b"250 2.0.0 Kept"


async def test_too_many_connections_from_one_address(tmp_path: Path) -> None:
    listeners = (Listener("mx"), Listener("lmtp"))
    async with gateway(House(), tmp_path, *listeners, per_address=1) as running:
        port = running.ports[0]
        async with client(port) as first, client(port, b"") as second:
            assert (await second.replies())[0].startswith(b"421 4.7.0 Too many connections from your network")
            async with client(running.ports[1], b"LHLO a.test\r\n"), client(running.ports[1], b"LHLO b.test\r\n"):
                pass  # a front server speaks for many
            first.reset()
        await until(lambda: running.sessions == 0)
        async with client(port):
            pass


async def test_a_conversation_that_cannot_begin(tmp_path: Path) -> None:
    def broken(_: object) -> Any:
        raise ZeroDivisionError("a fault")

    options = Options("mx.test", [Listener("mx")], Spooling(tmp_path, least_free=0))
    async with Gateway(broken, options) as running, client(running.ports[0], b"") as peer:
        assert (await peer.replies())[0].startswith(b"421 4.3.0")
        await until(lambda: running.sessions == 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"EHLO client.test\r\n",
        b"EHLO client.test\r\n" + ENVELOPE,
        b"EHLO client.test\r\n" + ENVELOPE + b"DATA\r\nSubject: x\r\n",
        b"EHLO client.test\r\n" + ENVELOPE + b"BDAT 100\r\nSubject: x\r\n",
    ],
)
async def test_a_silent_peer_is_told_and_left(tmp_path: Path, sent: bytes) -> None:
    house = House()
    async with gateway(house, tmp_path, timeouts=QUICK) as running, client(running.ports[0], b"") as peer:
        peer.writer.write(sent)
        started = time.monotonic()
        assert (await peer.ended()).endswith(b"421 4.4.2 Nothing heard for too long\r\n")
        assert 0.19 < time.monotonic() - started < 60
        await house.lost()  # though the peer does not close its side
        assert running.sessions == 0
    assert house.messages == []


@pytest.mark.parametrize(
    ("begun", "dribble", "why"),
    [
        (b"", b"N", b"Nothing heard for too long"),  # a command that never ends
        (ENVELOPE + b"DATA\r\n", b"x", b"The message comes too slowly"),
        (ENVELOPE + b"BDAT 1000\r\n", b"x", b"The message comes too slowly"),
        (ENVELOPE, b"BDAT 1\r\nx", b"The message comes too slowly"),
    ],
)
async def test_an_octet_now_and_then(tmp_path: Path, begun: bytes, dribble: bytes, why: bytes) -> None:
    house = House()
    pace = Pace(octets=1000, window=0.3)
    async with gateway(house, tmp_path, timeouts=QUICK, pace=pace) as running, client(running.ports[0]) as peer:
        peer.writer.write(begun)
        answer = asyncio.create_task(peer.ended())
        for _ in range(40):
            peer.writer.write(dribble)
            await asyncio.sleep(0.05)
            if answer.done():
                break
        assert (await answer).endswith(b"421 4.4.2 " + why + b"\r\n")
        await house.lost()


async def test_a_slow_peer_that_is_fast_enough(tmp_path: Path) -> None:
    house = House()
    pace = Pace(octets=100, window=0.1)
    async with gateway(house, tmp_path, timeouts=QUICK, pace=pace) as running, client(running.ports[0]) as peer:
        await peer.say(ENVELOPE + b"DATA\r\n", 3)
        for _ in range(10):
            peer.writer.write(b"0123456789\r\n")
            await asyncio.sleep(0.05)
        assert await peer.say(b".\r\n") == [b"250 2.0.0 Kept"]
        for _ in range(10):  # commands keep a session alive
            assert await peer.say(b"NOOP\r\n") == [b"250 2.0.0 Ok"]
            await asyncio.sleep(0.05)


async def test_time_that_we_take_is_not_counted(tmp_path: Path) -> None:
    async def slowly() -> list[Reply]:
        await asyncio.sleep(0.6)
        return [OK]

    house = House(end=lambda _: slowly())
    async with gateway(house, tmp_path, timeouts=QUICK) as running, client(running.ports[0]) as peer:
        assert await peer.message() == b"250 2.0.0 Kept"
        assert await peer.message() == b"250 2.0.0 Kept"


async def test_an_old_session_ends_between_transactions(tmp_path: Path) -> None:
    house = House()
    times = Timeouts(life=0.3, linger=0.2)
    async with gateway(house, tmp_path, timeouts=times) as running, client(running.ports[0]) as peer:
        await peer.say(ENVELOPE + b"DATA\r\n", 3)
        await asyncio.sleep(0.4)
        assert await peer.say(BODY + b".\r\n") == [b"250 2.0.0 Kept"]
        assert await peer.ended() == b"421 4.3.2 This connection is old; connect again\r\n"


async def test_a_session_at_twice_its_life_ends_anyway(tmp_path: Path) -> None:
    times = Timeouts(life=0.15, linger=0.2)
    async with gateway(House(), tmp_path, timeouts=times) as running, client(running.ports[0]) as peer:
        await peer.say(ENVELOPE, 2)
        assert await peer.ended() == b"421 4.3.2 This connection is old; connect again\r\n"


async def test_a_peer_that_never_reads(tmp_path: Path) -> None:
    house = House()
    limits = Limits(idle=10**9, errors=10**9)
    async with gateway(house, tmp_path, timeouts=QUICK, limits=limits) as running:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", running.ports[0]))
            with pytest.raises((TimeoutError, ConnectionError)):
                async with asyncio.timeout(5):  # the gateway stops to read long before
                    while True:
                        await loop.sock_sendall(sock, b"HELP\r\n" * 10_000)
            await until(lambda: running.sessions == 0)


async def test_early_talkers_are_refused_when_the_banner_waits(tmp_path: Path) -> None:
    house = House()
    async with gateway(house, tmp_path, banner_delay=0.2) as running:
        async with client(running.ports[0], b"") as peer:
            peer.writer.write(b"EHLO client.test\r\n")
            assert await peer.ended() == b"554 5.5.1 You spoke before the greeting\r\n"
        await house.lost()
        assert house.steps == ["lost"]
        house.talks.clear()
        started = time.monotonic()
        async with client(running.ports[0], b"") as peer:
            assert (await peer.replies())[0][:3] == b"220"
            assert time.monotonic() - started > 0.19
            assert (await peer.say(b"EHLO client.test\r\n"))[0][:3] == b"250"
        assert "early" not in house.steps


async def test_early_talkers_are_told_when_it_does_not(tmp_path: Path) -> None:
    async def look_up() -> None:
        await asyncio.sleep(0.1)

    house = House(connected=look_up)
    async with gateway(house, tmp_path) as running, client(running.ports[0], b"") as peer:
        found = await peer.say(b"EHLO client.test\r\n" + ENVELOPE, 4)
        assert [line[:3] for line in found] == [b"220", b"250", b"250", b"250"]
    assert house.steps[:3] == ["connected", "early", "hello"]


# -- stopping -------------------------------------------------------------------------------


async def test_stopping_lets_transactions_finish(tmp_path: Path) -> None:
    house = House()
    async with gateway(house, tmp_path) as running:
        port = running.ports[0]
        async with client(port) as idle, client(port) as busy, client(port, b"") as new:
            await new.replies()
            await busy.say(ENVELOPE + b"DATA\r\n", 3)
            stopping = asyncio.create_task(running.stop(5))
            assert await idle.ended() == b"421 4.3.2 Shutting down\r\n"
            assert await new.ended() == b"421 4.3.2 Shutting down\r\n"
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", port)
            assert await busy.say(BODY + b".\r\n" + ENVELOPE, 2) == [b"250 2.0.0 Kept", b"421 4.3.2 Shutting down"]
            async with asyncio.timeout(30):
                await stopping
    assert house.messages == [BODY]


async def test_stopping_cuts_what_does_not_finish(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def forever() -> list[Reply]:
        await never.wait()
        return [OK]

    house = House(end=lambda _: forever())
    async with gateway(house, tmp_path) as running:
        port = running.ports[0]
        async with client(port) as slow, client(port) as stuck:
            await slow.say(ENVELOPE + b"DATA\r\n", 3)
            await stuck.say(ENVELOPE + b"DATA\r\n", 3)
            stuck.writer.write(BODY + b".\r\n")
            await until(lambda: len(house.messages) == 1)
            started = time.monotonic()
            await running.stop(0.2)
            assert 0.19 < time.monotonic() - started < 60
            assert await slow.ended() == b"421 4.3.2 Shutting down\r\n"
            assert await stuck.ended() in {b"421 4.3.2 Shutting down\r\n", b""}
        never.set()
        await house.lost()
        assert running.sessions == 0


async def test_a_port_that_is_taken_leaves_nothing_behind(tmp_path: Path) -> None:
    async with gateway(House(), tmp_path) as running:
        taken = Listener("mx", port=running.ports[0])
        options = Options("mx.test", [Listener("mx"), taken], Spooling(tmp_path))
        second = Gateway(House(), options)
        with pytest.raises(OSError, match="in use"):
            await second.start()
        assert second.ports == []


# -- limits of a session ------------------------------------------------------------------------


async def test_a_million_recipients_over_time(tmp_path: Path) -> None:
    """Accepted ones are bounded by transaction, refused ones by session, transactions without a
    message by the count of idle commands: whatever is sent, it ends."""
    house = House()
    limits = Limits(recipients=100, refusals=50, idle=20)
    async with gateway(house, tmp_path, limits=limits, timeouts=QUICK) as running, client(running.ports[0]) as peer:
        block = ENVELOPE + b"RCPT TO:<b@mx.test>\r\n" * 99 + b"RSET\r\n"
        answer = await flood(peer, block, 1_000_000 // 100)
        assert answer.endswith(b"421 4.7.0 Too many commands without mail\r\n") or b"reset" in answer
        await house.lost()
    assert len(house.steps) < 25 * 103


async def test_recipients_above_the_bound(tmp_path: Path) -> None:
    limits = Limits(recipients=100, refusals=50)
    async with gateway(House(), tmp_path, limits=limits) as running, client(running.ports[0]) as peer:
        found = await peer.say(ENVELOPE + b"RCPT TO:<b@mx.test>\r\n" * 99 + b"RCPT TO:<c@mx.test>\r\n" * 51, 152)
        assert [line[:3] for line in found[:101]] == [b"250"] * 101
        assert found[101:151] == [b"452 4.5.3 Too many recipients"] * 50
        assert found[151][:3] == b"452"
        assert (await peer.ended()).endswith(b"421 4.7.0 Too many recipients refused\r\n")


async def flood(peer: Client, block: bytes, times: int) -> bytes:
    """Write until it is ended; what came back."""
    answer = asyncio.create_task(peer.ended())
    for _ in range(times):
        if answer.done():
            break
        try:
            peer.writer.write(block)
            await peer.writer.drain()
        except ConnectionError:
            break
    return await answer


@pytest.mark.parametrize("block", [b"\0\xff\x80garbage\r\n", b"\xff" * 70_000, b"A" * 600 + b"\r\n", b"\r\n"])
async def test_garbage_ends(tmp_path: Path, block: bytes) -> None:
    house = House()
    async with gateway(house, tmp_path, timeouts=QUICK) as running, client(running.ports[0]) as peer:
        answer = await flood(peer, block, 2000)
        assert b"421 " in answer or answer == b"reset"
        await house.lost()
        assert running.sessions == 0


async def test_quit_in_the_middle_of_a_body_is_content(tmp_path: Path) -> None:
    house = House()
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        await peer.say(ENVELOPE + b"DATA\r\n", 3)
        assert await peer.say(b"Subject: x\r\nQUIT\r\n.\r\nQUIT\r\n", 2) == [b"250 2.0.0 Kept", b"221 2.0.0 Bye"]
    assert house.messages == [b"Subject: x\r\nQUIT\r\n"]


@pytest.mark.parametrize("body", [b"DATA\r\nhalf a mess", b"BDAT 1000\r\nhalf", b"BDAT 4\r\nhalf"])
async def test_reset_in_the_middle_of_a_body(tmp_path: Path, body: bytes) -> None:
    house = House()
    async with gateway(house, tmp_path) as running:
        async with client(running.ports[0]) as peer:
            peer.writer.write(ENVELOPE + body)
            await peer.replies(2)
            await asyncio.sleep(0.02)
            peer.reset()
        await house.lost()
    assert house.steps == ["connected", "hello", "mail", "rcpt", "reset", "lost"]
    assert house.messages == []


async def test_half_open_connections_go(tmp_path: Path) -> None:
    """The other machine is gone without a word: nothing comes, not even an end."""
    house = House()
    async with gateway(house, tmp_path, timeouts=QUICK) as running:
        peers = [await asyncio.open_connection("127.0.0.1", running.ports[0]) for _ in range(10)]
        await until(lambda: len(house.talks) == 10)
        await house.lost()
        assert running.sessions == 0
        for _, writer in peers:
            writer.close()
