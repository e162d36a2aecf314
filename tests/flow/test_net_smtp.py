"""Connections over real sockets, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import functools
import inspect
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from posthouse.errors import Conflict, Misconfigured
from posthouse.net.smtp import Connection, connect
from posthouse.net.tls import TlsMode, TlsPolicy
from posthouse.smtp.outcome import Cause, Envelope, SessionFailed, Stage, Timeouts
from posthouse.smtp.sasl import Credentials

sys.path.insert(0, str(Path(__file__).parent))
from scripted_server import Server, Talk, certificate

ONE = Envelope("a@x.example", ("b@y.example",))
MESSAGE = b"Subject: x\r\n\r\nHello\r\n"
BDAT = (b"PIPELINING", b"CHUNKING", b"8BITMIME")
PLAIN = TlsPolicy(TlsMode.NONE)


def both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs the test on asyncio's own loop and on uvloop, and no longer than 30 seconds."""

    @functools.wraps(test)
    def run(loop: str, **fixtures: object) -> None:
        with asyncio.Runner(
            loop_factory=uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        ) as runner:
            runner.run(asyncio.wait_for(test(**fixtures), 30))

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[loop, *signature.parameters.values()])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop", ["asyncio", "uvloop"])(run)


async def dial(server: Server, *, tls: TlsPolicy = PLAIN, **options: object) -> Connection:
    return await connect("mx.example", server.port, ip="127.0.0.1", name="me.example", tls=tls, **options)  # type: ignore[arg-type]


async def fails(server: Server, *, tls: TlsPolicy = PLAIN, **options: object) -> SessionFailed:
    with pytest.raises(SessionFailed) as caught:
        await dial(server, tls=tls, **options)
    return caught.value


@both_loops
async def test_many_messages_on_one_connection() -> None:
    async def script(talk: Talk) -> None:
        await talk.open(*BDAT)
        for number in range(20):
            await talk.take_bdat(b"250 2.0.0 queued as %d" % number)
        await talk.hear(b"QUIT")
        await talk.say(b"221 bye")

    async with Server(script) as server:
        connection = await dial(server, source_ip="127.0.0.1")
        for number in range(20):
            assert connection.reusable
            delivery = await connection.deliver(ONE, [b"Subject: x\r\n", b"\r\nHello\n"])
            assert delivery.replies[0].text == f"queued as {number}"
        assert delivery.peer.ip == "127.0.0.1"
        assert delivery.peer.host == "mx.example"
        assert delivery.peer.tls is None
        await connection.quit()
        assert not connection.reusable
        assert server.talks[0].heard.count(MESSAGE) == 20
        late = await connection.deliver(ONE, MESSAGE)
        assert late.failure is not None
        assert not late.unknown


@pytest.mark.parametrize("keywords", [BDAT, (b"PIPELINING",), ()])
@both_loops
async def test_a_large_message_to_a_slow_reader(keywords: tuple[bytes, ...]) -> None:
    message = b"".join(b".%07d %s\r\n" % (number, b"x" * 60) for number in range(60_000))

    async def script(talk: Talk) -> None:
        await talk.open(*keywords)
        await talk.hear(b"MAIL")
        await talk.say(b"250 ok")
        await talk.hear(b"RCPT")
        await talk.say(b"250 ok")
        if keywords == BDAT:
            await talk.hear(b"BDAT %d LAST" % len(message))
            await asyncio.sleep(0.3)
            await talk.content(len(message))
        else:
            await talk.hear(b"DATA")
            await talk.say(b"354 go")
            await asyncio.sleep(0.3)
            await talk.content()
        await talk.say(b"250 2.0.0 queued")
        await talk.hear(b"QUIT")

    async with Server(script) as server:
        connection = await dial(server, timeouts=Timeouts(quit=0.2))
        delivery = await connection.deliver(ONE, message)
        assert delivery.replies[0].ok
        content = server.talks[0].heard[-1]
        if keywords == BDAT:
            assert content == message
        else:
            assert content == message.replace(b".", b"..") + b".\r\n"
        started = time.monotonic()
        await connection.quit()  # nobody answers
        assert time.monotonic() - started < 60


