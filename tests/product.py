"""Posthouse as processes: `posthouse init`, `serve` and `sink`, forked from one process that
has imported everything, so that a start costs milliseconds and fifty kills fit into a test.

    with Town(tmp_path) as town:
        sink = town.sink("--mix", "bounce=2%")
        server = town.server(routes(sink.port))
        server.post("/v1/messages", {...})
        server.kill(); server.start()
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec
from bench.material import QUICK, route

from posthouse.smtpd.sink.journal import Entry

_LISTENS = re.compile(r"listens on 127\.0\.0\.1:(\d+), counts on (http://[^/\s]+/)")
_SECONDS = 60.0
DOMAIN = "sender.example"

_PARENT = """
import json, os, random, signal, sys
import posthouse.app.web, posthouse.cli.client, posthouse.cli.init, posthouse.cli.logs, posthouse.cli.serve
import posthouse.cli.sink.run, posthouse.storage.records.migrations.upgrade, uvloop
from posthouse.cli import main

assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not fork"
print(0, flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    if "wait" in ask:
        print(os.waitstatus_to_exitcode(os.waitpid(ask["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, ask["out"], 577), (2, ask["err"], 1089)):
            os.dup2(os.open(name, flags, 0o600), number)
        sys.stdin, sys.stdout, sys.stderr = (open(n, "rw"[n > 0], buffering=1, closefd=False) for n in (0, 1, 2))
        random.seed()
        os._exit(main(ask["arguments"]))
    print(pid, flush=True)
"""


def routes(port: int, connections: int = 8, extra: str = "") -> str:
    """Settings: everything to the sink, with short retries."""
    return f"{extra}\n{QUICK}{route(port, connections)}"


def wait_until(check: Callable[[], object], what: str, seconds: float = _SECONDS, pause: float = 0.03) -> None:
    """:raises TimeoutError:"""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(pause)


class Town:
    """Forks commands, and ends them all when it is left."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        """:param environment: of every process here, besides our own."""
        self.directory = directory
        self._alive: set[int] = set()
        self._number = 0
        names = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
        environment = {**names, **(environment or {})}
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent / "src")
        self._parent = subprocess.Popen(
            [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        assert self._answer() == 0
        return self

    def __exit__(self, *_: object) -> None:
        for pid in list(self._alive):
            self.end(pid, signal.SIGKILL)
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait(10)
        self._parent.stdout.close()

    def fork(self, *arguments: str) -> tuple[int, Path, Path]:
        """A command's process, and the files of its output and its errors."""
        self._number += 1
        out, err = (self.directory / f"{self._number}-{arguments[0]}.{kind}" for kind in ("out", "err"))
        out.touch()
        err.touch()
        pid = self._ask({"arguments": arguments, "out": str(out), "err": str(err)})
        self._alive.add(pid)
        return pid, out, err

    def wait(self, pid: int) -> int:
        """Its exit code; negative for a signal."""
        self._alive.discard(pid)
        return self._ask({"wait": pid})

    def end(self, pid: int, how: signal.Signals) -> int:
        os.kill(pid, how)
        os.kill(pid, signal.SIGCONT)
        return self.wait(pid)

    def run(self, *arguments: str) -> str:
        pid, out, err = self.fork(*arguments)
        assert self.wait(pid) == 0, err.read_text()
        return out.read_text()

    def sink(self, *flags: str, port: int = 0) -> Sink:
        return Sink(self, flags, port)

    def server(self, settings: str, *, top: str = "", start: bool = True) -> Server:
        """Set up with a tenant and the signed domain `sender.example`. `top`: settings without a section."""
        server = Server(self, settings, top)
        server.set_up()
        if start:
            server.start()
        return server

    def _ask(self, question: object) -> int:
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(question) + "\n")
        self._parent.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._parent.stdout is not None
        return int(self._parent.stdout.readline())


class Sink:
    """`posthouse sink` with its log; `stop` and `start` again on the same port."""

    def __init__(self, town: Town, flags: tuple[str, ...], port: int) -> None:
        self._town = town
        self._flags = flags
        self.port = port
        town._number += 1
        self.log = town.directory / f"sink-{town._number}.jsonl"
        self.start()

    def start(self) -> None:
        self.pid, out, err = self._town.fork(
            "sink", "--port", str(self.port), "--stats-port", "0", "--log", str(self.log), *self._flags
        )
        wait_until(lambda: _LISTENS.search(out.read_text()) or err.read_text(), "the sink listens")
        found = _LISTENS.search(out.read_text())
        assert found is not None, err.read_text()
        self.port, self._url = int(found[1]), found[2]

    def counts(self) -> dict[str, Any]:
        return httpx.get(self._url, timeout=10, trust_env=False).json()

    def stop(self) -> None:
        """Afterwards the log is complete."""
        self._town.end(self.pid, signal.SIGTERM)

    def entries(self) -> list[Entry]:
        return msgspec.json.Decoder(Entry).decode_lines(self.log.read_bytes()) if self.log.exists() else []


class Server:
    """`posthouse serve`, its key and its life."""

    def __init__(self, town: Town, settings: str, top: str = "") -> None:
        self._town = town
        town._number += 1
        self.directory = town.directory / f"server-{town._number}"
        self.directory.mkdir(exist_ok=True)
        self._file = self.directory / "posthouse.toml"
        self._file.write_text(
            f'data_dir = "{self.directory}/data"\nhostname = "mail.{DOMAIN}"\n{top}[http]\nport = 0\n'
            f'[log]\nlevel = "warning"\nformat = "json"\n{settings}'
        )
        self.pid = 0
        self.url = ""
        self.key = ""
        self.operator_key = ""
        self.errors = self.directory / "nothing"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def settings(self) -> Path:
        return self._file

    def set_up(self) -> None:
        made = json.loads(self._town.run("init", "--domain", DOMAIN, "--json", "--config", str(self._file)))
        self.operator_key = (self.data / "operator.key").read_text().strip()
        self.key = made["key"]["secret"] if made["key"] else self.operator_key
        self.domain = made["domain"]

    def launch(self) -> None:
        """Without waiting for it to be ready."""
        self.pid, _, self.errors = self._town.fork("serve", "--config", str(self._file))

    def start(self) -> None:
        self.launch()
        try:
            wait_until(self.ready, "the server is ready", pause=0.01)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.errors.read_text()[-2000:]}") from None

    def ready(self) -> bool:
        try:
            said = json.loads((self.data / "serve.json").read_text())
            self.url = said["url"]
            return said["pid"] == self.pid and self.get("/readyz").status_code == 200
        except (OSError, ValueError, httpx.HTTPError):
            return False

    def kill(self) -> None:
        self._town.end(self.pid, signal.SIGKILL)

    def stop(self) -> int:
        return self._town.end(self.pid, signal.SIGTERM)

    def renderers(self) -> list[int]:
        """The render processes that live."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(child) for child in children]

    def client(self, key: str = "", seconds: float = 30) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=seconds, trust_env=False)

    def get(self, path: str, *, key: str = "", **query: Any) -> httpx.Response:
        with self.client(key) as http:
            return http.get(path, params=query)

    def post(self, path: str, body: object = None, *, key: str = "", **headers: str) -> httpx.Response:
        with self.client(key) as http:
            return http.post(path, json=body, headers={n.replace("_", "-"): v for n, v in headers.items()})

    def waiting(self) -> int:
        """Jobs in the queue, those in flight counted."""
        depths = self.get("/v1/queue", key=self.operator_key).raise_for_status().json()["depths"]
        return sum(depth["ready"] + depth["delayed"] for depth in depths)

    def ledger(self) -> list[dict[str, Any]]:
        """Every message of the tenant."""
        rows: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 200}
        with self.client() as http:
            while True:
                page = http.get("/v1/messages", params=query).raise_for_status().json()
                rows.extend(page["data"])
                if page["next"] is None:
                    return rows
                query["cursor"] = page["next"]


def message_id(entry: Entry) -> str:
    """The id in the ledger of what the sink got."""
    return "msg_" + entry.message_id.strip("<>").partition("@")[0]
