"""PROXY v2: taken from those who are trusted, who have to send it, and from nobody else."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from pathlib import Path

import pytest
from heard import House, client, gateway

from posthouse.smtp.proxy import MAX_EXTRA, SIGNATURE
from posthouse.smtpd.gateway import Listener, Timeouts

TRUSTED = Listener("mx", proxies=(ipaddress.ip_network("127.0.0.0/8"),))
IPV4 = socket.inet_aton("203.0.113.9") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 40000, 25)
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::9") * 2 + struct.pack("!HH", 40001, 25)
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:203.0.113.9") * 2 + struct.pack("!HH", 40002, 25)


def header(block: bytes, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


@pytest.mark.parametrize(
    ("sent", "address", "port"),
    [
        (header(IPV4), "203.0.113.9", 40000),
        (header(IPV4 + b"\x04\x00\x02xx"), "203.0.113.9", 40000),
        (header(IPV6, family=0x21), "2001:db8::9", 40001),
        (header(MAPPED, family=0x21), "203.0.113.9", 40002),
    ],
)
@pytest.mark.parametrize("piecemeal", [False, True])
async def test_the_peer_is_whom_the_proxy_names(
    tmp_path: Path, sent: bytes, address: str, port: int, piecemeal: bool
) -> None:
    house = House()
    async with gateway(house, tmp_path, TRUSTED) as running, client(running.ports[0], b"") as peer:
        for piece in [sent[at : at + 1] for at in range(len(sent))] if piecemeal else [sent]:
            peer.writer.write(piece)
            if piecemeal:
                await asyncio.sleep(0.001)
        assert (await peer.replies())[0].startswith(b"220 mx.test")
        assert (await peer.say(b"EHLO x.test\r\n"))[0][:3] == b"250"
    assert (house.talks[0].peer.address, house.talks[0].peer.port) == (address, port)
    assert "early" not in house.steps


@pytest.mark.parametrize("sent", [header(b"", 0x20, 0), header(IPV4, 0x20), header(b"", family=0), header(b"x", 0x20)])
async def test_a_connection_of_the_proxy_itself(tmp_path: Path, sent: bytes) -> None:
    house = House()
    async with gateway(house, tmp_path, TRUSTED) as running, client(running.ports[0], b"") as peer:
        assert (await peer.say(sent))[0].startswith(b"220")
    assert house.talks[0].peer.address == "127.0.0.1"


@pytest.mark.parametrize(
    "sent",
    [
        b"EHLO client.test\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 25\r\n",
        header(IPV4, 0x11),
        header(IPV4, 0x22),
        header(IPV4, family=0x12),
        header(IPV4, family=0x31),
        header(IPV4[:11]),
        header(IPV4, family=0x21),
        header(IPV4 + b"\x01"),
        header(IPV4 + b"\x01\x00\x09xx"),
        header(IPV4 + b"\x03\x00\x04\x00\x00\x00\x00"),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_EXTRA + 1),
    ],
)
async def test_anything_else_closes(tmp_path: Path, sent: bytes) -> None:
    house = House()
    async with gateway(house, tmp_path, TRUSTED) as running, client(running.ports[0], b"") as peer:
        peer.writer.write(sent)
        assert await peer.ended() in {b"", b"reset"}
        assert running.sessions == 0
    assert house.talks == []


@pytest.mark.parametrize("sent", [b"", header(IPV4)[:20]])
async def test_a_header_that_does_not_come(tmp_path: Path, sent: bytes) -> None:
    house = House()
    async with (
        gateway(house, tmp_path, TRUSTED, timeouts=Timeouts(proxy=0.1)) as running,
        client(running.ports[0], b"") as peer,
    ):
        peer.writer.write(sent)
        assert await peer.ended() in {b"", b"reset"}
    assert house.talks == []


async def test_nobody_else_may_say_who_he_is(tmp_path: Path) -> None:
    house = House()
    elsewhere = Listener("mx", proxies=(ipaddress.ip_network("192.0.2.0/24"),))
    async with gateway(house, tmp_path, elsewhere) as running, client(running.ports[0], b"") as peer:
        assert (await peer.replies())[0][:3] == b"220"
        peer.writer.write(header(IPV4) + b"EHLO x.test\r\n")
        answer = await peer.ended()
        assert b"250" not in answer
        assert answer.endswith(b"500 5.5.2 Lines end in CR LF; closing\r\n")
    assert [talk.peer.address for talk in house.talks] == ["127.0.0.1"]


async def test_the_count_is_of_the_address_behind_the_proxy(tmp_path: Path) -> None:
    house = House()
    async with gateway(house, tmp_path, TRUSTED, per_address=1) as running:
        port = running.ports[0]
        async with client(port, b"") as first, client(port, b"") as second, client(port, b"") as third:
            assert (await first.say(header(IPV4)))[0][:3] == b"220"
            assert (await second.say(header(IPV4)))[0].startswith(b"421 4.7.0")
            assert (await third.say(header(IPV6, family=0x21)))[0][:3] == b"220"


async def test_what_comes_with_the_header_is_early(tmp_path: Path) -> None:
    house = House()
    async with gateway(house, tmp_path, TRUSTED) as running, client(running.ports[0], b"") as peer:
        replies = await peer.say(header(IPV4) + b"EHLO x.test\r\n", 2)
        assert [line[:3] for line in replies] == [b"220", b"250"]
    assert house.steps[:3] == ["connected", "early", "hello"]
