"""The double itself: it keeps what was made durable, and catches whoever only believes so."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.crash.powerloss.machine import Machine
from tests.crash.powerloss.replay import Disk

_SRC = Path(__file__).resolve().parents[3] / "src"

FILE = """
descriptor = os.open(root + "/letter", os.O_WRONLY | os.O_CREAT, 0o600)
os.write(descriptor, b"x" * 5000)
{fsync}
{names}
"""
_FSYNC = "os.fsync(descriptor)"
_NAMES = "os.fsync(os.open(root, os.O_RDONLY))"
REPLACED = """
descriptor = os.open(root + "/new", os.O_WRONLY | os.O_CREAT, 0o600)
os.write(descriptor, b"x" * 5000)
{fsync}
os.replace(root + "/new", root + "/old")
{names}
"""
SQLITE = """
import sqlite3
connection = sqlite3.connect(root + "/a.db", isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA synchronous={synchronous}")
connection.execute("PRAGMA wal_autocheckpoint=20")
connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, filler TEXT)")
for n in range(200):
    connection.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 900))
"""
BLOBS = """
import asyncio
from posthouse.storage.blobs import local
{without}
async def work():
    blobs = await local.LocalBlobs.open(local.Path(root + "/blobs"))
    await blobs.put(b"a letter")
    os.fsync(os.open(root, os.O_RDONLY))  # the store's own name, which is not its affair
asyncio.run(work())
"""


def run(machine: Machine, program: str) -> None:
    """The program says that it is done, and is killed."""
    machine.begin()
    source = f"import os, sys, time\nroot = sys.argv[1]\n{program}\nos.write(1, b'done')\ntime.sleep(60)\n"
    environment = {**os.environ, **machine.environment, "PYTHONPATH": str(_SRC)}
    process = subprocess.Popen(
        [sys.executable, "-c", source, str(machine.root)], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(4) == b"done"
    process.kill()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "disk").mkdir()
    return Machine(tmp_path, tmp_path / "disk")


@pytest.mark.parametrize(
    ("fsync", "names", "left"),
    [(_FSYNC, _NAMES, 5000), ("", _NAMES, 0), (_FSYNC, "", None), ("", "", None)],
    ids=["both", "name only", "octets only", "nothing"],
)
def test_a_new_file(machine: Machine, tmp_path: Path, fsync: str, names: str, left: int | None) -> None:
    run(machine, FILE.format(fsync=fsync, names=names))
    assert (machine.root / "letter").stat().st_size == 5000
    machine.cut(tmp_path / "after")
    found = tmp_path / "after" / "letter"
    assert (found.stat().st_size if found.exists() else None) == left


@pytest.mark.parametrize(
    ("fsync", "names", "left"),
    [(_FSYNC, _NAMES, b"x" * 5000), ("", _NAMES, b""), (_FSYNC, "", b"as it was"), ("", "", b"as it was")],
    ids=["both", "name only", "octets only", "nothing"],
)
def test_a_file_that_is_replaced(machine: Machine, tmp_path: Path, fsync: str, names: str, left: bytes) -> None:
    (machine.root / "old").write_bytes(b"as it was")
    run(machine, REPLACED.format(fsync=fsync, names=names))
    machine.cut(tmp_path / "after")
    assert (tmp_path / "after" / "old").read_bytes() == left


@pytest.mark.parametrize("operation", ["os.replace(root + '/a', root + '/b')", "pass"])
def test_what_is_not_durable_may_survive_in_part(machine: Machine, tmp_path: Path, operation: str) -> None:
    (machine.root / "a").write_bytes(b"")
    disks = [Disk(machine.root) for _ in range(60)]
    run(
        machine,
        f"""
