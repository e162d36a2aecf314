"""What a person waits for when a mailbox is opened: pages of it, and the counts of all mailboxes.

Mailboxes of 10 thousand, 100 thousand and 1 million emails, a third of them replies, are laid
down row by row as the store stage leaves them. Pages have 50 lines; each is read for emails and
for conversations. Times are of one reader with the process to itself, from the call to the lines.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from bench import material
from bench.postgres import database
from bench.report import Report, main
from posthouse.clock import SECOND, now
from posthouse.mail.parsed import Part
from posthouse.mailbox.model import Detail, Page
from posthouse.mailbox.reading import Reading
from posthouse.mailbox.service import Mailboxes
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.contents import Contents
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations.run import migrate

SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
_LINES = 50
_BATCH = 5000
_DETAIL = msgspec.msgpack.encode(Detail(Part("1", "text/plain", 0, 500, 502, 5000, 5000), 500))
_START = 1_700_000_000 * SECOND


async def lay_down(records: Records, account: int, emails: int) -> None:
    """An inbox with so many emails, in order of arrival, in threads of one to a few."""
    pick = random.Random(emails)
    threads = 0
    latest: dict[int, tuple[int, int, int]] = {}  # thread → emails, at, newest

    async def work(tx: Tx, rows: Sequence[Row]) -> None:
        await tx.run_each(_EMAILS, rows, _DETAIL)
        await tx.run_each(_MEMBERS, [(account, row[1], row[1], row[2], row[4]) for row in rows])

    for start in range(1, emails + 1, _BATCH):
        rows: list[Row] = []
        for number in range(start, min(start + _BATCH, emails + 1)):
            if threads and pick.random() < 0.33:
                thread = max(1, threads - int(pick.expovariate(1 / 200)))
            else:
                threads += 1
                thread = threads
            at = _START + number * SECOND
            count = latest.get(thread, (0, 0, 0))[0] + 1
            latest[thread] = (count, at, number)
            sender = f'[["Person {number % 997}","person{number % 997}@sender.example"]]'
            rows.append((account, number, thread, f"Subject of conversation {thread}", at, sender, "Words. " * 20))
        await records.write(lambda tx, rows=rows: work(tx, rows), durable=False)
    await _sums(records, account, emails, latest)


async def _sums(records: Records, account: int, emails: int, latest: dict[int, tuple[int, int, int]]) -> None:
    rows: list[Row] = [(account, thread, *sums) for thread, sums in latest.items()]
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]

        async def work(tx: Tx, part: Sequence[Row] = part) -> None:
            await tx.run_each(_THREADS, part)
            await tx.run_each(_SHARES, part)

        await records.write(work, durable=False)

    async def counts(tx: Tx) -> None:
        await tx.run(
            "UPDATE mailbox SET total = $2, unread = $2, uidnext = $4, threads = $3, unread_threads = $3"
            " WHERE account = $1 AND role = 'inbox'",
            account,
            emails,
            len(latest),
            emails + 1,
        )

    await records.write(counts)


_EMAILS = """
INSERT INTO email (account, id, thread, content, size, received_at, message_id, subject, sender, preview, keywords,
    attachments, detail, threading, modseq, created_modseq)
SELECT v.account, v.id, v.thread, 'c', 6000, v.at, 'x@example', v.subject, v.sender, v.preview, '', 0, $1, $1, 1, 1
FROM {v(account int, id int, thread int, subject text, at int, sender text, preview text)}"""
_MEMBERS = """
INSERT INTO membership (account, mailbox, uid, email, thread, received_at, modseq, seen)
SELECT v.account, 1, v.uid, v.email, v.thread, v.at, 1, 0
FROM {v(account int, uid int, email int, thread int, at int)}"""
_THREADS = """
INSERT INTO thread (account, id, emails, unread, latest_at, modseq)
SELECT v.account, v.thread, v.n, v.n, v.at, 1 FROM {v(account int, thread int, n int, at int, email int)}"""
_SHARES = """
INSERT INTO thread_mailbox (account, thread, mailbox, total, unread, latest_at, latest_email)
SELECT v.account, v.thread, 1, v.n, v.n, v.at, v.email FROM {v(account int, thread int, n int, at int, email int)}"""


async def _accounts(records: Records, mailboxes: Mailboxes, counts: Sequence[int]) -> None:
    for number in range(1, len(counts) + 2):

        async def add(tx: Tx, number: int = number) -> int:
            await tx.run(
                "INSERT INTO account (number, id, tenant_id, address, domain, state, created_at)"
                " VALUES ($1, $2, 't', $2, 'bench.example', 'active', 0)",
                number,
                f"acc_{number}",
            )
            return number

        await mailboxes.open_account(add)
    last = len(counts) + 1
    for n in range(44):
        await mailboxes.create_mailbox(last, f"Folder {n}")
    for account, emails in enumerate(counts, 1):
        await lay_down(records, account, emails)


Call = Callable[[], Awaitable[object]]


async def _p99(calls: Sequence[Call], rounds: int) -> list[float]:
    """Of each call, in ms. They take turns, so that whatever else the machine does meets all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            started = time.perf_counter()
            await call()
            taken.append(time.perf_counter() - started)
    return [sorted(taken)[max(0, int(rounds * 0.99) - 1)] * 1000 for taken in times]