@both_loops
async def test_a_peer_that_stops_reading_content() -> None:
    async def script(talk: Talk) -> None:
        await talk.open(*BDAT)
        await talk.hear(b"MAIL")
        await talk.hear(b"RCPT")
        await talk.say(b"250 ok", b"250 ok")
        talk._reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    async with Server(script) as server:
        connection = await dial(server, timeouts=Timeouts(block=0.3))
        delivery = await connection.deliver(ONE, b"x" * 998 + b"\r\n" + b"y\r\n" * 10_000_000)
        assert delivery.failure is not None
        assert (delivery.failure.stage, delivery.failure.cause) == (Stage.BLOCK, Cause.TIMEOUT)
        assert not delivery.unknown


@both_loops
async def test_unknown_when_the_final_reply_does_not_come() -> None:
    async def script(talk: Talk) -> None:
        await talk.open(*BDAT)
        await talk.hear(b"MAIL")
        await talk.say(b"250 ok")
        await talk.hear(b"RCPT")
        await talk.hear(b"BDAT")
        await talk.content(len(MESSAGE))
        await talk.say(b"250 ok")
        await asyncio.sleep(0.05)
        if len(server.talks) == 1:
            talk.reset()
        elif len(server.talks) == 2:
            await talk.raw(b"250-almost")
        else:
            await asyncio.sleep(0.6)

    async with Server(script) as server:
        for cause in (Cause.LOST, Cause.LOST, Cause.TIMEOUT):
            connection = await dial(server, timeouts=Timeouts(final=0.3))
            delivery = await connection.deliver(ONE, MESSAGE)
            assert delivery.failure is not None
            assert (delivery.failure.cause, delivery.stage) == (cause, Stage.FINAL)
            assert delivery.unknown
            assert delivery.replies[0].temporary
            assert not connection.reusable


@both_loops
async def test_timeouts_move_with_the_stage() -> None:
    async def script(talk: Talk) -> None:
        await talk.open(b"PIPELINING")
        await talk.hear(b"MAIL")
        await asyncio.sleep(0.3)
        await talk.say(b"250 ok")
        await asyncio.sleep(0.3)
        await talk.say(b"250 ok")
        await asyncio.sleep(0.5)

    async with Server(script) as server:
        connection = await dial(server, timeouts=Timeouts(mail=0.6, rcpt=0.6, data=0.2))
        started = time.monotonic()
        delivery = await connection.deliver(ONE, MESSAGE)
        assert delivery.failure is not None
        assert (delivery.failure.cause, delivery.stage) == (Cause.TIMEOUT, Stage.DATA)
        assert 0.7 < time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("greeting", "stage", "cause", "code"),
    [
        (b"554 5.3.2 no\r\n", Stage.GREETING, Cause.REFUSED, 554),
        (b"421 busy\r\n", Stage.GREETING, Cause.REFUSED, 421),
        (b"", Stage.GREETING, Cause.LOST, 451),
        (b"220-hi\r\n", Stage.GREETING, Cause.LOST, 451),
        (b"220 hi\r\n", Stage.EHLO, Cause.LOST, 451),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Stage.GREETING, Cause.GARBLED, 451),
        (b"2" * 10_000, Stage.GREETING, Cause.GARBLED, 451),
    ],
)
@both_loops
async def test_sessions_that_do_not_come_about(greeting: bytes, stage: Stage, cause: Cause, code: int) -> None:
    async def script(talk: Talk) -> None:
        await talk.raw(greeting)
        await asyncio.sleep(0.05)

    async with Server(script) as server:
        failed = await fails(server)
        assert (failed.failure.stage, failed.failure.cause, failed.failure.reply.code) == (stage, cause, code)
        assert failed.temporary is (code != 554)


