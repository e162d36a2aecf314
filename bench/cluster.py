"""Posthouse as many processes on the real engines, on this machine: for `make demo-cluster`, the
fault runs and the benchmarks that are about scale.

    with engines(directory) as found, Cluster(directory, found) as cluster:
        cluster.start()

Each process is `posthouse serve --roles …` with one configuration file for all. The engines
are those of scripts/services, with data of their own below `directory`; PostgreSQL syncs.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from bench import material

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts" / "services"
NAMES = ("postgres", "kafka", "redis", "s3", "opensearch")
LAYOUT: Mapping[str, str] = {
    "api": "api",
    "worker": "render,send",
    "schedule": "schedule",
    "mx": "mx",
    "store": "store",
    "index": "index",
}
"""Process by name → its roles."""
_START_SECONDS, _STOP_SECONDS = 90.0, 45.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Engine:
    """One server of scripts/services, with a directory and a port of its own."""

    name: str
    directory: Path
    port: int = 0
    address: str = ""
    variables: dict[str, str] = field(default_factory=dict[str, str])
    """Further ones of the script."""

    def call(self, verb: str, seconds: float = 600.0) -> str:
        """:raises RuntimeError: with the script's last words."""
        variables = {**os.environ, "SERVICES_DIR": str(self.directory), "POSTGRES_FSYNC": "on", **self.variables}
        if self.port:
            variables[f"{self.name.upper()}_PORT"] = str(self.port)
        done = subprocess.run(
            ["bash", str(SCRIPTS / f"{self.name}.sh"), verb],
            env=variables, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.name} {verb}: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()

    def start(self) -> None:
        """:raises RuntimeError: also when its port is taken meanwhile; a first start then looks for another."""
        for left in (2, 1, 0):
            try:
                self.address = self.call("start")
                break
            except RuntimeError:
                if self.port or not left:
                    raise
        self.port = int(self.address.rstrip("/").split("/0")[0].rpartition(":")[2].split("/")[0])

    def stop(self) -> None:
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            self.call("stop", 90)

    def pid(self) -> int:
        return int((self.directory / self.name / "run" / f"{self.name}.pid").read_text().split()[0])

    def pids(self) -> list[int]:
        """With its children (PostgreSQL's back ends)."""
        first = self.pid()
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(first)], capture_output=True, text=True, check=False)
        return [first, *map(int, found.stdout.split())]

    def kill(self) -> None:
        """SIGKILL, to all of it; `start` brings it back on the same port."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cpu(self) -> float:
        """Seconds, with what its ended children used."""
        return sum(material.cpu_seconds(pid) for pid in self.pids())


@contextmanager
def engines(directory: Path, names: Sequence[str] = NAMES) -> Generator[dict[str, Engine], None, None]:
    """Started together; stopped at the end. `directory` must be reachable by user postgres.

    :raises RuntimeError: one cannot be installed or started here.
    """
    found = {name: Engine(name, directory) for name in names}
    try:
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(Engine.start, found.values()))
        yield found
    finally:
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(Engine.stop, found.values()))


def configuration(found: Mapping[str, Engine], database: str) -> str:
    """The five URLs, as lines of `posthouse.toml`. Without an engine its embedded stand-in on records serves."""
    token = secrets.token_hex(4)
    lines = [f'[records]\nurl = "{database}"']
    if "s3" in found:
        lines.append(
            f'[blobs]\nurl = "s3://test/{token}"\nendpoint = "{found["s3"].address}"\n'
            'access_key = "test"\nsecret_key = "testsecret"'
        )
    if "kafka" in found:
        lines.append(f'[queue]\nurl = "kafka://{found["kafka"].address}?prefix=posthouse-{token}"')
    if "redis" in found:
        lines.append(f'[bus]\nurl = "{found["redis"].address}"')
    if "opensearch" in found:
        lines.append(f'[search]\nurl = "{found["opensearch"].address}/posthouse-{token}"')
    return "\n".join(lines) + "\n"


def new_database(server: str) -> str:
    """Its URL, in the PostgreSQL at `server`."""
    name = f"cluster_{secrets.token_hex(4)}"

    async def make() -> None:
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()

    asyncio.run(make())
    return f"{server.rpartition('/')[0]}/{name}"


class Process(Protocol):
    """As much of `subprocess.Popen` as is used here."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


