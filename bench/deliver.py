"""How fast acknowledged messages become emails: filtered, parsed, threaded, counted, announced and
queued for the index, into 1,000 accounts; beside Dovecot's LMTP on the same disk.

The store stage is measured alone first: the log is filled with messages as accept writes them,
then the stage's own worker drains it. `python_us` is the time of the process's CPU for each.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from bench import material
from bench.postgres import database
from bench.report import Report, main
from posthouse import ids
from posthouse.clock import now
from posthouse.inbound.filter.judge import Filter
from posthouse.inbound.index import Indexing
from posthouse.inbound.model import STORE, Evidence
from posthouse.inbound.notify import announce
from posthouse.inbound.store import Store
from posthouse.mail.parse import text
from posthouse.mailauth.evidence import Arc, Authentication, Dkim, Dmarc, Spf
from posthouse.mailbox.service import Mailboxes
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.bus.local import LocalBus
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations.run import migrate
from posthouse.worker import Worker

ACCOUNTS = 1000
_SMALL = 64 * 1024
_FILL = 500
_WORDS = [f"{a}{b}" for a in "ka mo ri te su lan ver no".split() for b in "ta lo min der ra sek tu ban pol".split()]


class Letters:
    """Messages of about 6 KB, text and HTML, a third of them replies to an earlier one."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._sent: dict[int, list[tuple[str, str]]] = {}
        self._html = "<p>" + " ".join(self._random.choices(_WORDS, k=420)) + "</p>"

    def __call__(self, number: int, account: int) -> bytes:
        pick = self._random
        before = self._sent.setdefault(account, [])
        identity = f"{number}.{pick.getrandbits(64):x}@mail.sender{number % 200}.example"
        subject = " ".join(pick.choices(_WORDS, k=5))
        links = ""
        if before and pick.random() < 0.33:
            parent, subject = pick.choice(before[-20:])
            links = f"In-Reply-To: <{parent}>\r\nReferences: <{parent}>\r\n"
            subject = subject if subject.startswith("Re: ") else f"Re: {subject}"
        before.append((identity, subject))
        body = "\r\n".join(" ".join(pick.choices(_WORDS, k=11)) for _ in range(22))
        html = "\r\n".join(self._html[i : i + 70] for i in range(0, len(self._html), 70))
        return (
            f"Received: from out{number % 7}.sender{number % 200}.example (out.example [192.0.2.7])\r\n"
            f"\tby mx.example.net with ESMTPS id {number:x}; Sun, 22 Nov 2026 10:00:00 +0000\r\n"
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=sender.example; s=s1;\r\n"
            "\th=from:to:subject:date:message-id; bh=" + "A" * 43 + "=;\r\n\tb=" + "B" * 300 + "\r\n"
            f"From: Person {number % 5000} <person{number % 5000}@sender{number % 200}.example>\r\n"
            f"To: <user{account}@bench.example>\r\nSubject: {subject}\r\nMessage-ID: <{identity}>\r\n{links}"
            "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
            'Content-Type: multipart/alternative; boundary="part"\r\n\r\n'
            f"--part\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n"
            f"--part\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}\r\n--part--\r\n"
        ).encode()


def evidence() -> Evidence:
    """Of an ordinary message that passed."""
    passed = Authentication(
        Spf("pass", "sender.example"),
        Spf("none", "out.sender.example", "helo"),
        (Dkim("pass", "sender.example", "s1", "rsa-sha256", key_bits=2048),),
        Dmarc("pass", "sender.example", "sender.example", "reject", aligned_dkim=True),
        Arc("none"),
        "pass",
    )
    return Evidence("192.0.2.7", "out.sender.example", "out.sender.example", passed, "TLSv1.3")


