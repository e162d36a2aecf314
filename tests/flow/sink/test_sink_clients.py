"""Clients of other people talk to the sink."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import time
from email.message import EmailMessage

import aiosmtplib
import pytest
from tests.peers import need

from posthouse.smtpd.sink import Options, Sink


def mail(to: str = "user@x.test", body: str = "Hello\n.\n..dots\n") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@client.test", to, "Hello"
    message["Message-ID"] = "<1@client.test>"
    message.set_content(body)
    return message


async def send(sink: Sink, *to: str, **options: object) -> tuple[dict[str, aiosmtplib.SMTPResponse], str]:
    return await aiosmtplib.send(
        mail(to[0]),
        sender="a@client.test",
        recipients=list(to),
        hostname="127.0.0.1",
        port=sink.port,
        start_tls=False,
        timeout=10,
        **options,  # type: ignore[arg-type]
    )


async def test_aiosmtplib_delivers() -> None:
    async with Sink() as sink:
        errors, reply = await send(sink, "user@x.test", "other@x.test")
        assert (errors, reply) == ({}, "2.0.0 Ok")
        (kept,) = sink.messages
        assert kept.entry.to == ["user@x.test", "other@x.test"]
        assert kept.entry.message_id == "<1@client.test>"
        assert b"\r\n.\r\n..dots\r\n" in kept.data
        assert (sink.counts.accepted, sink.counts.recipients, sink.counts.connections) == (1, 2, 1)


@pytest.mark.parametrize(
    ("to", "code", "text"),
    [
        ("bounce@x.test", 550, "5.1.1"),
        ("bounce+tag@other.test", 550, "5.1.1"),
        ("bounce-550-5.7.1@x.test", 550, "5.7.1"),
        ("defer@x.test", 451, "4.3.0"),
        ("full@x.test", 452, "4.2.2"),
        ("tls@x.test", 530, "5.7.0"),
    ],
)
async def test_refused_at_rcpt(to: str, code: int, text: str) -> None:
    async with Sink() as sink:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as caught:
            await send(sink, to)
        (refused,) = caught.value.recipients
        assert (refused.code, refused.message[:5]) == (code, text)
        assert dict(sink.counts.refused) == {f"{code} {text}": 1}
        errors, _ = await send(sink, "user@x.test", to)  # one of two
        assert errors[to].code == code
        assert sink.messages[0].entry.to == ["user@x.test"]


async def test_spam_is_refused_after_the_data() -> None:
    async with Sink() as sink:
        with pytest.raises(aiosmtplib.SMTPDataError) as caught:
            await send(sink, "spam@x.test")
        assert caught.value.code == 550
        assert sink.counts.accepted == 0


async def test_defer_twice_then_accept() -> None:
    async with Sink() as sink:
        for _ in range(2):
            with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
                await send(sink, "defer-2@x.test")
        await send(sink, "defer-2@x.test")
        assert (sink.counts.accepted, sink.counts.refused["451 4.3.0"]) == (1, 2)


async def test_greylisting_lets_the_second_try_in() -> None:
    async with Sink() as sink:
        for _ in range(2):
            with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as caught:
                await send(sink, "greylist-0.3@x.test")
            assert caught.value.recipients[0].message.startswith("4.7.1")
        await asyncio.sleep(0.35)
        await send(sink, "greylist-0.3@x.test")
        assert sink.counts.accepted == 1


@pytest.mark.parametrize("to", ["slow-0.3@x.test", "slow-final-0.3@x.test"])
async def test_slow(to: str) -> None:
    async with Sink() as sink:
        started = time.monotonic()
        await send(sink, to)
        assert time.monotonic() - started >= 0.3
        assert sink.counts.accepted == 1


@pytest.mark.parametrize("to", ["drop@x.test", "drop-data@x.test", "drop-final@x.test"])
async def test_drop(to: str) -> None:
    async with Sink() as sink:
        with pytest.raises((aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPException)):
            await send(sink, to)
        assert (sink.counts.accepted, sink.counts.dropped) == (0, 1)


async def test_latency() -> None:
    async with Sink(Options(latency=0.05)) as sink:
        started = time.monotonic()
        await send(sink, "user@x.test")
        assert time.monotonic() - started > 0.05 * 5  # greeting, EHLO, MAIL, RCPT, DATA, end


async def test_starttls_with_the_sink_s_certificate() -> None:
    async with Sink() as sink:
        context = ssl.create_default_context(cadata=sink.certificate.decode())
        async with aiosmtplib.SMTP(
            hostname="127.0.0.1", port=sink.port, start_tls=True, tls_context=context, timeout=10
        ) as client:
            for _ in range(3):
                await client.send_message(mail("tls@x.test"))
        assert [message.entry.tls for message in sink.messages] == ["TLSv1.3"] * 3
        assert (sink.counts.tls, sink.counts.accepted) == (1, 3)


async def test_a_failed_handshake_closes_one_connection_only() -> None:
    async with Sink() as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(b"EHLO x.test\r\nSTARTTLS\r\n")
        await reader.readuntil(b"220 2.0.0 Ready to start TLS\r\n")
        writer.write(b"MAIL FROM:<injected@x.test>\r\n" * 20)
        async with asyncio.timeout(10):
            assert b"250" not in await reader.read()
        writer.close()
        await send(sink, "user@x.test")
        assert sink.counts.accepted == 1


async def test_plaintext_injected_before_the_handshake_is_dropped() -> None:
    async with Sink() as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(b"EHLO x.test\r\nSTARTTLS\r\nMAIL FROM:<injected@x.test>\r\nRCPT TO:<u@x.test>\r\n")
        await reader.readuntil(b"220 2.0.0 Ready to start TLS\r\n")
        context = ssl.create_default_context(cadata=sink.certificate.decode())
        await writer.start_tls(context, server_hostname="localhost")
        writer.write(b"RCPT TO:<u@x.test>\r\nQUIT\r\n")
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"503 5.5.1")
        writer.close()


async def test_plaintext_sent_while_the_handshake_is_awaited_is_dropped() -> None:
    async with Sink(Options(latency=0.3)) as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(b"EHLO x.test\r\nSTARTTLS\r\n")
        await asyncio.sleep(0.1)
        writer.write(b"EHLO evil.test\r\nMAIL FROM:<injected@x.test>\r\n")
        await reader.readuntil(b"220 2.0.0 Ready to start TLS\r\n")
        await writer.start_tls(
            ssl.create_default_context(cadata=sink.certificate.decode()), server_hostname="localhost"
        )
        writer.write(b"EHLO x.test\r\nRCPT TO:<u@x.test>\r\nQUIT\r\n")
        async with asyncio.timeout(10):
            assert b"\r\n503 5.5.1 MAIL first\r\n" in await reader.read()
        writer.close()


def speak_smtplib(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.ehlo("client.test")
        assert client.has_extn("chunking")
        client.send_message(mail())
        refused = client.sendmail("a@x.test", ["user@x.test", "bounce@x.test"], b"x\r\n")
        assert refused["bounce@x.test"][0] == 550
        client.starttls(context=ssl._create_unverified_context())
        client.send_message(mail("tls@x.test"))


async def test_smtplib() -> None:
    async with Sink() as sink:
        await asyncio.to_thread(speak_smtplib, sink.port)
        assert sink.counts.accepted == 3


async def test_lmtp() -> None:
    async with Sink(Options(lmtp=True)) as sink:

        def speak() -> None:
            with smtplib.LMTP("127.0.0.1", sink.port) as client:
                client.sendmail("a@x.test", ["user@x.test"], b"x\r\n")

        await asyncio.to_thread(speak)
        assert sink.counts.accepted == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--to", "user@x.test"], b"<-  250 2.0.0 Ok"),
        (["--to", "user@x.test", "--pipeline"], b"<-  250 2.0.0 Ok"),
        (["--to", "bounce@x.test"], b"<** 550 5.1.1"),
        (["--to", "spam@x.test"], b"<** 550 5.7.1"),
        (["--to", "user@x.test", "--data", "Subject: dots\\n\\n.\\n..\\n.x\\n"], b"<-  250 2.0.0 Ok"),
    ],
)
async def test_swaks(arguments: list[str], expected: bytes) -> None:
    await asyncio.to_thread(need, "swaks")
    async with Sink() as sink:
        process = await asyncio.create_subprocess_exec(
            "swaks",
            "--server",
            f"127.0.0.1:{sink.port}",
            "--from",
            "a@client.test",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        assert expected in out