descriptor = os.open(root + "/a", os.O_WRONLY)
for n in range(10):
    os.write(descriptor, b"x" * 1000)
{operation}
""",
    )
    seen: set[tuple[tuple[str, int], ...]] = set()
    for seed, disk in enumerate(disks):
        after = tmp_path / f"after-{seed}"
        disk.follow(tmp_path / "shim.log")
        disk.cut(after, random.Random(seed))
        seen.add(tuple((path.name, path.stat().st_size) for path in sorted(after.iterdir())))
    assert () not in seen  # a name may move, and a file may be as it was, but it is never gone
    assert (("a", 0),) in seen
    sizes = {size for found in seen for _, size in found}
    assert {0, 10_000} <= sizes
    assert len(sizes) > 4


@pytest.mark.parametrize(("synchronous", "kept"), [("FULL", True), ("NORMAL", False), ("OFF", False)])
def test_a_database(machine: Machine, tmp_path: Path, synchronous: str, kept: bool) -> None:
    run(machine, SQLITE.format(synchronous=synchronous))
    machine.cut(tmp_path / "after")
    assert _rows(tmp_path / "after" / "a.db") == (200 if kept else pytest.approx(100, abs=99))


@pytest.mark.parametrize("seed", range(6))
def test_a_database_that_is_durable_keeps_everything_whatever_survives_beside_it(
    machine: Machine, tmp_path: Path, seed: int
) -> None:
    run(machine, SQLITE.format(synchronous="FULL"))
    machine.cut(tmp_path / "after", random.Random(seed))
    assert _rows(tmp_path / "after" / "a.db") == 200


def _rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])
    except sqlite3.DatabaseError:
        return 1  # not even its table, or no database any more
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("without", "kept"),
    [
        ("", True),
        ("local._fsync = lambda directory: None", False),
        ("local.os.fsync = lambda descriptor: None", False),
    ],
    ids=["as it is", "without the directories", "without any"],
)
def test_the_blob_store(machine: Machine, tmp_path: Path, without: str, kept: bool) -> None:
    run(machine, BLOBS.format(without=without))
    assert _blobs(machine.root) == [b"a letter"]
    machine.cut(tmp_path / "after")
    assert _blobs(tmp_path / "after") == ([b"a letter"] if kept else [])


def _blobs(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in root.glob("blobs/??/??/*")]


def test_an_fsync_counts_when_it_has_returned(machine: Machine, tmp_path: Path) -> None:
    machine.set(sync_delay=30)
    machine.begin()
    (machine.root / "letter").write_bytes(b"")
    machine.begin()
    source = (
        "import os, sys; d = os.open(sys.argv[1] + '/letter', 1); os.write(d, b'x'); os.write(1, b'!'); os.fsync(d)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source, str(machine.root)],
        env={**os.environ, **machine.environment},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"!"
    time.sleep(0.3)
    process.kill()
    process.wait(10)
    process.stdout.close()
    machine.cut(tmp_path / "after")
    assert (tmp_path / "after" / "letter").read_bytes() == b""


@pytest.mark.parametrize(
    ("how", "program", "said"),
    [
        ({"full": True}, "os.write(os.open(root + '/letter', 1), b'x')", "No space left"),
        ({"full": True}, "os.open(root + '/another', 0o101)", "No space left"),
        ({"sync_fails": True}, "os.fsync(os.open(root + '/letter', 1))", "Input/output error"),
        ({"clock": -86_400}, "assert time.time() > float(sys.argv[2]) - 10, 'the day before'", "the day before"),
    ],
)
def test_what_the_control_page_makes_of_the_machine(
    machine: Machine, how: dict[str, float], program: str, said: str
) -> None:
    (machine.root / "letter").write_bytes(b"")
    machine.begin()
    for step in ({}, how):
        machine.set(**step)  # type: ignore[arg-type]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import os, sys, time\nroot = sys.argv[1]\n{program}",
                str(machine.root),
                str(time.time()),
            ],
            env={**os.environ, **machine.environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if step:
            assert said in done.stderr
        else:
            assert done.returncode == 0, done.stderr
        (machine.root / "another").unlink(missing_ok=True)
