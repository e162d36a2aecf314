"""What a fault run happens to: the engines, the processes, the sink, the network between them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import msgspec
from bench import material
from bench.cluster import NAMES, Engine, engines, new_database
from bench.standby import Standby

from posthouse.smtpd.sink.journal import Entry
from tests.crash.cluster import network as networks
from tests.crash.cluster.clients import Clients
from tests.crash.cluster.forked import ForkedCluster
from tests.crash.cluster.network import Network
from tests.crash.load import FROM, TEMPLATE
from tests.crash.receive_load import ACCOUNTS, CREW, SENDER, Claim, Letter, Refused, brought, claims
from tests.product import DOMAIN, routes
from tests.receiving import SMALL, free_port, make_accounts

LEASE = 4.0
CONNECTIONS = 4
"""To the sink, of each process that sends."""
MIX = "bounce=2%,defer=4%,slow-final-0.2=4%"

LAYOUT: Mapping[str, str] = {
    "api": "api",
    "mx": "mx",
    "worker": "render,send",
    "far": "render,send,store",
    "store": "store",
    "index": "index",
    "schedule": "schedule",
}
"""Two processes of each stage that may overtake the other; `far` lives behind the cable."""
SENDERS = ("worker", "far")
SKEWED = ("worker", "store")
"""Processes whose clock can be set wrong."""

_SETTINGS = """
data_dir = "{directory}/data"
hostname = "mail.{domain}"

[receive]
mx = ["127.0.0.1:{mx}"]
small = {small}
least_free = 1
connections_per_address = 100

[dns]
servers = ["{dns}"]
timeout = 0.5

[worker]
lease = {lease}
drain_timeout = 20
"""


class NotHereError(Exception):
    """An engine cannot be had on this machine; its words."""


@cache
def faketime() -> str | None:
    """The library that sets a process's clock wrong, or None."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


@dataclass
class Asked:
    """What one question after another was answered: messages and letters that the judge is to know of, too."""

    accepted: list[str] = field(default_factory=list[str])
    letters: list[Claim] = field(default_factory=list[Claim])


