"""What tests of mailboxes share: an account, letters for it, and the proof that all is true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from posthouse import ids
from posthouse.inbound.model import Evidence
from posthouse.mail.parse import parse
from posthouse.mail.threads import thread_keys
from posthouse.mailauth.evidence import Arc, Authentication, Dmarc, Spf
from posthouse.mailbox.check import Check, Finding
from posthouse.mailbox.model import Delivered, Delivery, Mailbox
from posthouse.mailbox.reading import Reading
from posthouse.mailbox.record import record
from posthouse.mailbox.service import Mailboxes
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.contents import Content, Contents
from posthouse.storage.queue.base import Job
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx

SMALL = 64 * 1024


def letter(
    number: int, *, subject: str = "Hello", answers: int | None = None, body: str = "Hi there.", year: int = 2026
) -> bytes:
    """A message `<number>@example.org` from Bob to Ann."""
    lines = [
        "From: Bob <bob@example.org>",
        "To: Ann <ann@example.com>",
        f"Subject: {subject}",
        f"Message-ID: <{number}@example.org>",
        f"Date: 22 Nov {year} 10:00:00 +0000",
    ]
    if answers is not None:
        lines += [f"In-Reply-To: <{answers}@example.org>", f"References: <{answers}@example.org>"]
    return ("\r\n".join([*lines, "", body, ""])).encode()


async def findings(records: Records, blobs: Blobs, *, deep: bool = True) -> list[Finding]:
    """Everything that is wrong; empty when all is true."""
    return [finding async for finding in Check(records, blobs).all(deep=deep)]


_PASSED = Authentication(
    Spf("pass", "example.org"), Spf("none", "mx.example.org", "helo"), (), Dmarc("none", "example.org"), Arc("none")
)
EVIDENCE = msgspec.json.encode(Evidence("192.0.2.7", "mx.example.org", "mx.example.org", _PASSED)).decode()
_INBOUND = """
INSERT INTO inbound (id, received_at, content, size, fingerprint, reverse_path, evidence, trace)
SELECT v.id, v.at, v.content, v.size, v.id, 'bob@example.org', $1, v.trace
FROM {v(id text, at int, content text, size int, trace bytes)}"""
_RCPT = """
INSERT INTO inbound_rcpt (inbound_id, n, tenant_id, address, account, state)
SELECT v.inbound_id, v.n, 'ten_1', 'ann@example.com', v.account, 'accepted'
FROM {v(inbound_id text, n int, account int)}"""


class House:
    """Mailboxes over records, with accounts numbered from 1."""

    def __init__(self, records: Records, blobs: Blobs, clock: Any) -> None:
        self.records = records
        self.blobs = blobs
        self.clock = clock
        self.contents = Contents(records, blobs, small=SMALL, clock=clock)
        self.queue = RecordsQueue(records, clock=clock)
        self.told: list[Any] = []
        self.mailboxes = Mailboxes(records, self.contents, clock=clock, tell=self.told.extend)
        self.reading = Reading(records, self.contents)

    async def account(self, number: int = 1, *, quota: int = 0) -> int:
        async def add(tx: Tx) -> int:
            await tx.run(
                "INSERT INTO account (number, id, tenant_id, address, domain, state, quota, created_at)"
                " VALUES ($1, $2, 'ten_1', $3, 'example.com', 'active', $4, 0)",
                number,
                f"acc_{number}",
                f"ann{number}@example.com",
                quota,
            )
            return number

        return await self.mailboxes.open_account(add)

    async def prepare(self, raw: bytes, account: int = 1, **more: Any) -> tuple[Delivery, Content]:
        parsed = parse(raw)
        at = more.pop("received_at", self.clock())
        content = await self.contents.put(raw)
        keys = thread_keys(parsed, received_at=at)
        return Delivery(account, content.key, at, record(parsed), keys, **more), content

    async def append(self, *raws: bytes, account: int = 1, **more: Any) -> list[Delivered]:
        """Each a microsecond after the one before."""
        batch = []
        for raw in raws:
            self.clock.at += 1
            batch.append(await self.prepare(raw, account, **more))
        return await self.mailboxes.append(account, batch)

    async def boxes(self, account: int = 1) -> dict[str, Mailbox]:
        """By role, or by name where there is none."""
        return {box.role or box.name: box for box in await self.reading.mailboxes(account)}

    async def lines(self, mailbox: int, account: int = 1, **more: Any) -> list[int]:
        return [line.id for line in (await self.reading.page(account, mailbox, **more)).lines]

    async def wrong(self) -> list[str]:
        return [finding.code for finding in await findings(self.records, self.blobs)]

    async def accept(self, *raws: bytes, to: Sequence[int] = (1,)) -> list[str]:
        """Into the log, as accept leaves them: the content counted once, a job for each."""
        contents = [await self.contents.put(raw) for raw in raws]
        names = ids.many("inb", len(raws))
        logged = []
        for name, content in zip(names, contents, strict=True):
            self.clock.at += 1
            logged.append((name, self.clock(), content.key, content.size, b"Received: by us\r\n"))
        people = [(name, n, account) for name in names for n, account in enumerate(to)]
        jobs = [Job("store", 1, "ten_1", self.clock(), name) for name in names]

        async def work(tx: Tx) -> None:
            await self.contents.keep(tx, [(content, 1) for content in contents])
            await tx.run_each(_INBOUND, logged, EVIDENCE)
            await tx.run_each(_RCPT, people)
            await self.queue.put(jobs, tx=tx)

        await self.records.write(work)
        return names

    async def execute(self, *statements: str) -> None:
        """Raw SQL, to break what no verb would."""

        async def work(tx: Tx) -> None:
            for statement in statements:
                await tx.run(statement)

        await self.records.write(work)

    async def query(self, sql: str, *params: Any) -> Sequence[tuple[Any, ...]]:
        return await self.records.read(lambda tx: tx.rows(sql, *params))
