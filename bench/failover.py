"""Seconds from the kill of a worker, and of each engine, to full speed again, with nothing lost.

Two workers send a steady load, far below what they could, to one sink. One thing after another
is killed (SIGKILL) and started again at once, as a supervisor would; PostgreSQL is also failed
over to a standby that every commit has waited for. It is full speed again when deliveries
stay at 90 % of the rate of before, or more, by the sink's log.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import material
from bench.cluster import NAMES, Cluster, Engine, engines, new_database
from bench.report import Report, main
from bench.standby import Standby

LAYOUT = {"api": "api", "worker": "render,send", "second": "render,send", "schedule": "schedule"}
_EVERY = 0.1
_WINDOW = 3.0
"""Seconds over which a rate is taken."""
_ENOUGH = 0.9
_STEADY = 5.0
"""Seconds of full speed before each kill, and after it."""
_LONGEST = 90.0

_BASE = """
hostname = "mail.sender.example"

[worker]
lease = 5
"""


@dataclass
class Load:
    """So many messages a second until `stop`, each batch repeated until it has its 202."""

    cluster: Cluster
    rate: float
    accepted: list[str] = field(default_factory=list[str])
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(_LONGEST)

    def _run(self) -> None:
        count, number, next_at = max(1, round(self.rate * _EVERY)), 0, time.monotonic()
        while not self._over.is_set():
            recipients = [{"to": f"user{number}x{n}@sink.example"} for n in range(count)]
            self._submit({"from": "crew@sender.example", "subject": "One", "text": "Hello\n", "recipients": recipients})
            number += 1
            next_at = max(next_at + _EVERY, time.monotonic() - _EVERY)
            self._over.wait(max(0.0, next_at - time.monotonic()))

    def _submit(self, body: object) -> None:
        key, again = str(self.cluster.made["key"]["secret"]), f"batch-{len(self.accepted)}"
        while True:
            try:
                answer = self.cluster.call("POST", "/v1/messages/batch", body, key=key, again=again)
            except OSError:
                time.sleep(0.1)
            else:
                self.accepted += [one["id"] for one in answer["results"]]
                return


class Arrivals:
    """The sink's log, read on as it grows."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self._times: list[float] = []
        self.messages: set[str] = set()

    def read(self) -> None:
        with self._log.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            self._times.append(entry["at"])
            self.messages.add(entry["message_id"].strip("<>").partition("@")[0])
        self._times.sort()

    def rate(self, end: float) -> float:
        """Messages a second in the window before `end`."""
        self.read()
        return (bisect_left(self._times, end) - bisect_left(self._times, end - _WINDOW)) / _WINDOW


def recovered(arrivals: Arrivals, began: float, before: float) -> float:
    """Seconds from `began` until the rate `before` is there and stays; returns once it has stayed.

    :raises TimeoutError:
    """
    good_since: float | None = None
    while (now := time.time()) < began + _LONGEST:
        time.sleep(0.1)
        if arrivals.rate(now - 0.2) < _ENOUGH * before:  # the log is up to 0.1 s behind
            good_since = None
        elif good_since is None:
            good_since = now - 0.2
        # A window that is full speed throughout began when it did.
        elif now - began > _WINDOW and now - good_since > _STEADY:
            return max(0.0, good_since - _WINDOW - began)
    raise TimeoutError(f"after {_LONGEST:.0f} s it still is at {arrivals.rate(time.time()):.0f}/s of {before:.0f}/s")


def run(rate: float, names: Sequence[str]) -> dict[str, float]:
    directory = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK))
    directory.chmod(0o755)  # PostgreSQL runs as another user than root
    try:
        with ExitStack() as stack:
            return _run(directory, stack, rate, names)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(directory: Path, stack: ExitStack, rate: float, names: Sequence[str]) -> dict[str, float]:
    found = stack.enter_context(engines(directory / "services", names))
    log = directory / "sink.jsonl"
    log.touch()
    sink = stack.enter_context(material.sink("--log", str(log)))
    standby = Standby(found["postgres"], Engine("postgres", directory / "standby", material.free_port()))
    stack.callback(standby.other.stop)
    database = standby.both(new_database(found["postgres"].address))
    cluster = Cluster(directory, found, _BASE + material.QUICK + material.route(sink.port), LAYOUT, database=database)
    cluster.set_up("--domain", "sender.example")
    stack.callback(cluster.stop)
    cluster.start()
    arrivals, load = Arrivals(log), Load(cluster, rate)
    stack.callback(load.stop)
    figures: dict[str, float] = {"rate_per_second": rate}
    for name, strike in _strikes(cluster, found, standby):
        if name == "postgres_failover":
            standby.follow()
        recovered(arrivals, time.time(), rate)
        began = time.time()
        strike()
        figures[f"{name}_s"] = recovered(arrivals, began, rate)
    load.stop()
    figures["lost"] = float(_missing(load, arrivals))
    figures["accepted"] = float(len(load.accepted))
    return figures


def _strikes(cluster: Cluster, found: dict[str, Engine], standby: Standby) -> Sequence[tuple[str, Callable[[], None]]]:
    def worker() -> None:
        cluster.kill("worker")
        cluster.launch("worker")

    def engine(one: Engine) -> Callable[[], None]:
        def strike() -> None:
            one.kill()
            one.start()

        return strike

    def fail_over() -> None:
        standby.primary.kill()
        standby.take_over()

    strikes: list[tuple[str, Callable[[], None]]] = [("worker", worker)]
    strikes += [(name, engine(one)) for name, one in found.items()]
    return [*strikes, ("postgres_failover", fail_over)]


def _missing(load: Load, arrivals: Arrivals) -> int:
    """Messages of a 202 that have not come when nothing more comes."""
    wanted = {one.removeprefix("msg_") for one in load.accepted}
    end = time.monotonic() + 30.0
    while wanted - arrivals.messages and time.monotonic() < end:
        time.sleep(0.2)
        arrivals.read()
    return len(wanted - arrivals.messages)


def measure(arguments: argparse.Namespace) -> Report:
    """Seconds from a kill to full speed again, for a worker and for each engine."""
    return Report("failover", run(arguments.rate, arguments.engines.split(",")), {"lost": ("≤", 0)})


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second")
    parser.add_argument("--engines", default=",".join(NAMES))


if __name__ == "__main__":
    main(measure, options)
