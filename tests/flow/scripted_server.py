"""An SMTP server on loopback that does what a coroutine tells it, right or wrong."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Talk:
    """One connection. `heard` are the lines and the content that came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard: list[bytes] = []

    async def say(self, *replies: bytes) -> None:
        self._writer.write(b"".join(reply + b"\r\n" for reply in replies))
        await self._writer.drain()

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def hear(self, start: bytes) -> bytes:
        line = await self._reader.readuntil(b"\r\n")
        assert line.startswith(start), line
        self.heard.append(line[:-2])
        return line[:-2]

    async def content(self, size: int | None = None) -> bytes:
        data = await (self._reader.readuntil(b"\r\n.\r\n") if size is None else self._reader.readexactly(size))
        self.heard.append(data)
        return data

    async def open(self, *keywords: bytes) -> None:
        await self.say(b"220 mx.example ESMTP")
        await self.hello(*keywords)

    async def hello(self, *keywords: bytes) -> None:
        await self.hear(b"EHLO ")
        words = [b"mx.example", *keywords]
        await self.say(*[b"250" + (b" " if word is words[-1] else b"-") + word for word in words])

    async def take_bdat(self, *final: bytes) -> bytes:
        await self.hear(b"MAIL FROM:")
        await self.hear(b"RCPT TO:")
        size = int((await self.hear(b"BDAT ")).split()[1])
        data = await self.content(size)
        await self.say(b"250 ok", b"250 ok", *final)
        return data

    async def start_tls(self, context: ssl.SSLContext) -> None:
        await self.hear(b"STARTTLS")
        await self.say(b"220 go")
        await self._writer.start_tls(context)

    def reset(self) -> None:
        self._writer.transport.abort()


class Server:
    """Use as `async with Server(script) as server`; what the script raised is raised at the end."""

    def __init__(self, script: Callable[[Talk], Awaitable[None]], context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self.port = 0
        self.talks: list[Talk] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context, limit=1 << 26)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            try:
                await asyncio.wait_for(task, 30)
            except (TimeoutError, OSError, EOFError):
                if kind is None:
                    continue

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        talk = Talk(reader, writer)
        self.talks.append(talk)
        try:
            await self._script(talk)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, str]:
    """A server context with a certificate of its own for `names`, and the file that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file = folder / f"{names[0]}.pem"
    key_file = folder / f"{names[0]}.key"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    return context, str(certificate_file)
