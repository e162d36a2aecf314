"""A cluster whose processes are forked from parents that have imported everything: a start costs
a tenth of a second of processor time, so that a run of many kills is short on a busy machine.

A parent lives where its children do: in their network namespace, under their library.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from bench.cluster import Cluster, Node

_PARENT = """
import json, os, random, signal, sys
import posthouse.app.probes, posthouse.app.web, posthouse.cli.client, posthouse.cli.logs, posthouse.cli.serve, uvloop
import posthouse.storage.blobs.s3, posthouse.storage.bus.redis, posthouse.storage.queue.kafka.queue
import posthouse.storage.records.migrations.postgres, posthouse.storage.records.postgres
import posthouse.storage.search.opensearch.client
from posthouse.cli import main

assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not fork"
print(0, flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    if "look" in ask:
        pid, status = os.waitpid(ask["look"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, os.devnull, os.O_WRONLY), (2, ask["err"], 1089)):
            os.dup2(os.open(name, flags, 0o600), number)
        sys.stdin, sys.stdout, sys.stderr = (open(n, "rw"[n > 0], buffering=1, closefd=False) for n in (0, 1, 2))
        os.environ.clear()
        os.environ.update(ask["environment"])
        random.seed()
        os._exit(main(ask["arguments"]))
    print(pid, flush=True)
"""


class Parent:
    """:param prefix: of its command. :param environment: its children's may differ in what Posthouse reads."""

    def __init__(self, prefix: tuple[str, ...], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-c", _PARENT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._ready = False

    def ask(self, question: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._ready and self._process.stdout.readline().strip() != "0":
            raise RuntimeError("the parent of the cluster's processes did not start")
        self._ready = True
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


class Child:
    """As much of `subprocess.Popen` as a cluster uses."""

    def __init__(self, parent: Parent, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._parent = parent

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._parent.ask({"look": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """:raises subprocess.TimeoutExpired:"""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("posthouse serve", timeout or 0)
            time.sleep(0.02)
        return code

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@dataclass
class ForkedCluster(Cluster):
    """Call `prepare` once the nodes have their prefixes and variables, and `end` at last."""

    parents: dict[str, Parent] = field(default_factory=dict[str, Parent])

    def prepare(self) -> None:
        """The parents begin to import; the first start waits for them."""
        plain = None
        for node in self.nodes.values():
            if node.prefix or node.variables:
                self.parents[node.name] = Parent(node.prefix, self.environment(node))
            else:
                plain = plain or Parent((), self.environment())
                self.parents[node.name] = plain

    def end(self) -> None:
        self.stop()
        for parent in {id(one): one for one in self.parents.values()}.values():
            parent.end()

    def spawn(self, node: Node, arguments: list[str]) -> Child:
        parent = self.parents[node.name]
        err = str(self.directory / f"{node.name}.err")
        return Child(parent, parent.ask({"arguments": arguments, "environment": self.environment(node), "err": err}))
