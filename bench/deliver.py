"""From LMTP to the mailbox: accepted, filtered, parsed, threaded, counted, announced and queued
for the index, into 1,000 accounts, by one `posthouse serve`; beside Dovecot's LMTP with the same
client, the same messages and the same disk. A third of the messages are replies.

Alike: 250 is given when the message is on disk. Not alike: Dovecot has put it into the mailbox by
then, so Posthouse's time runs until the last message is in its mailbox, too. Dovecot neither
judges nor threads. Its format is sdbox, the fastest of its three here.

`stage_*` are of the store stage alone: the log is filled as accept writes it, and the stage's own
worker drains it. `cpu_us` is the CPU of the server and its examining processes for a message.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from bench import material, smtp_client
from bench.receiver import receiver
from bench.report import Report, main
from bench.server import Server
from posthouse import ids
from posthouse.clock import now
from posthouse.inbound.examine import Examine, here
from posthouse.inbound.filter.judge import Filter
from posthouse.inbound.index import Indexing
from posthouse.inbound.model import STORE, Evidence
from posthouse.inbound.notify import announce
from posthouse.inbound.pool import ExaminePool, processes_for
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
CONNECTIONS = 20
_WARM = 500
_SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "services" / "dovecot.sh"
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

    def __init__(self, records: Records, contents: Contents, accounts: int, examine: Examine) -> None:
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
            examine=examine,
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
    pool = ExaminePool(count) if (count := processes_for(len(os.sched_getaffinity(0)))) else None
    try:
        house = House(records, Contents(records, store, small=_SMALL, clock=now), accounts, pool or here)
        await house.open()
        await house.fill(messages, 0, Letters())
        if pool is not None:
            await pool.start()
        before = _children(pool)
        seconds, cpu = await house.drain(messages)
        return seconds, cpu + _children(pool) - before
    finally:
        if pool is not None:
            await pool.close()
        await records.close()
        await store.close()


def _children(pool: ExaminePool | None) -> float:
    """Seconds of CPU that the examining processes have taken."""
    return sum(material.cpu_seconds(pid) for pid in pool.pids) if pool is not None else 0.0


def run(messages: int, accounts: int, postgresql: str | None = None) -> tuple[float, float]:
    """Messages a second, and µs of CPU for each, of this process and those that examine."""
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-", dir=material.DISK) as directory:
        root = Path(directory)
        url = postgresql or f"sqlite:///{root / 'posthouse.db'}"
        seconds, cpu = uvloop.run(_measure(url, f"file://{root / 'blobs'}", messages, accounts))
    return messages / seconds, cpu / messages * 1e6


def whole(messages: int, accounts: int, postgresql: str | None = None) -> tuple[float, float, float]:
    """From the first LHLO until the last message is stored: messages a second, those acknowledged
    a second, and µs of the server's CPU for each."""
    with receiver("api,mx,store", accounts=accounts, records=postgresql) as found:
        smtp_client.send(found.lmtp, _WARM, CONNECTIONS, accounts, lmtp=True)
        _stored(found.server)
        used = found.server.cpu()
        began, ended = smtp_client.sent(found.lmtp, messages, CONNECTIONS, accounts, lmtp=True)
        _stored(found.server)
        seconds = time.perf_counter() - began
        return messages / seconds, messages / (ended - began), (found.server.cpu() - used) / messages * 1e6


def _stored(server: Server, seconds: float = 300.0) -> None:
    """:raises TimeoutError: messages still wait to be stored."""
    end = time.monotonic() + seconds
    while any(depth["stage"] == STORE for depth in server.call("GET", "/v1/queue")["depths"]):
        if time.monotonic() > end:
            raise TimeoutError("messages still wait to be stored")
        time.sleep(0.05)


def dovecot(messages: int, accounts: int) -> float:
    """Messages a second over the same client.

    :raises RuntimeError: it cannot be installed or started; only root can.
    """
    folder = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK))
    environment = {**os.environ, "SERVICES_DIR": str(folder)}
    command = ["bash", str(_SCRIPT)]
    try:
        done = subprocess.run([*command, "start"], env=environment, capture_output=True, timeout=500, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.decode()[-500:])
        port = int(done.stdout.rpartition(b":")[2])
        smtp_client.send(port, _WARM, CONNECTIONS, accounts, lmtp=True)
        return messages / smtp_client.send(port, messages, CONNECTIONS, accounts, lmtp=True)
    finally:
        subprocess.run([*command, "stop"], env=environment, capture_output=True, timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def measure(arguments: argparse.Namespace) -> Report:
    """Messages a second from LMTP to the mailbox, filtered, threaded, counted and announced."""
    count, accounts = arguments.messages, arguments.accounts
    per_second, accepted, cost = whole(count, accounts)
    theirs = dovecot(max(1000, count // 10), accounts)
    alone, alone_cost = run(min(count, 50_000), accounts)
    figures: dict[str, float | str] = {
        "per_second": per_second,
        "ratio_dovecot": per_second / theirs,
        "accepted_per_second": accepted,
        "cpu_us": cost,
        "stage_per_second": alone,
        "stage_cpu_us": alone_cost,
        "dovecot_per_second": theirs,
    }
    bars = {"per_second": ("≥", 1500.0), "ratio_dovecot": ("≥", 2.0)}
    if arguments.postgresql:
        found = whole(count, accounts, arguments.postgresql)
        figures["postgresql_per_second"], _, figures["postgresql_cpu_us"] = found
        bars["postgresql_per_second"] = ("≥", 1000.0)
    return Report("deliver", figures, bars)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--postgresql", metavar="URL", help="a server to measure too")


if __name__ == "__main__":
    main(measure, options)
