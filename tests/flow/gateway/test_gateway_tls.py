"""STARTTLS: what is told, what survives it, what goes wrong with it."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest
from heard import BODY, ENVELOPE, House, client, gateway
from tests.flow.scripted_server import certificate

from posthouse.errors import Misconfigured
from posthouse.smtpd.gateway import Timeouts
from posthouse.smtpd.gateway.certificates import Certificates


async def test_a_message_through_tls(tmp_path: Path, files: dict[str, Path]) -> None:
    house = House()
    async with gateway(house, tmp_path, **files) as running, client(running.ports[0]) as peer:
        await peer.start_tls()
        peer.writer.write(b"EHLO client.test\r\n")
        async with asyncio.timeout(30):
            lines = []
            while not lines or lines[-1][3:4] == b"-":
                lines.append((await peer.reader.readline()).rstrip())
        assert b"250-STARTTLS" not in lines
        assert await peer.message() == b"250 2.0.0 Kept"
        large = b"Subject: large\r\n\r\n" + b"x" * 998 + b"\r\n" + (b"y" * 998 + b"\r\n") * 1000
        assert await peer.message(large) == b"250 2.0.0 Kept"
        assert (await peer.say(b"STARTTLS\r\n"))[0][:3] == b"502"
    assert house.messages == [BODY, large]
    assert house.tls[0] is None
    assert house.tls[1] is not None
    assert house.tls[1].version == "TLSv1.3"
    assert house.tls[1].cipher.startswith("TLS_")


@pytest.mark.parametrize("apart", [False, True])
async def test_nothing_injected_before_tls_survives(tmp_path: Path, files: dict[str, Path], apart: bool) -> None:
    house = House()
    async with gateway(house, tmp_path, **files) as running, client(running.ports[0]) as peer:
        injected = b"EHLO evil.test\r\n" + ENVELOPE
        if not apart:
            assert (await peer.say(b"STARTTLS\r\n" + injected))[0][:3] == b"220"
        else:
            peer.writer.write(b"STARTTLS\r\n")
            await asyncio.sleep(0)
            assert (await peer.replies())[0][:3] == b"220"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with asyncio.timeout(30):
            await peer.writer.start_tls(context)
        assert await peer.say(b"MAIL FROM:<a@x.test>\r\n") == [b"503 5.5.1 Say hello first"]
        assert (await peer.say(b"EHLO good.test\r\n"))[0][:3] == b"250"
    assert house.steps == ["connected", "hello", "hello", "lost"]


async def test_what_comes_in_the_clear_after_the_handshake_began_breaks_it(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    house = House()
    async with gateway(house, tmp_path, **files) as running, client(running.ports[0]) as peer:
        assert (await peer.say(b"STARTTLS\r\n"))[0][:3] == b"220"
        await asyncio.sleep(0.05)
        peer.writer.write(ENVELOPE)
        await peer.ended()
        await house.lost()
        assert running.sessions == 0
    assert house.steps == ["connected", "hello", "lost"]


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00" + b"\xff" * 600, b"GET / HTTP/1.0\r\n\r\n", b"\0" * 5000])
async def test_garbage_instead_of_a_handshake(tmp_path: Path, files: dict[str, Path], garbage: bytes) -> None:
    house = House()
    async with gateway(house, tmp_path, **files) as running, client(running.ports[0]) as peer:
        await peer.say(ENVELOPE + b"STARTTLS\r\n", 3)
        await asyncio.sleep(0.02)
        peer.writer.write(garbage)
        await peer.ended()
        await house.lost()
        assert running.sessions == 0
    assert house.steps[-2:] == ["reset", "lost"]


async def test_a_handshake_that_does_not_come(tmp_path: Path, files: dict[str, Path]) -> None:
    house = House()
    async with gateway(house, tmp_path, timeouts=Timeouts(tls=0.1), **files) as running:
        async with client(running.ports[0]) as peer:
            await peer.say(b"STARTTLS\r\n")
            await peer.ended()
            await house.lost()
        assert running.sessions == 0


async def test_a_client_that_goes_away_in_the_handshake(tmp_path: Path, files: dict[str, Path]) -> None:
    house = House()
    async with gateway(house, tmp_path, **files) as running:
        async with client(running.ports[0]) as peer:
            await peer.say(b"STARTTLS\r\n")
            peer.writer.transport.abort()
        await house.lost()
        assert running.sessions == 0


async def test_without_a_certificate_there_is_none(tmp_path: Path) -> None:
    async with gateway(House(), tmp_path) as running, client(running.ports[0]) as peer:
        assert (await peer.say(b"STARTTLS\r\n"))[0][:3] == b"502"


def test_a_new_certificate_is_taken_and_a_broken_one_is_not(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    certificates = Certificates(files["certificate"], files["key"])
    first = certificates.context()
    now[0] += 2
    assert certificates.context() is first
    good = files["certificate"].read_bytes()
    files["certificate"].write_bytes(good[:100])
    now[0] += 2
    assert certificates.context() is first
    files["certificate"].unlink()
    now[0] += 2
    assert certificates.context() is first
    files["certificate"].write_bytes(good)
    os.utime(files["certificate"], ns=(1, 1))
    now[0] += 0.5
    assert certificates.context() is first  # looked at once a second
    now[0] += 1
    assert certificates.context() is not first


def test_files_that_are_no_certificate(tmp_path: Path, files: dict[str, Path]) -> None:
    (tmp_path / "bad.pem").write_bytes(b"nothing")
    for cert, key in [
        (tmp_path / "none.pem", files["key"]),
        (tmp_path / "bad.pem", files["key"]),
        (files["certificate"], tmp_path / "bad.pem"),
    ]:
        with pytest.raises(Misconfigured):
            Certificates(cert, key)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    certificate(tmp_path, "mx.test")
    return {"certificate": tmp_path / "mx.test.pem", "key": tmp_path / "mx.test.key"}