@dataclass
class World:
    directory: Path
    cluster: ForkedCluster
    clients: Clients
    sink: material.SinkProcess
    log: Path
    mx: int
    network: Network | None
    standby: Standby
    asked: Asked = field(default_factory=Asked)
    died: list[str] = field(default_factory=list[str])
    """Processes that ended by themselves, with their last words."""

    @property
    def engines(self) -> Mapping[str, Engine]:
        return {**self.cluster.found, "postgres": self.standby.primary}

    def start_load(self, seed: int) -> None:
        key = str(self.cluster.made["key"]["secret"])
        self.cluster.call("POST", "/v1/templates", TEMPLATE, key=key)
        self.clients.start(lambda: (self.cluster.url, key), self.mx, seed)

    def submit(self, **more: object) -> int:
        """The status of the answer to one message."""
        body = {"from": FROM, "to": ["asked@sink.example"], "subject": "Asked", "text": "Hello\n", **more}
        headers = {"Authorization": f"Bearer {self.cluster.made['key']['secret']}"}
        answer = httpx.post(f"{self.cluster.url}/v1/messages", json=body, headers=headers, timeout=60, trust_env=False)
        if answer.status_code == 202:
            self.asked.accepted.append(answer.json()["id"])
        return answer.status_code

    def bring(self, octets: int) -> str:
        """The reply to a letter of about so many octets: `250`, or the words of a refusal."""
        number = len(self.asked.letters)
        head = f"From: Peer <peer@{SENDER}>\r\nSubject: Asked\r\nMessage-ID: <asked.{time.time_ns()}@{SENDER}>\r\n\r\n"
        letter = Letter(number, ("ann",), frozenset({"ann"}), (head + "Some words.\r\n" * (octets // 13)).encode())
        try:
            asyncio.run(brought(self.mx, letter))
        except Refused as refused:
            return str(refused)
        self.asked.letters += claims([letter])
        return "250"

    def metric(self, node: str, name: str) -> float:
        """The sum over its labels; 0 where it is not."""
        one = self.cluster.nodes[node]
        text = httpx.get(f"http://{one.host}:{one.port}/metrics", timeout=20, trust_env=False).text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))

    def get_status(self, path: str) -> int:
        """Of the answer to the tenant's key."""
        headers = {"Authorization": f"Bearer {self.cluster.made['key']['secret']}"}
        return httpx.get(f"{self.cluster.url}{path}", headers=headers, timeout=60, trust_env=False).status_code

    def readiness(self, node: str) -> int:
        one = self.cluster.nodes[node]
        return httpx.get(f"http://{one.host}:{one.port}/readyz", timeout=30, trust_env=False).status_code

    def set_clock(self, name: str, seconds: float) -> None:
        self._clock_file(name).write_text(f"{seconds:+.0f}\n")

    def _clock_file(self, name: str) -> Path:
        return self.directory / f"{name}.clock"

    def look_after(self) -> None:
        """Notes what died by itself, and starts it again."""
        for name, node in self.cluster.nodes.items():
            if node.process is not None and not node.alive:
                self.died.append(f"{name} ended by itself: {self.cluster.words(name)[-600:]}")
                self.cluster.start((name,))

    def waiting(self) -> dict[str, int]:
        """Jobs in the queue by stage and lane, those set aside apart."""
        depths: Sequence[dict[str, Any]] = self.cluster.call("GET", "/v1/queue")["depths"]
        found: dict[str, int] = {}
        for one in depths:
            for kind in ("ready", "delayed", "buried"):
                if one[kind]:
                    found[f"{one['stage']}/{one['lane']} {kind}"] = one[kind]
        return found

    def entries(self) -> list[Entry]:
        """The sink's log, complete once it has stopped."""
        return msgspec.json.Decoder(Entry).decode_lines(self.log.read_bytes()) if self.log.exists() else []

    def ledger(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.get(f"/v1/messages?limit=200{cursor}")
            rows.extend(page["data"])
            if page["next"] is None:
                return rows
            cursor = f"&cursor={page['next']}"

    def get(self, path: str) -> Any:
        """With the tenant's key."""
        return self.cluster.call("GET", path, key=str(self.cluster.made["key"]["secret"]))


@contextmanager
def world(directory: Path, names: Sequence[str] = NAMES, *, seed: int = 1) -> Generator[World, None, None]:
    """Set up and running, without load. `directory`: user postgres must reach it.

    :raises NotHereError: an engine cannot be had.
    :raises RuntimeError: Posthouse did not start.
    """
    with ExitStack() as stack:
        try:
            found = stack.enter_context(engines(directory / "services", names))
        except RuntimeError as error:
            raise NotHereError(str(error)) from error
        clients = stack.enter_context(Clients())
        log = directory / "sink.jsonl"
        sink = stack.enter_context(material.sink("--log", str(log), "--mix", MIX, "--seed", str(seed)))
        mx = free_port()
        base = _SETTINGS.format(
            directory=directory, domain=DOMAIN, mx=mx, small=SMALL, dns=clients.nameserver, lease=LEASE
        )
        standby = Standby(found["postgres"], Engine("postgres", directory / "standby", free_port()))
        stack.callback(standby.other.stop)
        database = standby.both(new_database(found["postgres"].address))
        cluster = ForkedCluster(directory, found, routes(sink.port, CONNECTIONS, base), LAYOUT, database=database)
        cluster.set_up("--domain", DOMAIN)
        make_accounts(directory / "posthouse.toml", ACCOUNTS, aliases={"crew": CREW})
        cable = None
        if networks.cannot() is None:
            ports = [*(engine.port for engine in found.values()), standby.other.port, sink.port]
            cable = stack.enter_context(networks.network(ports))
            cluster.nodes["far"].prefix = cable.prefix
            cluster.nodes["far"].host = cable.inside
        one = World(directory, cluster, clients, sink, log, mx, cable, standby)
        _arrange_clocks(one)
        cluster.prepare()
        stack.callback(cluster.end)
        cluster.start()
        yield one


def _arrange_clocks(one: World) -> None:
    library = faketime()
    for name in SKEWED if library is not None else ():
        one.set_clock(name, 0)
        one.cluster.nodes[name].variables |= {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(one.directory / f"{name}.clock"),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
        }
