"""What may be taken for an end of data by anybody, over a real socket, in one write and in two."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from heard import ENVELOPE, House, client, gateway
from tests.unit.smtp.smuggling import ENDS, INNER, SAFE


@pytest.mark.parametrize("end", ENDS)
async def test_one_message_is_seen_and_refused(tmp_path: Path, end: bytes) -> None:
    house = House()
    wire = b"Subject: outer\r\n\r\nbody" + end + INNER
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        for cut in (0, len(wire) - len(INNER) - 1):
            await peer.say(ENVELOPE + b"DATA\r\n", 3)
            peer.writer.write(wire[:cut])
            await asyncio.sleep(0.002 if cut else 0)
            refused, after = await peer.say(wire[cut:] + b"NOOP\r\n", 2)
            assert refused.startswith(b"550 5.6.11 ")
            assert after == b"250 2.0.0 Ok"
    assert house.messages == []
    assert house.steps.count("end") == 0
    assert house.steps.count("mail") == house.steps.count("reset") == 2


@pytest.mark.parametrize("end", SAFE)
async def test_what_is_no_line_end_is_content(tmp_path: Path, end: bytes) -> None:
    house = House()
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        await peer.say(ENVELOPE + b"DATA\r\n", 3)
        assert await peer.say(b"body" + end + INNER) == [b"250 2.0.0 Kept"]
    assert len(house.messages) == 1
    assert b"MAIL FROM:<admin@mx.test>" in house.messages[0]


@pytest.mark.parametrize(
    "line", [b"NOOP\nMAIL FROM:<evil@mx.test>\r\n", b"RCPT TO:<b@mx.test>\nDATA\n", b"\n", b"EHLO x\n"]
)
async def test_a_bare_line_feed_in_a_command_closes(tmp_path: Path, line: bytes) -> None:
    house = House()
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        peer.writer.write(line + b"NOOP\r\n")
        assert await peer.ended() == b"500 5.5.2 Lines end in CR LF; closing\r\n"
    assert house.steps == ["connected", "hello", "lost"]


async def test_commands_behind_quit_and_behind_a_refused_bdat_are_not_heard(tmp_path: Path) -> None:
    house = House()
    async with gateway(house, tmp_path) as running:
        async with client(running.ports[0]) as peer:
            peer.writer.write(b"QUIT\r\n" + ENVELOPE)
            assert await peer.ended() == b"221 2.0.0 Bye\r\n"
        async with client(running.ports[0]) as peer:  # its size cannot be known, so neither can the next command
            peer.writer.write(ENVELOPE + b"BDAT 10x LAST\r\nMAIL FROM:<evil@mx.test>\r\n")
            assert (await peer.ended()).splitlines()[-1][:3] == b"501"
    assert [mail.reverse_path for mail in house.mails] == ["a@client.test"]
