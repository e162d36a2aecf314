"""`make demo-cluster`: the demo's mails, out and in again, through six processes on PostgreSQL, Kafka,
Redis, S3 and OpenSearch, each of which is killed once on the way.

    python scripts/demo_cluster.py [--messages 3000] [--mailboxes 100] [--no-kill] [--json]

The engines come from scripts/services, with data of their own that is removed at the end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx
from bench import material
from bench.cluster import LAYOUT, Cluster, Engine, engines
from rich.text import Text

from posthouse.cli.demo import run
from posthouse.cli.demo.processes import DOMAIN, SETTINGS, Failed, free_port
from posthouse.cli.output import Output

_LEASE = 10  # seconds


class Demo:
    """`posthouse.cli.demo.processes.House`, as six processes."""

    def __init__(self, directory: Path, found: dict[str, Engine]) -> None:
        self.directory = directory
        self.tenant = "demo"
        self.domain: dict[str, Any] = {}
        self._found = found
        self._cluster: Cluster | None = None

    @property
    def parts(self) -> Sequence[str]:
        return list(LAYOUT)

    @property
    def cluster(self) -> Cluster:
        assert self._cluster is not None, "set it up first"
        return self._cluster

    def set_up(self, dns: str) -> None:
        """:raises Failed:"""
        # What a killed process held comes back when its lease ends: here nobody waits two minutes.
        base = f"{SETTINGS.format(dns=dns, mx=free_port())}\n[worker]\nlease = {_LEASE}\n"
        self._cluster = Cluster(self.directory, self._found, base)
        try:
            self.cluster.set_up("--domain", DOMAIN)
        except RuntimeError as error:
            raise Failed(str(error)) from None
        self.domain = self.cluster.made["domain"]

    def start(self) -> None:
        self._start(())

    def start_again(self, part: str) -> None:
        self._start((part,))

    def kill(self, part: str) -> None:
        self.cluster.kill(part)

    def stop(self) -> None:
        if self._cluster is not None:
            self._cluster.stop()

    def http(self, *, operator: bool = False) -> httpx.Client:
        key = self.cluster.operator_key if operator else self.cluster.made["key"]["secret"]
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.cluster.url, headers=headers, timeout=30, trust_env=False)

    def _start(self, names: Sequence[str]) -> None:
        try:
            self.cluster.start(names)
        except RuntimeError as error:
            raise Failed(str(error)) from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--mailboxes", type=int, default=100)
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    out = Output(as_json=given.json)
    directory = Path(tempfile.mkdtemp(prefix="posthouse-cluster-", dir=material.DISK))
    directory.chmod(0o755)  # PostgreSQL runs as another user than root
    try:
        out.hint("Starting PostgreSQL, Kafka, Redis, an S3 server and OpenSearch …")
        with engines(directory / "services") as found:
            good = run.demo(out, Demo(directory, found), given.messages, given.mailboxes, kill=not given.no_kill)
    except (Failed, RuntimeError, httpx.HTTPError) as error:
        out.errors.print(Text(f"The demo could not be shown: {error}", style="red"), soft_wrap=True)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
