"""The README's first minute, as processes: init, sink, serve, send, explain, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

LIMIT = 60.0
ROOT = Path(__file__).resolve().parents[3]


class House:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
        self.environ |= {"POSTHOUSE_DATA_DIR": str(directory / "data"), "PYTHONPATH": str(ROOT / "src")}

    def run(self, *arguments: str, code: int = 0) -> Any:
        """What the command printed as JSON."""
        ran = subprocess.run(
            [sys.executable, "-m", "posthouse", *arguments, "--json"],
            **self._where(),
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        assert ran.returncode == code, ran.stderr.decode()
        assert b"Traceback" not in ran.stderr
        return json.loads(ran.stdout if code == 0 or ran.stdout else ran.stderr)

    @contextmanager
    def started(self, *arguments: str, says: str) -> Iterator[str]:
        """A process that runs until the end, once its output holds `says`; that line."""
        log = self.directory / f"{arguments[0]}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "posthouse", *arguments], **self._where(), stdout=out, stderr=out
            )
        try:
            yield self._line(process, log, says)
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()

    def _line(self, process: subprocess.Popen[bytes], log: Path, says: str) -> str:
        end = time.monotonic() + LIMIT
        while time.monotonic() < end and process.poll() is None:
            for line in log.read_text().split("\n"):
                if says in line:
                    return line
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    def _where(self) -> dict[str, Any]:
        return {"cwd": self.directory, "env": self.environ, "stdin": subprocess.DEVNULL}


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    first = made.run("init", "--domain", "example.com")
    assert first["key"]["secret"].startswith("ph_")
    assert {record["type"] for record in first["domain"]["records"]} >= {"TXT"}
    return made


SEND = ("send", "--from", "ann@example.com", "--subject", "Hello", "--text", "It works.")


def test_the_first_minute(house: House) -> None:
    assert house.run("init")["key"] is None
    stored = house.run(*SEND, "--to", "early@example.org")  # nothing runs yet: it is stored, and goes out later
    with house.started("sink", "--port", "0", says="listens on") as told:
        where = told.split()[-1]
        with house.started("serve", "--port", "0", "--sink", where, says="Posthouse serves"):
            sent = house.run(*SEND, "--to", "bob@example.org", "--wait")
            assert [one["status"] for one in sent["recipients"]] == ["delivered"]
            bounced = house.run(*SEND, "--to", "bounce@example.org", "--wait", code=1)
            assert bounced["status"] == "bounced"
            assert house.run("suppression", "list")[0]["address"] == "bounce@example.org"
            story = house.run("explain", bounced["id"])
            assert "550" in story["story"][-1]["text"]
            assert house.run("serve", "--port", "0", code=1)["code"] == "already_running"
            assert len(house.run("message", "list")) == 3
            assert "depths" in house.run("queue", "list")
        early = house.run("message", "show", stored["id"])
        assert early["status"] == "delivered"
    assert not (house.directory / "data" / "serve.json").exists()


def test_a_port_that_is_taken_is_said_so(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = house.run("serve", "--port", port, code=2)
    assert port in refused["detail"]
    assert "http.port" in refused["detail"]
