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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import material


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
        return sum(_pss(pid) for pid in self.pids())

    def waiting(self) -> int:
        """Jobs in the queue."""
        return sum(depth["ready"] + depth["delayed"] for depth in self.call("GET", "/v1/queue")["depths"])


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def server(
    sink_port: int, *, records: str | None = None, settings: Mapping[str, str] | None = None
) -> Generator[Server, None, None]:
    """`settings` as `POSTHOUSE_*` variables."""
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-") as temporary:
        directory = Path(temporary)
        (directory / "posthouse.toml").write_text(
            f'data_dir = "{directory}/data"\nhostname = "bench.example.com"\n[[routes]]\ndomains = ["*"]\n'
            f'kind = "static"\nhosts = ["127.0.0.1:{sink_port}"]\ntls = "none"\nconnections = 100\n'
        )
        port = material.free_port()
        variables = {**material.environment(), "POSTHOUSE_HTTP__PORT": str(port), "POSTHOUSE_LOG__LEVEL": "warning"}
        if records is not None:
            variables["POSTHOUSE_RECORDS__URL"] = records
        variables.update(settings or {})
        command = [sys.executable, "-m", "posthouse"]
        subprocess.run([*command, "init"], cwd=directory, env=variables, check=True, capture_output=True)
        process = subprocess.Popen([*command, "serve"], cwd=directory, env=variables, stdout=subprocess.DEVNULL)
        try:
            key = (directory / "data" / "operator.key").read_text().strip()
            found = Server(f"http://127.0.0.1:{port}", port, key, process, directory)
            _until_ready(found)
            found.call("POST", "/v1/domains", {"name": "example.com", "algorithms": ["rsa-sha256"]})
            found.call(
                "POST",
                "/v1/templates",
                {"name": "order", "subject": material.SUBJECT, "html": material.HTML, "text": material.TEXT},
            )
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)


def _until_ready(found: Server) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(found.url + "/readyz", timeout=5).read()
            return
        except OSError:
            if found.process.poll() is not None:
                raise RuntimeError("the server ended while starting") from None
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