class House:
    """Records with accounts, and the stage over them."""

    def __init__(self, records: Records, contents: Contents, accounts: int) -> None:
        self.records = records
        self.contents = contents
        self.accounts = accounts
        self.queue = RecordsQueue(records)
        bus = LocalBus()
        self.worker = Worker(
            STORE,
            self.queue,
            self._run,
            room={Lane.TRANSACTIONAL: 1024},
            batch=256,
            lease=60,
            poll=0.05,
            clock=now,
        )
        self.store = Store(
            records,
            contents,
            self.queue,
            Filter(text, _nobody),
            clock=now,
            current=self.worker.current,
            release=self._release,
            leases=self.worker.leases,
            indexing=Indexing(self.queue, clock=now),
            tell=announce(bus),
        )
        self.left = 0
        self.empty = asyncio.Event()

    async def _run(self, jobs: Sequence[Job]) -> None:
        await self.store(jobs)

    def _release(self, job: Job) -> None:
        self.worker.release(job)
        self.left -= 1
        if not self.left:
            self.empty.set()

    async def open(self) -> None:
        mailboxes = Mailboxes(self.records, self.contents, clock=now)

        async def work(tx: Tx) -> None:
            rows: list[Row] = [(n, f"acc_{n}", f"user{n}@bench.example") for n in range(1, self.accounts + 1)]
            await tx.run_each(_ACCOUNTS, rows)
            for n in range(1, self.accounts + 1):
                await mailboxes.open_in(tx, n)

        await self.records.write(work)

    async def fill(self, messages: int, first: int, letters: Letters) -> None:
        """As accept writes them."""
        account = random.Random(first)
        told = evidence()
        said = msgspec.json.encode(told).decode()
        for start in range(first, first + messages, _FILL):
            batch = range(start, min(start + _FILL, first + messages))
            owners = [account.randrange(1, self.accounts + 1) for _ in batch]
            raws = [letters(n, owner) for n, owner in zip(batch, owners, strict=True)]
            contents = [await self.contents.put(raw) for raw in raws]
            names = ids.many("inb", len(batch))
            logged: list[Row] = [
                (name, now(), one.key, one.size, name, "bounce@sender.example", said, b"Received: from x\r\n")
                for name, one in zip(names, contents, strict=True)
            ]
            people: list[Row] = [
                (name, 0, "ten_1", f"user{owner}@bench.example", owner, "accepted")
                for name, owner in zip(names, owners, strict=True)
            ]
            jobs = [Job(STORE, Lane.TRANSACTIONAL, "ten_1", now(), name) for name in names]

            async def work(
                tx: Tx,
                contents: object = contents,
                logged: object = logged,
                people: object = people,
                jobs: object = jobs,
            ) -> None:
                await self.contents.keep(tx, [(one, 1) for one in contents])  # type: ignore[attr-defined]
                await tx.run_each(_INBOUND, logged)  # type: ignore[arg-type]
                await tx.run_each(_RCPT, people)  # type: ignore[arg-type]
                await self.queue.put(jobs, tx=tx)  # type: ignore[arg-type]

            await self.records.write(work, durable=False)

    async def drain(self, messages: int) -> tuple[float, float]:
        """Seconds by the clock, and of this process's CPU."""
        self.left = messages
        self.empty.clear()
        started, cpu = time.perf_counter(), time.process_time()
        running = asyncio.create_task(self.worker.run())
        await self.empty.wait()
        spent = time.perf_counter() - started, time.process_time() - cpu
        self.worker.stop()
        await running
        return spent


async def _nobody(_pairs: object) -> frozenset[tuple[int, str]]:
    return frozenset()


_ACCOUNTS = """
INSERT INTO account (number, id, tenant_id, address, domain, state, created_at)
SELECT v.number, v.id, 'ten_1', v.address, 'bench.example', 'active', 0
FROM {v(number int, id text, address text)}"""
_INBOUND = """
INSERT INTO inbound (id, received_at, content, size, fingerprint, reverse_path, evidence, trace)
SELECT v.id, v.received_at, v.content, v.size, v.fingerprint, v.reverse_path, v.evidence, v.trace
FROM {v(id text, received_at int, content text, size int, fingerprint text, reverse_path text, evidence text,
        trace bytes)}"""
_RCPT = """
INSERT INTO inbound_rcpt (inbound_id, n, tenant_id, address, account, state)
SELECT v.inbound_id, v.n, v.tenant_id, v.address, v.account, v.state
FROM {v(inbound_id text, n int, tenant_id text, address text, account int, state text)}"""


async def _measure(url: str, blobs: str, messages: int, accounts: int) -> tuple[float, float]:
    await migrate(url)
    records, store = await open_records(url), await open_blobs(blobs)
    try:
        house = House(records, Contents(records, store, small=_SMALL, clock=now), accounts)
        await house.open()
        await house.fill(messages, 0, Letters())
        return await house.drain(messages)
    finally:
        await records.close()
        await store.close()


def run(messages: int, accounts: int, postgresql: str | None = None) -> tuple[float, float]:
    """Messages a second, and µs of this process's CPU for each."""
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-", dir=material.DISK) as directory:
        root = Path(directory)
        url = postgresql or f"sqlite:///{root / 'posthouse.db'}"
        seconds, cpu = uvloop.run(_measure(url, f"file://{root / 'blobs'}", messages, accounts))
    return messages / seconds, cpu / messages * 1e6


def measure(arguments: argparse.Namespace) -> Report:
    """Messages a second that the store stage makes emails of."""
    per_second, cost = run(arguments.messages, arguments.accounts)
    figures: dict[str, float | str] = {"per_second": per_second, "python_us": cost}
    bars = {"per_second": ("≥", 1500.0)}
    if arguments.postgresql:
        with database(arguments.postgresql) as url:
            figures["postgresql_per_second"], figures["postgresql_python_us"] = run(
                arguments.messages, arguments.accounts, url
            )
        bars["postgresql_per_second"] = ("≥", 1000.0)
    return Report("deliver", figures, bars)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--postgresql", metavar="URL", help="a server to measure too")


if __name__ == "__main__":
    main(measure, options)
