"""Where mail goes: the MX in its order, relays, and sites that are away."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from house import house, sink

from posthouse.egress import site as sites
from posthouse.smtpd.sink import Sink
from posthouse.smtpd.sink.certificate import self_signed

ZONES: dict[str, Any] = {
    "two.example": {"MX": ["10 mx1.test.", "20 mx2.test."]},
    "half.example": {"MX": ["10 away.test.", "20 mx2.test."]},
    "null.example": {"MX": ["0 ."]},
    "plain.example": {"A": ["127.0.0.1"]},
    "empty.example": {"TXT": ['"nothing here"']},
    "loop.example": {"MX": ["10 mail.sender.example.", "20 mx1.test."]},
    "backup.example": {"MX": ["10 mx1.test.", "20 mail.sender.example."]},
    "broken.example": "SERVFAIL",
    "mx1.test": {"A": ["127.0.0.1"]},
    "mx2.test": {"A": ["127.0.0.2"]},
    "away.test": {"A": ["127.0.0.3"]},
}


def _mx(port: int) -> list[dict[str, Any]]:
    return [{"kind": "mx", "port": port, "tls": "none"}]


def _dns(server: DnsServer) -> dict[str, Any]:
    return {"servers": [f"{server.nameserver[0]}:{server.nameserver[1]}"], "timeout": 1.0}


@asynccontextmanager
async def _world(tmp_path: Path) -> AsyncIterator[tuple[Any, Sink, Sink]]:
    """Two sinks, on 127.0.0.1 and 127.0.0.2 at one port, and a DNS that names them."""
    async with (
        sink(tls=False) as first,
        sink(tls=False, host="127.0.0.2", port=first.port) as second,
        DnsServer(ZONES) as dns,
        house(tmp_path, routes=_mx(first.port), dns=_dns(dns), send={"private_addresses": True}) as post,
    ):
        yield post, first, second


async def test_the_best_mx_is_taken_and_the_next_when_it_is_away(tmp_path: Path) -> None:
    async with _world(tmp_path) as (post, first, second):
        await post.until(await post.send("a@two.example"), "delivered")
        assert (first.counts.accepted, second.counts.accepted) == (1, 0)
        name = await post.send("a@half.example")
        await post.until(name, "delivered")
        assert (first.counts.accepted, second.counts.accepted) == (1, 1)
        assert "mx2.test" in await post.story(name)
        await post.until(await post.send("a@plain.example"), "delivered")
        await post.until(await post.send("a@backup.example"), "delivered")
        assert first.counts.accepted == 3


@pytest.mark.parametrize(
    ("domain", "code", "said"),
    [
        ("null.example", "5.1.10", "takes no mail"),
        ("unknown.example", "5.1.2", "does not exist"),
        ("empty.example", "5.1.2", "neither an MX nor an address"),
        ("loop.example", "5.4.6", "a loop"),
    ],
)
async def test_no_way_there_is_a_bounce_at_once(tmp_path: Path, domain: str, code: str, said: str) -> None:
    async with _world(tmp_path) as (post, _, _):
        name = await post.send(f"a@{domain}")
        message = await post.until(name, "bounced")
        assert message["recipients"][0]["reply"]["enhanced"] == code
        assert said in await post.story(name)


async def test_dns_that_is_dead_defers_and_what_waits_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posthouse.egress.destinations._KEEP_FAILURE", 0.5)
    async with sink(tls=False) as peer, DnsServer(ZONES) as dns:
        dns.silent = True
        async with house(tmp_path, routes=_mx(peer.port), dns=_dns(dns), send={"private_addresses": True}) as post:
            name = await post.send("a@two.example")
            await post.until(name, "deferred")
            assert "DNS" in await post.story(name)
            dns.silent = False
            await post.until(name, "delivered")


async def test_a_private_address_of_an_mx_is_not_written_to(tmp_path: Path) -> None:
    async with (
        sink(tls=False) as peer,
        DnsServer(ZONES) as dns,
        house(tmp_path, routes=_mx(peer.port), dns=_dns(dns)) as post,
    ):
        name = await post.send("a@two.example")
        await post.until(name, "deferred")
        assert peer.counts.connections == 0
        assert "no address that mail may go to" in await post.story(name)


async def test_a_site_that_is_down_waits_as_a_whole_and_counts_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites, "SUSPEND_FIRST", 1.0)
    peer = sink(tls=False)
    await peer.start()
    port = peer.port
    route = [{"kind": "static", "hosts": [f"127.0.0.1:{port}"], "tls": "none"}]
    async with house(tmp_path, routes=route) as post:
        await peer.stop()
        names = [await post.send(f"a{n}@there.example") for n in range(20)]
        for name in names:
            message = await post.until(name, "deferred")
            assert message["recipients"][0]["attempts"] == 0
        assert "the whole site waits" in await post.story(names[0])
        async with sink(tls=False, port=port) as again:
            for name in names:
                message = await post.until(name, "delivered")
                assert message["recipients"][0]["attempts"] == 1
            assert again.counts.accepted == 20


class Relay:
    """A submission server: STARTTLS with its own certificate, AUTH PLAIN, one user."""

    def __init__(self) -> None:
        self.certificate = self_signed("localhost")
        self.messages: list[tuple[str, bytes]] = []
        self.users: list[str] = []

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls, user, recipient = False, "", ""

        async def say(*lines: str) -> None:
            writer.write("".join(f"{line}\r\n" for line in lines).encode())
            await writer.drain()

        try:
            await say("220 relay ready")
            while line := await reader.readline():
                verb = line.split()[0].upper()
                if verb == b"EHLO":
                    await say("250-relay", "250-8BITMIME", "250 AUTH PLAIN" if tls else "250 STARTTLS")
                elif verb == b"STARTTLS":
                    await say("220 go ahead")
                    await writer.start_tls(self.certificate.context)
                    tls = True
                elif verb == b"AUTH":
                    user = base64.b64decode(line.split()[2]).decode().split("\0")[1]
                    self.users.append(user)
                    await say("235 2.7.0 welcome")
                elif verb == b"DATA":
                    await say("354 go")
                    data = await reader.readuntil(b"\r\n.\r\n")
                    self.messages.append((recipient, data))
                    await say("250 2.0.0 queued")
                elif verb == b"RCPT":
                    recipient = line.decode()
                    await say("250 ok" if user else "530 5.7.0 authenticate first")
                elif verb == b"QUIT":
                    await say("221 bye")
                    break
                else:
                    await say("250 ok")
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


async def test_a_relay_with_auth_and_verified_tls_and_failover(tmp_path: Path) -> None:
    """The first host is away; the second is verified against the CA file given."""
    async with Relay() as relay, sink() as spare:
        away = spare.port
        await spare.stop()
        ca = tmp_path / "ca.pem"
        ca.write_bytes(relay.certificate.pem)
        route = {
            "kind": "relay",
            "hosts": [f"localhost:{away}", f"localhost:{relay.port}"],
            "tls": "required",
            "ca_file": str(ca),
            "username": "ann",
            "password": "secret words",
        }
        async with house(tmp_path, routes=[route], log={"level": "debug"}) as post:
            name = await post.send("bob@anywhere.example")
            await post.until(name, "delivered")
            story = await post.story(name)
        assert relay.users == ["ann"]
        assert "bob@anywhere.example" in relay.messages[0][0]
        assert "TLSv1" in story
        assert "secret" not in story


async def test_required_tls_with_an_unknown_certificate_is_not_sent(tmp_path: Path) -> None:
    async with Relay() as relay:
        route = {"kind": "relay", "hosts": [f"localhost:{relay.port}"], "tls": "required"}
        async with house(tmp_path, routes=[route]) as post:
            name = await post.send("bob@anywhere.example")
            await post.until(name, "deferred")
            assert "certificate" in await post.story(name)
        assert relay.messages == []


async def test_opportunistic_tls_takes_what_is_offered(tmp_path: Path) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        name = await post.send("bob@there.example")
        await post.until(name, "delivered")
        assert peer.counts.tls == 1
        assert "over TLSv1.3" in await post.story(name)
