"""Posthouse beside Postfix with OpenDKIM from Debian's packages: the same messages of 8 KB, the
same sink, the same disk, one after the other.

Both are instances of their own (scripts/services); the system's is never touched. A client with
20 pipelining connections hands the messages over; the milter signs each with RSA-2048; they are
relayed to the sink over cached connections. Its time runs from the first message in to the last
one that the sink has accepted. Posthouse's runs from the first request to the last recorded outcome.

Alike: nothing is answered (250, 202) before it is on disk. Postfix syncs the queue file of
each message; a killed machine loses nothing of either. Not alike: Posthouse shares one sync
among the messages of a request, or of requests that arrive together, and stores a message's
variables where Postfix stores its octets. Posthouse also keeps a ledger and events that
outlast the delivery, where Postfix has a line in a log that is not synced; both may send the
message in flight again after a crash.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence

import uvloop

from bench import material, send
from bench.report import Report, main
from bench.services import service
from posthouse.smtpd.sink import Options, Sink

Message = tuple[str, bytes]
"""Recipient and octets."""
CONNECTIONS = 20
_WARM = 100
_DOMAIN = "example.com"
_SETTINGS = """\
smtpd_milters = {milter}
milter_default_action = tempfail
smtp_tls_security_level = none
smtp_connection_cache_destinations = [127.0.0.1]
smtp_connection_reuse_time_limit = 300s"""


def run(count: int, connections: int = CONNECTIONS) -> tuple[float, float]:
    """Messages a second until the sink has them all, and until Postfix has taken them all.

    :raises RuntimeError: Postfix or OpenDKIM cannot be installed or started; only root can.
    :raises TimeoutError: the messages did not all arrive.
    """
    build = material.Builder()
    messages = [build(number) for number in range(count)]
    sink_port = material.free_port()
    hand_on = f"smtp:[127.0.0.1]:{sink_port}"
    with (
        service("opendkim", OPENDKIM_DOMAIN=_DOMAIN) as milter,
        service("postfix", POSTFIX_TRANSPORT=hand_on, POSTFIX_SETTINGS=_SETTINGS.format(milter=milter)) as url,
    ):
        port = int(url.rpartition(":")[2])
        uvloop.run(_check_signature(port, sink_port, messages[0]))
        with material.sink(port=sink_port) as sink:
            uvloop.run(_inject(port, messages[:_WARM], connections))
            sink.wait_for(_WARM, 60)
            sink.reset()
            started = time.time()
            uvloop.run(_inject(port, messages, connections))
            accepted = time.time()
            last = sink.wait_for(count, 60 + count / 10)
    return count / (last - started), count / (accepted - started)


async def _check_signature(port: int, sink_port: int, message: Message) -> None:
    """:raises RuntimeError: the milter does not sign."""
    async with Sink(Options(port=sink_port, tls=False)) as sink:
        await _inject(port, [message], 1)
        await sink.received(1)
        if b"\r\nDKIM-Signature:" not in b"\r\n" + sink.messages[0].data:
            raise RuntimeError("OpenDKIM did not sign")


# -- the client ---------------------------------------------------------------------------


async def _inject(port: int, messages: Sequence[Message], connections: int) -> None:
    """Over `connections`, each with one message after the other."""
    todo = iter(messages)
    await asyncio.gather(*(_connection(port, todo) for _ in range(min(len(messages), connections))))


async def _connection(port: int, messages: Iterator[Message]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await _replies(reader, 1)
    writer.write(b"EHLO client.example\r\n")
    await _replies(reader, 1)
    for address, data in messages:
        writer.write(f"MAIL FROM:<bounces@{_DOMAIN}>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode())
        await _replies(reader, 3)
        writer.write(data.replace(b"\n.", b"\n..") + b".\r\n")
        await _replies(reader, 1)
    writer.write(b"QUIT\r\n")
    writer.close()


async def _replies(reader: asyncio.StreamReader, count: int) -> None:
    async with asyncio.timeout(60):
        while count:
            line = await reader.readline()
            if line[:1] not in {b"2", b"3"}:
                raise RuntimeError(f"Postfix said {line!r}")
            count -= line[3:4] == b" "


def measure(arguments: argparse.Namespace) -> Report:
    """How many times faster Posthouse sends than Postfix with OpenDKIM, on the same sink."""
    postfix, accepted = run(arguments.messages, arguments.connections)
    posthouse, _, _ = send.run(arguments.messages)
    return Report(
        "postfix",
        {
            "times_faster": posthouse / postfix,
            "posthouse_per_second": posthouse,
            "postfix_per_second": postfix,
            "postfix_accepted_per_second": accepted,
        },
    )


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="of the client to Postfix")


if __name__ == "__main__":
    main(measure, options)
