"""A Posthouse of its own for a benchmark: a server process on a temporary directory, set up
through the same commands and API as anybody's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench import material
from bench.postgres import database

UNLIMITED = {"POSTHOUSE_LIMITS__RATE_PER_SECOND": "1000000", "POSTHOUSE_LIMITS__BURST": "100000000"}
"""Settings under which no rate limit holds the first tenant."""
_POSTHOUSE = (sys.executable, "-m", "posthouse")


@dataclass
class Server:
    url: str
    port: int
    key: str
    process: subprocess.Popen[bytes]
    directory: Path

    def call(self, method: str, path: str, body: object = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Authorization", f"Bearer {self.key}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def cpu(self) -> float:
        """Seconds, of the server with its render processes."""
        return sum(material.cpu_seconds(pid) for pid in self.pids())

    def resident(self) -> int:
        """Octets that these processes hold, shared pages counted once for each share."""
        return sum(map(resident, self.pids()))

    def waiting(self) -> int:
        """Jobs in the queue."""
        return waiting(self)


def resident(pid: int) -> int:
    """Octets of a process, with its share of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True)
class Home:
    """A directory that `posthouse init` has set up, and the variables it is served with."""

    directory: Path
    variables: Mapping[str, str]


@contextmanager
def home(
    sink_port: int, *, records: str | None = None, settings: Mapping[str, str] | None = None
) -> Generator[Home, None, None]:
    """
    :param records: of a PostgreSQL server, in which a database is made and dropped; None: SQLite.
    :param settings: as `POSTHOUSE_*` variables.
    """
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-", dir=material.DISK) as temporary, ExitStack() as stack:
        directory = Path(temporary)
        (directory / "posthouse.toml").write_text(
            f'data_dir = "{directory}/data"\nhostname = "bench.example.com"\n{material.route(sink_port, 100)}'
        )
        variables = {**material.environment(), "POSTHOUSE_LOG__LEVEL": "warning", **(settings or {})}
        if records is not None:
            variables["POSTHOUSE_RECORDS__URL"] = stack.enter_context(database(records))
        subprocess.run([*_POSTHOUSE, "init"], cwd=directory, env=variables, check=True, capture_output=True)
        yield Home(directory, variables)


@contextmanager
def serving(home: Home, settings: Mapping[str, str] | None = None) -> Generator[Server, None, None]:
    """`posthouse serve` there, until it is ready; stopped by SIGTERM. One after another is fine."""
    port = material.free_port()
    variables = {**home.variables, **(settings or {}), "POSTHOUSE_HTTP__PORT": str(port)}
    with (home.directory / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [*_POSTHOUSE, "serve"], cwd=home.directory, env=variables, stdout=subprocess.DEVNULL, stderr=log
        )
    try:
        key = (home.directory / "data" / "operator.key").read_text().strip()
        found = Server(f"http://127.0.0.1:{port}", port, key, process, home.directory)
        _until_ready(found)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)


@contextmanager
def server(
    sink_port: int, *, records: str | None = None, settings: Mapping[str, str] | None = None
) -> Generator[Server, None, None]:
    """A home, served, set up."""
    with home(sink_port, records=records, settings=settings) as place, serving(place) as found:
        set_up(found)
        yield found


class Caller(Protocol):
    def call(self, method: str, path: str, body: object = None) -> Any: ...


def waiting(found: Caller) -> int:
    """Jobs in the queue."""
    return sum(depth["ready"] + depth["delayed"] for depth in found.call("GET", "/v1/queue")["depths"])


def set_up(found: Caller) -> None:
    """The domain, with an RSA key only (the floor signs once too), and the batches' template."""
    found.call("POST", "/v1/domains", {"name": "example.com", "algorithms": ["rsa-sha256"]})
    found.call(
        "POST",
        "/v1/templates",
        {"name": "order", "subject": material.SUBJECT, "html": material.HTML, "text": material.TEXT},
    )


def _until_ready(found: Server) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(found.url + "/readyz", timeout=5).read()
            return
        except OSError:
            if found.process.poll() is not None:
                log = (found.directory / "serve.log").read_text()[-2000:]
                raise RuntimeError(f"the server ended while starting: {log}") from None
            time.sleep(0.05)
    raise TimeoutError("the server is not ready")


def batch(start: int, count: int, stream: str = "broadcast") -> dict[str, Any]:
    """The body of one batch: `count` recipients of the template, from number `start` on."""
    return {
        "from": "The Shop <shop@example.com>",
        "template": "order",
        "stream": stream,
        "recipients": [
            {"to": f"user{n}@sink.example", "variables": material.variables(n)} for n in range(start, start + count)
        ],
    }