@both_loops
async def test_a_silent_server() -> None:
    async def script(talk: Talk) -> None:
        await asyncio.sleep(0.6)

    async with Server(script) as server:
        failed = await fails(server, timeouts=Timeouts(greeting=0.2))
        assert (failed.failure.stage, failed.failure.cause) == (Stage.GREETING, Cause.TIMEOUT)


@both_loops
async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(SessionFailed) as caught:
            await connect("127.0.0.1", taken.getsockname()[1], name="me.example")
    assert caught.value.failure.cause is Cause.UNREACHABLE
    assert caught.value.failure.reply.enhanced == "4.4.1"
    with pytest.raises(SessionFailed):
        await connect("a" * 64 + ".invalid", 25, name="me.example", connect_timeout=2)


@both_loops
async def test_no_room_for_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            with pytest.raises(SessionFailed) as caught:
                await connect("127.0.0.1", port, name="me.example", connect_timeout=0.3)
        finally:
            for filler in fillers:
                filler.close()
    assert caught.value.failure.cause is Cause.TIMEOUT
    assert caught.value.failure.stage is Stage.CONNECT


@both_loops
async def test_cancelled_in_flight() -> None:
    async def script(talk: Talk) -> None:
        await talk.open(*BDAT)
        await asyncio.sleep(0.5)

    async with Server(script) as server:
        connection = await dial(server)
        task = asyncio.create_task(connection.deliver(ONE, MESSAGE))
        await asyncio.sleep(0.05)
        with pytest.raises(Conflict):
            await connection.deliver(ONE, MESSAGE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not connection.reusable
        opening = asyncio.create_task(dial(server))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


@both_loops
async def test_an_idle_connection_that_the_peer_closes() -> None:
    async def script(talk: Talk) -> None:
        await talk.open(*BDAT)
        if len(server.talks) == 1:
            await talk.say(b"421 4.4.2 idle")

    async with Server(script) as server:
        for _ in range(2):
            connection = await dial(server)
            await asyncio.sleep(0.1)
            assert not connection.reusable
            delivery = await connection.deliver(ONE, MESSAGE)
            assert delivery.replies[0].temporary
            assert not delivery.unknown
            await connection.quit()


async def secure(talk: Talk, context: ssl.SSLContext, *keywords: bytes) -> None:
    await talk.open(b"STARTTLS")
    await talk.start_tls(context)
    await talk.hello(*BDAT, *keywords)


@pytest.mark.parametrize("mode", [TlsMode.OPPORTUNISTIC, TlsMode.REQUIRED])
@both_loops
async def test_starttls(mode: TlsMode, tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path, "mx.example")
    large = b"x" * 76 + b"\r\n"
    large *= 30_000

    async def script(talk: Talk) -> None:
        await secure(talk, context)
        await talk.take_bdat(b"250 queued")
        await talk.hear(b"MAIL")
        await talk.hear(b"RCPT")
        await talk.say(b"250 ok", b"250 ok")
        await talk.hear(b"BDAT")
        assert await talk.content(len(large)) == large
        await talk.say(b"250 queued")
        await talk.hear(b"QUIT")
        await talk.say(b"221 bye")

    async with Server(script) as server:
        connection = await dial(server, tls=TlsPolicy(mode, ca_file=trusted))
        for message in (MESSAGE, large):
            delivery = await connection.deliver(ONE, message)
            assert delivery.replies[0].ok
            assert delivery.peer.tls == "TLSv1.3"
            assert delivery.peer.cipher is not None
            assert delivery.peer.verified is (mode is TlsMode.REQUIRED)
        await connection.quit()


@pytest.mark.parametrize("wrong", ["name", "authority"])
@both_loops
async def test_a_certificate_that_is_not_valid(wrong: str, tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path, "other.example" if wrong == "name" else "mx.example")
    policy = TlsPolicy(TlsMode.REQUIRED, ca_file=trusted if wrong == "name" else None)

    async def script(talk: Talk) -> None:
        await secure(talk, context)

    async with Server(script) as server:
        failed = await fails(server, tls=policy)
        assert (failed.failure.cause, failed.failure.without_tls) == (Cause.TLS_FAILED, False)
        assert "certificate" in failed.failure.detail
        assert failed.temporary
        connection = await dial(server, tls=TlsPolicy(TlsMode.OPPORTUNISTIC))
        assert connection.peer.tls
        connection.abort()
        named = TlsPolicy(TlsMode.REQUIRED, ca_file=trusted, server_name="other.example")
        if wrong == "name":
            (await dial(server, tls=named)).abort()


@both_loops
async def test_a_handshake_that_fails_may_go_on_without_tls() -> None:
    async def script(talk: Talk) -> None:
        await talk.open(b"STARTTLS")
        if (await talk.hear(b"")) == b"STARTTLS":
            await talk.say(b"220 go")
            await talk.content(5)
            await talk.raw(b"this is not TLS, and long enough to be read as a record of it\r\n")
            await asyncio.sleep(0.2)

    async with Server(script) as server:
        failed = await fails(server, tls=TlsPolicy(TlsMode.OPPORTUNISTIC))
        assert (failed.failure.cause, failed.failure.without_tls) == (Cause.TLS_FAILED, True)
        (await dial(server)).abort()


@both_loops
async def test_a_handshake_that_never_ends() -> None:
    async def script(talk: Talk) -> None:
        await talk.open(b"STARTTLS")
        await talk.hear(b"STARTTLS")
        await talk.say(b"220 go")
        await asyncio.sleep(1)

    async with Server(script) as server:
        failed = await fails(server, tls=TlsPolicy(TlsMode.OPPORTUNISTIC), timeouts=Timeouts(tls=0.2))
        assert failed.failure.cause is Cause.TLS_FAILED


@both_loops
async def test_plain_text_behind_starttls() -> None:
    async def script(talk: Talk) -> None:
        await talk.open(b"STARTTLS")
        await talk.hear(b"STARTTLS")
        await talk.say(b"220 go", b"250 injected")
        await asyncio.sleep(0.1)

    async with Server(script) as server:
        failed = await fails(server, tls=TlsPolicy(TlsMode.OPPORTUNISTIC))
        assert failed.failure.cause is Cause.GARBLED


@both_loops
async def test_implicit_tls_and_auth(tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path, "mx.example", "127.0.0.1")

    async def script(talk: Talk) -> None:
        await talk.open(b"AUTH PLAIN", *BDAT)
        line = await talk.hear(b"AUTH PLAIN ")
        await talk.say(b"235 2.7.0 ok" if line.endswith(b"AGFubgBzZWNyZXQ=") else b"535 5.7.8 no")
        await talk.take_bdat(b"250 queued")

    policy = TlsPolicy(TlsMode.IMPLICIT, ca_file=trusted)
    async with Server(script, context) as server:
        connection = await dial(server, tls=policy, credentials=Credentials("ann", "secret"))
        assert (await connection.deliver(ONE, MESSAGE)).replies[0].ok
        assert connection.peer.verified
        connection.abort()
        by_address = await connect(
            "127.0.0.1", server.port, name="me.example", tls=policy, credentials=Credentials("ann", "secret")
        )
        by_address.abort()
        failed = await fails(server, tls=policy, credentials=Credentials("ann", "wrong"))
        assert (failed.failure.stage, failed.failure.reply.code) == (Stage.AUTH, 535)
        assert not failed.temporary
        untrusted = await fails(server, tls=TlsPolicy(TlsMode.IMPLICIT))
        assert (untrusted.failure.stage, untrusted.failure.cause) == (Stage.TLS, Cause.TLS_FAILED)


def test_a_missing_file_of_authorities() -> None:
    with pytest.raises(Misconfigured):
        TlsPolicy(TlsMode.REQUIRED, ca_file="/nowhere/at/all.pem").context()