async def _pages(reading: Reading, account: int) -> list[Call]:
    """First page, page two (by its anchor) and page 100, of emails and of conversations."""
    calls: list[Call] = []
    for threads in (False, True):
        first: Page = await reading.page(account, 1, limit=_LINES, threads=threads)
        calls += [
            lambda threads=threads: reading.page(account, 1, limit=_LINES, threads=threads),
            lambda threads=threads, at=first.next: reading.page(account, 1, limit=_LINES, after=at, threads=threads),
            lambda threads=threads: reading.page(account, 1, limit=_LINES, position=99 * _LINES, threads=threads),
        ]
    return calls


async def _measure(url: str, blobs: str, sizes: dict[str, int], rounds: int) -> dict[str, float | str]:
    await migrate(url)
    records, store = await open_records(url), await open_blobs(blobs)
    try:
        contents = Contents(records, store, small=65536, clock=now)
        started = time.perf_counter()
        await _accounts(records, Mailboxes(records, contents, clock=now), list(sizes.values()))
        laid = time.perf_counter() - started
        if records.capabilities.engine == "postgresql":
            await _vacuum(url)
        reading = Reading(records, contents)
        figures: dict[str, float | str] = {}
        calls = [call for account in range(1, len(sizes) + 1) for call in await _pages(reading, account)]
        counted = len(sizes) + 1
        await _p99(calls, 10)
        times = await _p99([*calls, lambda: reading.mailboxes(counted)], rounds)
        each = len(calls) // len(sizes)
        for n, name in enumerate(sizes):
            figures[f"p99_ms_{name}"] = max(times[n * each : (n + 1) * each])
        figures["counts_p99_ms"] = times[-1]
        figures["laid_down_s"] = laid
    finally:
        await records.close()
        await store.close()
    names = list(sizes)
    if len(names) > 1:
        figures["ratio_largest"] = float(figures[f"p99_ms_{names[-1]}"]) / float(figures[f"p99_ms_{names[0]}"])
    return figures


async def _vacuum(url: str) -> None:
    """As autovacuum does it in time."""
    import asyncpg  # noqa: PLC0415 - only for PostgreSQL

    connection = await asyncpg.connect(url)
    try:
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def run(sizes: dict[str, int], rounds: int, postgresql: str | None = None) -> dict[str, float | str]:
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-", dir=material.DISK) as directory:
        root = Path(directory)
        url = postgresql or f"sqlite:///{root / 'posthouse.db'}"
        return uvloop.run(_measure(url, f"file://{root / 'blobs'}", sizes, rounds))


def measure(arguments: argparse.Namespace) -> Report:
    """Milliseconds for pages of mailboxes of three sizes, and for the counts of 50 mailboxes."""
    sizes = {name: size for name, size in SIZES.items() if size <= arguments.largest}
    figures = run(sizes, arguments.rounds)
    largest = f"p99_ms_{list(sizes)[-1]}"
    bars = {largest: ("<", 5.0), "ratio_largest": ("≤", 1.5), "counts_p99_ms": ("<", 2.0)}
    if arguments.postgresql:
        with database(arguments.postgresql) as url:
            found = run(sizes, arguments.rounds, url)
        figures |= {f"postgresql_{name}": value for name, value in found.items()}
        bars[f"postgresql_{largest}"] = ("<", 5.0)
    return Report("inbox", figures, bars)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--largest", type=int, default=1_000_000, help="leave larger mailboxes out")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--postgresql", metavar="URL", help="a server to measure too")


if __name__ == "__main__":
    main(measure, options)
