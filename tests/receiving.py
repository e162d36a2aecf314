"""The receiving side as processes: settings, accounts, and what lies in the mailboxes in the end.

port = free_port()
server = town.server(gateway(port), start=False)
make_accounts(server.settings, ["ann", "bob"])
server.start()
...
server.stop()
opened = open_house(server.settings)     # in this process, on the stopped server's directory
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.app.parts import opened
from posthouse.app.values import blob_options
from posthouse.clock import now
from posthouse.config import Settings
from posthouse.config.load import load
from posthouse.directory.model import NewAccount
from posthouse.mailbox.check import Check
from posthouse.mailbox.model import Anchor, Line, Mailbox
from posthouse.mailbox.reading import Reading
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.contents import Contents
from posthouse.storage.records.base import Tx
from posthouse.storage.records.factory import open_records

DOMAIN = "example.com"
SMALL = 16 * 1024
"""Octets above which these servers keep a message in the blob store."""
_PAGE = 500


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def gateway(port: int, *, dns: str = "127.0.0.1:1", least_free: int = 1, more: str = "") -> str:
    """Settings of a server that takes mail on this port; nothing else leaves it.

    :param more: further sections.
    """
    return f"""
[receive]
mx = ["127.0.0.1:{port}"]
small = {SMALL}
least_free = {least_free}

[dns]
servers = ["{dns}"]
timeout = 0.2

[render]
processes = 1

{more}

[[routes]]
domains = ["*"]
kind = "static"
hosts = ["127.0.0.1:1"]
"""


def settings_of(file: Path) -> Settings:
    return load(file=file, environ={}).settings


def make_accounts(file: Path, names: Sequence[str], *, aliases: dict[str, Sequence[str]] | None = None) -> None:
    """In `DOMAIN`; no server may run. `aliases`: local parts to local parts."""

    async def work() -> None:
        async with opened(settings_of(file)) as parts:
            mail = parts.services.mail
            (tenant, *_) = await parts.services.accounts.list_tenants(limit=10)
            await mail.directory.add_domain(tenant.id, DOMAIN)
            for name in names:
                new = await mail.directory.new_account(tenant.id, f"{name}@{DOMAIN}")

                async def add(tx: Tx, new: NewAccount = new) -> int:
                    return (await mail.directory.add_account_in(tx, new)).number

                await mail.mailboxes.open_account(add)
            for name, targets in (aliases or {}).items():
                await mail.directory.set_alias(tenant.id, f"{name}@{DOMAIN}", [f"{one}@{DOMAIN}" for one in targets])

    asyncio.run(work())


@dataclass(slots=True)
class Held:
    """What one account holds. `letters`: octets as they came, the oldest first, with their mailbox."""

    mailboxes: list[Mailbox]
    letters: list[tuple[bytes, str]] = field(default_factory=list[tuple[bytes, str]])


class House:
    """The stores of a server that does not run."""

    def __init__(self, reading: Reading, check: Check, numbers: dict[str, int]) -> None:
        self._reading = reading
        self._check = check
        self.numbers = numbers
        """Accounts by their local part."""

    async def findings(self) -> list[str]:
        """What `check --deep` would say."""
        return [f"{one.account} {one.code}: {one.text}" async for one in self._check.all(deep=True)]

    async def held(self, names: Iterable[str] = ()) -> dict[str, Held]:
        return {name: await self._held(self.numbers[name]) for name in names or self.numbers}

    async def _held(self, account: int) -> Held:
        held = Held(await self._reading.mailboxes(account))
        for mailbox in held.mailboxes:
            for line in await self._lines(account, mailbox.id):
                held.letters.append(((await self._reading.raw(account, line.id))[1], mailbox.role or mailbox.name))
        return held

    async def _lines(self, account: int, mailbox: int) -> list[Line]:
        lines: list[Line] = []
        after: Anchor | None = None
        while True:
            page = await self._reading.page(account, mailbox, limit=_PAGE, after=after)
            lines.extend(page.lines)
            after = page.next
            if after is None:
                return lines[::-1]


@asynccontextmanager
async def open_house(file: Path) -> AsyncGenerator[House, None]:
    settings = settings_of(file)
    records = await open_records(settings.records.url)
    blobs = await open_blobs(**blob_options(settings, "mail"))
    try:
        contents = Contents(records, blobs, small=settings.receive.small, clock=now)
        rows = await records.read(lambda tx: tx.rows("SELECT address, number FROM account ORDER BY number"))
        numbers = {address.partition("@")[0]: number for address, number in rows}
        yield House(Reading(records, contents), Check(records, blobs), numbers)
    finally:
        await blobs.close()
        await records.close()
