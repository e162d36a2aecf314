"""Mail in by the gateway, on to a sink, and what comes of it: over real sockets."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiosmtplib
import httpx
import msgspec
import pytest
from tests.flow.dns_server import DnsServer
from tests.flow.house import QUICK, client, read

from posthouse.app import bootstrap, running
from posthouse.app.parts import Parts, opened
from posthouse.config import Settings
from posthouse.directory.model import AccountSettings
from posthouse.domains.service import Domains
from posthouse.smtpd.sink import Options, Sink
from posthouse.storage.records.base import Tx

BOB = "bob@sender.test"
ZONES = {
    "sender.test": {"TXT": ['"v=spf1 ip4:127.0.0.1 -all"'], "A": ["127.0.0.1"]},
    "mx.sender.test": {"A": ["127.0.0.1"]},
    "1.0.0.127.in-addr.arpa": {"PTR": ["mx.sender.test."]},
    "other.test": {"TXT": ['"v=spf1 -all"'], "A": ["127.0.0.1"]},
}
ACCOUNTS: dict[str, dict[str, Any]] = {
    "ann": {"forward": ("carl@else.test",)},
    "moved": {"forward": ("bounce@else.test",), "keep": False},
    "ben": {"forward": ("cat@acme.test",), "keep": False},
    "cat": {"forward": ("ben@acme.test",), "keep": False},
    "away": {"vacation": msgspec.Raw(b'{"text": "Back on Monday."}')},
}


class Place:
    """A server with an MX listener and the sink that everything else goes to."""

    def __init__(self, sink: Sink, port: int, http: httpx.AsyncClient) -> None:
        self.sink = sink
        self._port = port
        self._http = http

    async def give(self, to: str, sender: str = BOB, **more: str) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = sender, to, more.get("subject", "Hello")
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{secrets.token_hex(8)}@sender.test>"
        message.set_content("Hi.\n")
        await aiosmtplib.send(
            message,
            sender=sender,
            recipients=[to],
            hostname="127.0.0.1",
            port=self._port,
            timeout=20,
            start_tls=False,
            local_hostname="mx.sender.test",
        )

    async def out(self, count: int) -> list[tuple[str, str, EmailMessage]]:
        """Reverse-path, recipient and message of what reached the sink, and that nothing follows."""
        async with asyncio.timeout(20):
            while len(self.sink.messages) < count:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert len(self.sink.messages) == count
        return [(one.entry.sender, one.entry.to[0], read(one.data)) for one in self.sink.messages]

    async def sent(self, *states: str) -> None:
        """All that the sending flow has got is in these states, and no more follows."""
        async with asyncio.timeout(20):
            while sorted(await self._states()) != sorted(states):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert sorted(await self._states()) == sorted(states)

    async def _states(self) -> list[str]:
        found = (await self._http.get("/v1/messages")).raise_for_status().json()["data"]
        return [one["status"] for one in found]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


async def _settle_in(parts: Parts, tenant: str) -> None:
    mail = parts.services.mail
    await mail.directory.add_domain(tenant, "acme.test")
    domains = parts.services.domains
    assert isinstance(domains, Domains)
    await domains.create(tenant, "acme.test")
    for name, settings in ACCOUNTS.items():
        new = await mail.directory.new_account(tenant, f"{name}@acme.test", settings=AccountSettings(**settings))

        async def add(tx: Tx, new: Any = new) -> int:
            return (await mail.directory.add_account_in(tx, new)).number

        await mail.mailboxes.open_account(add)


@asynccontextmanager
async def place(directory: Path, zones: DnsServer, sink: Sink) -> AsyncGenerator[Place]:
    port = _free_port()
    given: dict[str, Any] = {
        "data_dir": str(directory / "data"),
        "hostname": "mx.acme.test",
        "http": {"port": 0},
        "render": {"processes": 1},
        "retry": QUICK,
        "worker": {"drain_timeout": 5.0},
        "dns": {"servers": [f"127.0.0.1:{zones.nameserver[1]}"]},
        "receive": {"mx": [f"127.0.0.1:{port}"], "least_free": 1, "junk_score": 50},
        "routes": [
            {"domains": ["acme.test"], "kind": "static", "hosts": [f"127.0.0.1:{port}"], "tls": "none"},
            {"domains": ["*"], "kind": "static", "hosts": [f"127.0.0.1:{sink.port}"]},
        ],
    }
    settings = Settings(**given)
    settings.data_dir.mkdir()
    key = await bootstrap(settings, tenant="first")
    async with opened(settings) as parts:
        (tenant,) = await parts.services.accounts.list_tenants(limit=10)
        await _settle_in(parts, tenant.id)
    async with running(settings) as server, client(server.url, key) as http:
        yield Place(sink, port, http)
    async with opened(settings) as parts:
        assert [one async for one in parts.services.mail.check.all(deep=True)] == []


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with (
        DnsServer(ZONES) as zones,
        Sink(Options()) as sink,
        place(tmp_path, zones, sink) as made,
    ):
        yield made


async def test_a_copy_goes_on_and_its_sender_is_rewritten(here: Place) -> None:
    await here.give("ann@acme.test")
    ((path, to, message),) = await here.out(1)
    assert to == "carl@else.test"
    assert path.startswith("SRS0=")
    assert path.endswith("=sender.test=bob@acme.test")
    assert message["Delivered-To"] == "ann@acme.test"
    assert message["From"] == BOB
    assert "cv=none" in message["ARC-Seal"]
    assert "spf=pass" in message["ARC-Authentication-Results"]
    assert len(message.get_all("Received", [])) == 1


async def test_a_refused_forward_is_reported_to_the_proved_sender_only(here: Place) -> None:
    await here.give("moved@acme.test", sender="eve@other.test")
    await here.sent("bounced")
    await here.give("moved@acme.test")
    ((path, to, report),) = await here.out(1)
    assert (path, to) == ("", BOB)
    assert report.get_content_type() == "multipart/report"
    assert "Final-Recipient: rfc822; moved@acme.test" in report.as_string()
    assert "else.test" not in report.as_string()
    assert report["DKIM-Signature"]
    await here.sent("bounced", "suppressed", "delivered")


async def test_the_bounce_of_a_forward_finds_its_way_back(here: Place) -> None:
    await here.give("ann@acme.test")
    ((path, _, _),) = await here.out(1)
    await here.give(path, sender="")
    back, to, notice = (await here.out(2))[1]
    assert (back, to) == ("", BOB)
    assert notice["Delivered-To"] == path.lower()
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused, match=r"5\.1\.1"):
        await here.give(path.replace("=bob@", "=eve@"), sender="")


async def test_a_loop_of_two_accounts_ends_where_it_began(tmp_path: Path) -> None:
    async with DnsServer(ZONES) as zones, Sink(Options()) as sink, place(tmp_path, zones, sink) as here:
        await here.give("ben@acme.test")
        await here.sent("delivered", "delivered")
        assert not sink.messages
    with closing(sqlite3.connect(tmp_path / "data" / "posthouse.db")) as records:
        kept = "SELECT a.address, m.role FROM membership e JOIN account a ON a.number = e.account"
        found = records.execute(f"{kept} JOIN mailbox m ON m.account = e.account AND m.id = e.mailbox").fetchall()
    assert found == [("ben@acme.test", "inbox")]


async def test_a_sender_gets_one_answer(here: Place) -> None:
    await here.give("away@acme.test")
    await here.give("away@acme.test", subject="Again")
    ((path, to, answer),) = await here.out(1)
    assert (path, to) == ("", BOB)
    assert answer["Auto-Submitted"] == "auto-replied"
    assert answer["Subject"] in {"Auto: Hello", "Auto: Again"}
    assert answer["DKIM-Signature"]
