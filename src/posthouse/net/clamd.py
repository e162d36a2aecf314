"""ClamAV's daemon, asked by its INSTREAM command (clamd(8)): one connection for each message."""

from __future__ import annotations

import asyncio
import struct

from posthouse.errors import Misconfigured, TooLarge, Unavailable
from posthouse.net.gate import Gate

_CHUNK = 65_536
_MOST_REPLY = 4096
_LENGTH = struct.Struct("!I")


class Clamd:
    """:param address: `HOST:PORT` (`[::1]:3310` too), or the path of a Unix socket.
    :param timeout: seconds for one message: connecting, sending, scanning.
    :param most: octets of the largest message that is sent.
    :param connections: at once; more messages wait.
    :raises Misconfigured: the address is neither.
    """

    def __init__(self, address: str, *, timeout: float = 30.0, most: int = 100_000_000, connections: int = 8) -> None:
        self._most = most
        self._gate = Gate(connections, timeout)
        self._path: str | None = None
        self._host, self._port = "", 0
        if address.startswith(("/", "./", "@")):
            self._path = "\0" + address[1:] if address.startswith("@") else address
            return
        host, _, port = address.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise Misconfigured("The scanner's address is HOST:PORT or the path of its socket")
        self._host, self._port = host.strip("[]"), int(port)

    async def scan(self, message: bytes) -> str | None:
        """The name of what was found, or None.

        :raises TooLarge: the daemon or `most` does not allow this size.
        :raises Unavailable: no answer in time, or one that says that it failed.
        """
        if len(message) > self._most:
            raise TooLarge("it is larger than the scanner takes")
        try:
            reply = await self._gate.run(lambda: self._talk(b"zINSTREAM\0", message))
        except _BrokenOff:
            # It closed while we sent, and its reason was lost with the connection. When it is well
            # otherwise, it was this message: asking again would end in the same way.
            await self.ping()
            raise TooLarge("the scanner broke off while it was sent") from None
        return _verdict(reply)

    async def ping(self) -> None:
        """:raises Unavailable: it does not answer."""
        try:
            reply = await self._gate.run(lambda: self._talk(b"zPING\0", None))
        except _BrokenOff as error:
            raise Unavailable("it broke off") from error
        if reply != "PONG":
            raise Unavailable("it gave a strange answer", detail=reply[:100])

    async def _talk(self, command: bytes, message: bytes | None) -> str:
        reader, writer = await self._connect()
        # It may answer, and close, before it has all: so we listen while we send.
        listening = asyncio.ensure_future(_reply(reader))
        sending = asyncio.ensure_future(_send(writer, command, message))
        try:
            await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
            return await listening
        except ConnectionError as error:
            raise _BrokenOff from error
        finally:
            sending.cancel()
            listening.cancel()
            await asyncio.gather(sending, listening, return_exceptions=True)
            writer.transport.abort()  # nothing that is still unsent matters

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._path is not None:
            return await asyncio.open_unix_connection(self._path, limit=_MOST_REPLY)
        return await asyncio.open_connection(self._host, self._port, limit=_MOST_REPLY)


class _BrokenOff(Exception):
    """The connection was lost before a reply. No OSError, so that the gate stays open."""


async def _send(writer: asyncio.StreamWriter, command: bytes, message: bytes | None) -> None:
    """Chunks with their lengths before them; an empty one ends the stream."""
    writer.write(command)
    if message is not None:
        whole = memoryview(message)
        for start in range(0, len(message), _CHUNK):
            piece = whole[start : start + _CHUNK]
            writer.write(_LENGTH.pack(len(piece)))
            writer.write(piece)
            await writer.drain()
        writer.write(_LENGTH.pack(0))
    await writer.drain()


async def _reply(reader: asyncio.StreamReader) -> str:
    try:
        line = await reader.readuntil(b"\0")
    except asyncio.IncompleteReadError as error:
        line = error.partial
    except asyncio.LimitOverrunError as error:
        raise Unavailable("it failed", detail="a reply without an end") from error
    return line.rstrip(b"\0\r\n ").decode("utf-8", "replace")


def _verdict(reply: str) -> str | None:
    """`stream: OK`, `stream: NAME FOUND`, `REASON. ERROR`."""
    said = reply.removeprefix("stream: ")
    if said == "OK":
        return None
    if said.endswith(" FOUND"):
        name = said.removesuffix(" FOUND").strip()[:200]
        return "".join(char if char.isprintable() else "�" for char in name) or "something without a name"
    if "size limit exceeded" in said:
        raise TooLarge("it is larger than the scanner takes")
    raise Unavailable("it failed", detail=said[:300] or "closed without an answer")
