"""SQLite's own: group commit, the lock, files, and what goes wrong with disks."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from posthouse import errors
from posthouse.storage.records.address import Holder, SqliteAddress
from posthouse.storage.records.base import Row, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.sqlite import SqliteRecords
from posthouse.storage.records.sqlite_engine import LogIndex
from tests.contract import processes


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def opened(url: str, **options: Any) -> SqliteRecords:
    return await SqliteRecords.open(SqliteAddress(path_of(url)), **options)


def log_of(url: str) -> Path:
    return Path(f"{path_of(url)}-wal")


def size_of(path: Path) -> int:
    return path.stat().st_size


def add(day: int, tenant: str = "a") -> Any:
    async def work(tx: Tx) -> int:
        return await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ($1, $2, 1)", tenant, day)

    return work


async def count(records: SqliteRecords) -> int:
    async def work(tx: Tx) -> Row | None:
        return await tx.row("SELECT count(*) FROM usage")

    row = await records.read(work)
    assert row is not None
    return row[0]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow past `size` bytes: a full disk, as a program sees it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_concurrent_writes_share_commits(sqlite_url: str) -> None:
    records = await opened(sqlite_url)
    await asyncio.gather(*(records.write(add(day)) for day in range(1000)))
    assert await count(records) == 1000
    assert records.commits <= 20  # 256 a group, and a first one that is alone
    await records.close()


async def test_an_error_costs_its_group_one_commit_at_most(sqlite_url: str) -> None:
    records = await opened(sqlite_url)
    await records.write(add(5))
    answers = await asyncio.gather(*(records.write(add(day)) for day in range(200)), return_exceptions=True)
    assert [i for i, answer in enumerate(answers) if isinstance(answer, errors.Conflict)] == [5]
    assert await count(records) == 200
    assert records.commits <= 6
    await records.close()


async def test_a_work_may_await_only_its_transaction(sqlite_url: str) -> None:
    records = await opened(sqlite_url)

    async def work(tx: Tx) -> None:
        await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ('a', 1, 1)")
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="only its transaction"):
        await records.write(work)
    assert await count(records) == 0
    await records.close()


async def test_one_exclusive_owner_at_a_time(sqlite_url: str) -> None:
    first = await opened(sqlite_url, exclusive=Holder.SERVER)
    assert first.capabilities.exclusive
    with pytest.raises(errors.Misconfigured, match="another posthouse serve") as raised:
        await opened(sqlite_url, exclusive=Holder.SERVER)
    assert raised.value.code == "database_in_use"
    beside = await open_records(sqlite_url, read_only=True)
    assert not beside.capabilities.exclusive
    await beside.ready()
    await beside.close()
    await first.close()
    second = await opened(sqlite_url, exclusive=Holder.SERVER)
    await second.close()


@pytest.mark.parametrize("next_one", list(Holder))
async def test_a_command_that_has_it_is_waited_for(sqlite_url: str, next_one: Holder) -> None:
    """`posthouse serve & posthouse account add …`: each comes to its turn."""
    command = await opened(sqlite_url, exclusive=Holder.COMMAND)
    waiting = asyncio.create_task(opened(sqlite_url, exclusive=next_one))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await command.close()
    await (await asyncio.wait_for(waiting, 5)).close()


async def test_a_command_that_takes_long_is_named(tmp_path: Path) -> None:
    address = SqliteAddress(tmp_path / "p.db")
    held = address.lock(Holder.COMMAND)
    with pytest.raises(errors.Misconfigured, match="command is at work") as raised:
        address.lock(Holder.SERVER, wait=0.1)
    assert raised.value.code == "database_busy"
    os.close(held)
    os.close(address.lock(Holder.SERVER))  # which died: what it wrote is there still
    os.close(address.lock(Holder.COMMAND))


async def test_a_full_disk_keeps_nobody_from_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    os.close(SqliteAddress(tmp_path / "p.db").lock(Holder.SERVER))


async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'p.db'}"
    records = await opened(url, exclusive=Holder.SERVER)

    async def work(tx: Tx) -> None:
        await tx.run("CREATE TABLE t (a int)")

    await records.write(work)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert set(modes) == {"p.db", "p.db-wal", "p.db-shm", "p.db.lock"}
    assert set(modes.values()) == {0o600}
    await records.close()


async def test_a_path_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.Misconfigured, match="cannot be opened"):
        await opened(f"sqlite:///{tmp_path / 'file' / 'p.db'}")


async def test_a_locked_database_is_unavailable_until_it_is_free(sqlite_url: str) -> None:
    records = await opened(sqlite_url, busy_timeout=0.1)
    other = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answers = await asyncio.gather(*(records.write(add(day)) for day in range(10)), return_exceptions=True)
    assert all(isinstance(answer, errors.StorageUnavailable) for answer in answers)
    assert "locked" in str(answers[0].detail)  # type: ignore[union-attr]
    with pytest.raises(errors.StorageUnavailable):
        await records.ready()
    assert await count(records) == 0  # reads go on
    other.execute("ROLLBACK")
    other.close()
    await records.write(add(1))
    assert await count(records) == 1
    await records.close()


async def test_a_full_disk_is_unavailable_until_there_is_room(sqlite_url: str) -> None:
    records = await opened(sqlite_url)
    await records.write(add(0))
    with file_size_limit(size_of(log_of(sqlite_url))):
        answers = await asyncio.gather(
            *(records.write(add(day, "x" * 5000)) for day in range(50)), return_exceptions=True
        )
        assert all(isinstance(answer, errors.StorageUnavailable) for answer in answers)
        with pytest.raises(errors.StorageUnavailable):
            await records.ready()
        assert await count(records) == 1
    await records.ready()
    await records.write(add(1))
    assert await count(records) == 2
    await records.close()
    again = await opened(sqlite_url)
    assert await count(again) == 2
    await again.close()


async def test_a_full_database_is_unavailable(sqlite_url: str) -> None:
    records = await opened(sqlite_url)

    async def shrink(tx: Tx) -> None:
        await tx.row("PRAGMA max_page_count = 1")  # SQLite makes it the present size

    await records.write(shrink)
    with pytest.raises(errors.StorageUnavailable) as raised:
        await asyncio.gather(*(records.write(add(day, "x" * 3000)) for day in range(20)))
    assert "full" in raised.value.detail
    await records.close()


async def test_a_corrupt_page_is_unavailable(sqlite_url: str) -> None:
    records = await opened(sqlite_url)
    await asyncio.gather(*(records.write(add(day, "x" * 500)) for day in range(100)))

    async def work(tx: Tx) -> Row | None:
        return await tx.row("SELECT rootpage FROM sqlite_schema WHERE name = 'usage'")

    root = await records.read(work)
    assert root is not None
    await records.close()
    with path_of(sqlite_url).open("r+b") as file:
        file.seek(4096 * (root[0] - 1))
        file.write(b"\xa5" * 4096)
    records = await opened(sqlite_url)
    for attempt in (count(records), records.write(add(1))):
        with pytest.raises(errors.StorageUnavailable) as raised:
            await attempt
        assert "corrupt" in raised.value.detail
    await records.close()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    path.write_bytes(b"This is a letter, not a database.\n" * 1000)
    with pytest.raises(errors.StorageUnavailable) as raised:
        await opened(f"sqlite:///{path}")
    assert "not a database" in raised.value.detail


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.mark.parametrize("verb", ["read", "write"])
async def test_what_takes_too_long_is_ended(sqlite_url: str, verb: str) -> None:
    records = await opened(sqlite_url, statement_timeout=0.3)

    async def work(tx: Tx) -> Row | None:
        return await tx.row(ENDLESS)

    with pytest.raises(errors.StorageUnavailable) as raised:
        await asyncio.wait_for(getattr(records, verb)(work), 10)
    assert "too long" in raised.value.detail
    await records.write(add(1))
    assert await count(records) == 1
    await records.close()


async def test_the_log_begins_anew_while_writes_go_on(sqlite_url: str) -> None:
    records = await opened(sqlite_url, checkpoint_pages=100)
    lengths: list[int] = []
    log = LogIndex(path_of(sqlite_url))
    for start in range(0, 5000, 100):
        await asyncio.gather(*(records.write(add(start + day, f"{day:0500}")) for day in range(100)))
        await asyncio.sleep(0.02)
        lengths.append(log.pages())
    assert sum(after < before for before, after in pairwise(lengths)) >= 2, lengths
    await records.close()
    log.close()
    assert not log_of(sqlite_url).exists()  # all of it is in the database


_TAKE = """
import fcntl, sys
with open(sys.argv[1], "r+b") as index:
    try:
        fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)
    except BlockingIOError:
        print("held")
