"""The examples of docs/quickstart.md and docs/sending.md, typed as they stand, against a real server and the sink."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 60.0
_BY_HAND = re.compile(r"^(make setup|posthouse (init|sink|serve|explain msg_…)|export KEY=ph_…)")
"""What the fixture has done already, or what holds a place for an id."""
_TOLD_TO_FAIL = "bounce@example.org"
_PRELUDE = """
exec 2>&1
failed() { code=$?; echo "$*" >> failed; return $code; }
posthouse() { "$PYTHON" -m posthouse "$@" || failed posthouse "$@"; }
curl() { "$PYTHON" "$CURL" "$@" || failed curl "$@"; }
"""
_CURL = '''
"""As much of curl as the pages use, with an answer of 4xx or 5xx as a failure."""
import sys, urllib.error, urllib.request
args, headers, method, data, url = iter(sys.argv[1:]), {}, None, None, ""
for arg in args:
    if arg == "-H":
        name, _, value = next(args).partition(": ")
        headers[name] = value
    elif arg == "-X":
        method = next(args)
    elif arg == "-d":
        data = next(args).encode()
    elif arg not in ("-s", "-i"):
        url = arg
request = urllib.request.Request(url, data, headers, method=method)
try:
    sys.stdout.write(urllib.request.urlopen(request, timeout=30).read().decode())
except urllib.error.HTTPError as refused:
    sys.stdout.write(refused.read().decode())
    sys.exit(22)
'''


@dataclass
class Place:
    directory: Path
    environ: dict[str, str]
    url: str

    def type(self, page: str, prepared: str = "") -> str:
        """What the page's indented blocks print, in order, in one shell."""
        script = (_PRELUDE + prepared + _examples(page)).replace("http://127.0.0.1:8025", self.url)
        ran = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=240,
            check=False,
        )
        return ran.stdout.decode()

    @property
    def failed(self) -> list[str]:
        """The commands that ended badly, but for those that the page tells to."""
        path = self.directory / "failed"
        lines = path.read_text().split("\n") if path.exists() else []
        return [line for line in lines if line and _TOLD_TO_FAIL not in line]


def _examples(page: str) -> str:
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    lines = [line[4:] for block in blocks for line in block.split("\n")]
    return "\n".join(line for line in lines if not _BY_HAND.match(line)) + "\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    curl = tmp_path / "curl.py"
    curl.write_text(_CURL)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    environ |= {
        "POSTHOUSE_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHON": sys.executable,
        "CURL": str(curl),
    }
    _run(tmp_path, environ, "init", "--domain", "example.com")
    sink, where = _start(tmp_path, environ, r"listens on (\S+)", "sink", "--port", "0")
    serve, url = _start(tmp_path, environ, r"serves at (\S+)", "serve", "--port", "0", "--sink", where)
    try:
        yield Place(tmp_path, environ, url)
    finally:
        for process in (serve, sink):
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT)


def _run(directory: Path, environ: dict[str, str], *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "posthouse", *arguments],
        cwd=directory,
        env=environ,
        stdout=subprocess.DEVNULL,
        timeout=LIMIT,
        check=True,
    )


def _start(directory: Path, environ: dict[str, str], says: str, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
    log = directory / f"{arguments[0]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "posthouse", *arguments], cwd=directory, env=environ, stdout=out, stderr=out
        )
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(says, log.read_text()):
            return process, found[1]
        time.sleep(0.05)
    process.kill()
    raise AssertionError(log.read_text())


def test_the_quickstart(place: Place) -> None:
    printed = place.type("quickstart.md", "export KEY=$(posthouse key create quickstart)\n")
    assert place.failed == [], printed
    assert "Order 1234 is on its way" in printed
    assert '"accepted":2' in printed
    assert "550 5.1.1" in printed
    assert "Traceback" not in printed


def test_sending_by_example(place: Place) -> None:
    printed = place.type("sending.md")
    assert place.failed == [], printed
    assert '"refused":1' in printed
    assert '"status":"canceled"' in printed
    assert "Welcome, Bob" in printed
    once = re.findall(r'^\{"id":"(msg_\w+)","status":"queued","recipients"', printed, re.MULTILINE)
    assert len(once) - len(set(once)) == 1, "the repeated request gave another id"
    assert "Traceback" not in printed