@dataclass
class Node:
    """A process. `port`: of its HTTP, of the API or of its probes, at `host`.

    :param prefix: of its command, such as `ip netns exec NAME`.
    :param variables: of its environment, besides those of the cluster.
    """

    name: str
    roles: str
    port: int
    host: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict[str, str])
    process: Process | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def pids(self) -> list[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def cpu(self) -> float:
        """Seconds, with its render processes."""
        return sum(material.cpu_seconds(pid) for pid in self.pids())


@dataclass
class Cluster:
    """Processes on one configuration file, `directory/posthouse.toml`.

    :param base: the file, but for the engines' tables.
    :param cores: of a process by its name, as taskset reads them; it has all without.
    """

    directory: Path
    found: Mapping[str, Engine]
    base: str
    layout: Mapping[str, str] = field(default_factory=lambda: dict(LAYOUT))
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    cores: Mapping[str, str] = field(default_factory=dict[str, str])
    tenant: str = "demo"
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    database: str = ""
    """Its URL; a new one when it is not given."""
    made: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.nodes['api'].port}"

    @property
    def operator_key(self) -> str:
        return (self.directory / "data" / "operator.key").read_text().strip()

    @property
    def _shared(self) -> list[str]:
        return ["--config", str(self.directory / "posthouse.toml"), "--data-dir", str(self.directory / "data")]

    def set_up(self, *arguments: str) -> None:
        """The configuration, the schema, a tenant. :param arguments: of `posthouse init`.

        :raises RuntimeError: with its last words.
        """
        self.database = self.database or new_database(self.found["postgres"].address)
        text = configuration(self.found, self.database)
        (self.directory / "posthouse.toml").write_text(f"{self.base}\n{text}")
        done = subprocess.run(
            [sys.executable, "-m", "posthouse", "init", "--tenant", self.tenant, "--json", *arguments, *self._shared],
            env=self.environment(), capture_output=True, text=True, timeout=_START_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"`posthouse init` failed: {done.stderr.strip()[-2000:]}")
        self.made = json.loads(done.stdout)
        self.nodes = {name: Node(name, roles, material.free_port()) for name, roles in self.layout.items()}

    def start(self, names: Sequence[str] = ()) -> None:
        """Returns when these (all: none named) are ready. :raises RuntimeError:"""
        for name in names or self.nodes:
            self.launch(name)
        for name in names or self.nodes:
            self.wait_for(name)

    def stop(self) -> None:
        """SIGTERM to all, the front first; SIGKILL to what does not end."""
        live = [node for node in self.nodes.values() if node.alive]
        for node in live:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)
        for node in live:
            assert node.process is not None
            try:
                node.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                node.process.kill()
                node.process.wait()

    def kill(self, name: str) -> None:
        node = self.nodes[name]
        assert node.process is not None
        for pid in reversed(node.pids()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.process.wait()

    def call(self, method: str, path: str, body: object = None, *, key: str = "", again: str = "") -> Any:
        """:raises OSError: nobody answers, or it is an error. :param again: an Idempotency-Key."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Authorization", f"Bearer {key or self.operator_key}")
        request.add_header("Content-Type", "application/json")
        if again:
            request.add_header("Idempotency-Key", again)
        with _OPENER.open(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def words(self, name: str) -> str:
        """The last that a process wrote."""
        return (self.directory / f"{name}.err").read_text()[-2000:]

    # -- processes ------------------------------------------------------------------------

    def environment(self, node: Node | None = None) -> dict[str, str]:
        variables = {**material.environment(), "POSTHOUSE_LOG__LEVEL": "warning", **self.variables}
        if node is not None:
            if "api" in node.roles:
                variables["POSTHOUSE_HTTP__PORT"] = str(node.port)
            else:
                variables |= {"POSTHOUSE_HTTP__HOST": node.host, "POSTHOUSE_HTTP__HEALTH_PORT": str(node.port)}
            variables |= node.variables
        return variables

    def launch(self, name: str) -> None:
        """Without waiting until it is ready."""
        node = self.nodes[name]
        node.process = self.spawn(node, ["serve", "--roles", node.roles, *self._shared])

    def spawn(self, node: Node, arguments: list[str]) -> Process:
        """`posthouse` with these arguments."""
        command = [*node.prefix, sys.executable, "-m", "posthouse", *arguments]
        core = self.cores.get(node.name)
        if core is not None:
            command = ["taskset", "-c", core, *command]
        with (self.directory / f"{node.name}.err").open("ab") as errors:
            return subprocess.Popen(
                command, env=self.environment(node), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=errors, start_new_session=True,
            )  # fmt: skip

    def wait_for(self, name: str) -> None:
        """:raises RuntimeError: it ended, or is not ready in time."""
        node = self.nodes[name]
        assert node.process is not None
        end = time.monotonic() + _START_SECONDS
        while not self.ready(node):
            if node.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{node.name} did not start: {self.words(node.name)}")
            time.sleep(0.05)

    @staticmethod
    def ready(node: Node) -> bool:
        with suppress(OSError):
            return _OPENER.open(f"http://{node.host}:{node.port}/readyz", timeout=5).status == 200
        return False