"""


async def test_looking_at_the_log_keeps_its_locks(sqlite_url: str) -> None:
    """Without the lock that says it is in use (the "DMS" octet, at 128), another process that
    opens the database empties the index, and this one dies of SIGBUS."""
    records = await opened(sqlite_url)
    await records.write(add(1))
    await asyncio.sleep(0.3)  # the keeper has looked
    index = f"{path_of(sqlite_url)}-shm"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _TAKE, index], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.strip() == "held"
    await records.close()


async def test_a_connection_that_cannot_roll_back_is_replaced(sqlite_url: str) -> None:
    records = await opened(sqlite_url)

    async def break_it(tx: Tx) -> None:
        await tx.run("COMMIT")
        await tx.run("BEGIN")
        raise KeyError

    with pytest.raises(KeyError):
        await records.write(break_it)
    with pytest.raises(errors.StorageUnavailable):
        await records.write(end_it)
    await records.write(add(1))
    assert await count(records) == 1
    await records.close()


async def end_it(tx: Tx) -> None:
    """Leaves no transaction for the commit to end."""
    await tx.run("COMMIT")


async def test_too_many_waiting_writes_are_refused(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.storage.records.sqlite.WAITING_AT_MOST", 100)
    records = await opened(sqlite_url)
    answers = await asyncio.gather(*(records.write(add(day)) for day in range(1000)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, errors.StorageUnavailable)]
    assert refused
    assert await count(records) == 1000 - len(refused)
    await records.close()


@pytest.mark.parametrize("lines", [1, 40, 700])
async def test_what_a_killed_process_acknowledged_is_there(sqlite_url: str, lines: int) -> None:
    acknowledged = await asyncio.to_thread(processes.kill_after, processes.start("write", sqlite_url), lines)
    assert len(acknowledged) >= lines
    records = await opened(sqlite_url, exclusive=Holder.SERVER)

    async def work(tx: Tx) -> tuple[list[Row], list[Row]]:
        days = "SELECT day FROM usage WHERE tenant_id = $1 ORDER BY day"
        return await tx.rows(days, "a"), await tx.rows(days, "b")

    a, b = await records.read(work)
    assert a == b  # all of a work or nothing
    assert {int(line) for line in acknowledged} <= {day for (day,) in a}
    await records.close()
