"""A burst into the engines at ten times the rate at which messages can leave: is every request
taken, and quickly, does memory stay flat, is the queue empty when the plan said?

The sink answers slowly and takes few connections, so the rate of sending is the destination's,
not this machine's. It is measured first, on a small queue; `posthouse.capacity` is given this
rate and the burst, and tells the time to drain. Single messages of 2 KB are submitted on a
schedule: a request that waits for a connection is late by so much. The client, the engines and
the sink share the cores with Posthouse. Engines that run for months have warm code: before the
burst as many messages a second go all the way but out, to an address that is suppressed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import material, sending
from bench.client import Answer, Single, percentile, run_singles, singles
from bench.cluster import Cluster
from bench.report import Report, main
from bench.server import resident
from posthouse.capacity.queueing import Burst, drained

TIMES = 10.0
_CONNECTIONS = 64
_TO_MEASURE = 10.0
"""Seconds of sending from which its rate is taken."""
_WARM = 20.0
"""Seconds of messages to a suppressed address."""
_REPLIES = 4
"""Of the sink for a message: MAIL, RCPT, DATA, the message's end."""
_MB = 1e6
_BARS = {
    "server_errors": ("≤", 0.0),
    "refused": ("≤", 0.0),
    "lost": ("≤", 0.0),
    "twice": ("≤", 0.0),
    "submit_p99_ms": ("<", 50.0),
    "growth_mb": ("≤", 16.0),
    "drain_error": ("≤", 0.25),
}


@dataclass(frozen=True, slots=True)
class Held:
    """Octets resident at a moment, by process."""

    at: float
    octets: dict[str, int]


class _Watch(threading.Thread):
    """Notes what the processes hold, twice a second."""

    def __init__(self, made: Cluster) -> None:
        super().__init__(daemon=True)
        self._made = made
        self._ended = threading.Event()
        self.found: list[Held] = []

    def run(self) -> None:
        while not self._ended.wait(0.5):
            octets = {name: sum(map(resident, node.pids())) for name, node in self._made.nodes.items()}
            self.found.append(Held(time.time(), octets))

    def stop(self) -> list[Held]:
        self._ended.set()
        self.join()
        return self.found


def growth(found: Sequence[Held], start: float, end: float) -> dict[str, float]:
    """Octets by process: the mean of the burst's last tenth less that of the tenth after its middle."""
    length = end - start

    def mean(name: str, begin: float, end: float) -> float:
        within = [one.octets[name] for one in found if begin <= one.at <= end]
        if not within:
            raise ValueError("the burst is too short to say what memory does")
        return sum(within) / len(within)

    return {
        name: mean(name, end - length / 10, end) - mean(name, start + length / 2, start + length * 0.6)
        for name in found[0].octets
    }


def steady(times: Sequence[float]) -> float:
    """Arrivals a second, without the first fifth and the last tenth: connections open and run dry."""
    ordered = sorted(times)
    first, last = len(ordered) // 5, len(ordered) * 9 // 10
    return (last - first) / (ordered[last] - ordered[first])


class _Journal:
    """The sink's log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self, count: int) -> list[dict[str, Any]]:
        """What came since the last call, at least so many. :raises TimeoutError:"""
        for _ in range(100):
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            if whole.count(b"\n") >= count:
                self._offset += len(whole)
                return [json.loads(line) for line in whole.splitlines()]
            time.sleep(0.1)
        raise TimeoutError(f"the sink's journal has fewer than {count} messages")


def sending_rate(made: Cluster, sink: material.SinkProcess, journal: _Journal, about: float) -> float:
    """Messages a second that leave while some wait."""
    count = int(about * _TO_MEASURE)
    before = int(sink.counts()["accepted"])
    sending.submit(made, count, "transactional")  # as the burst's: bulk leaves a part of the connections free
    sink.wait_for(before + count, 300)
    sending.wait_until_empty(made)
    return steady([entry["at"] for entry in journal.new(count)])


def _warm(made: Cluster, peak: float) -> None:
    nobody = "nobody@sink.example"
    made.call("POST", "/v1/suppressions", {"address": nobody, "reason": "manual"})
    single = Single(made.nodes["api"].port, made.operator_key, to=nobody)
    run_singles(single, range(int(peak * _WARM)), per_second=peak, connections=_CONNECTIONS)
    sending.wait_until_empty(made)


def run(seconds: float, latency: float, connections: int, workers: int) -> dict[str, float]:
    with ExitStack() as stack:
        directory, found = stack.enter_context(sending.running_engines())
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="posthouse-bench-"))) / "sink.jsonl"
        log.touch()
        sink = stack.enter_context(material.sink("--log", str(log), "--latency", str(latency)))
        made = stack.enter_context(sending.cluster(directory, found, sink, workers=workers, connections=connections))
        return against(made, sink, log, seconds, workers * connections / (_REPLIES * latency / 1000))


def against(made: Cluster, sink: material.SinkProcess, log: Path, seconds: float, about: float) -> dict[str, float]:
    """:param about: messages a second that the sink is expected to take."""
    journal = _Journal(log)
    rate = sending_rate(made, sink, journal, about)
    peak = TIMES * rate
    _warm(made, peak)
    told = drained(Burst(peak, seconds), rate)
    before = int(sink.counts()["accepted"])
    watch = _Watch(made)
    watch.start()
    used = _cpu(made)
    single = Single(made.nodes["api"].port, made.operator_key)
    with singles(single, range(int(peak * seconds)), per_second=peak, connections=_CONNECTIONS) as answers:
        time.sleep(seconds)
        found = answers()
    spent = {name: after - used[name] for name, after in _cpu(made).items()}
    held = watch.stop()
    accepted = [answer for answer in found if answer.status == 202]
    last = sink.wait_for(before + len(accepted), 3 * told.seconds + 120)
    sending.wait_until_empty(made)
    start, end = min(answer.due for answer in found), max(answer.due for answer in found)
    arrived = [entry["message_id"].strip("<>").partition("@")[0] for entry in journal.new(len(accepted))]
    return {
        **_requests(found),
        **_whole(accepted, arrived),
        **_memory(growth(held, start, end), held[-1].octets),
        **{f"{name}_cpu_ms": seconds * 1000 / len(found) for name, seconds in spent.items()},
        "drain_error": abs(last - end - told.seconds) / told.seconds,
        "drain_s": last - end,
        "drain_foretold_s": told.seconds,
        "sending_per_second": rate,
        "burst_per_second": peak,
        "messages": float(len(found)),
    }


def _cpu(made: Cluster) -> dict[str, float]:
    """Seconds that processes and engines have used until now."""
    return {name: one.cpu() for name, one in {**made.nodes, **made.found}.items()}


def _requests(found: Sequence[Answer]) -> dict[str, float]:
    times = [answer.seconds * 1000 for answer in found]
    return {
        "server_errors": float(sum(answer.status >= 500 for answer in found)),
        "refused": float(sum(answer.status != 202 for answer in found)),
        "submit_p50_ms": percentile(times, 0.5),
        "submit_p99_ms": percentile(times, 0.99),
    }


def _whole(accepted: Sequence[Answer], arrived: Sequence[str]) -> dict[str, float]:
    wanted = {json.loads(answer.body)["id"].removeprefix("msg_") for answer in accepted}
    return {"lost": float(len(wanted.difference(arrived))), "twice": float(len(arrived) - len(set(arrived)))}


def _memory(grown: dict[str, float], held: dict[str, int]) -> dict[str, float]:
    return {
        "growth_mb": max(grown.values()) / _MB,
        **{f"{name}_growth_mb": octets / _MB for name, octets in grown.items()},
        **{f"{name}_resident_mb": octets / _MB for name, octets in held.items()},
    }


def measure(arguments: argparse.Namespace) -> Report:
    """Ten times the rate of sending, submitted for a while."""
    figures = run(arguments.seconds, arguments.latency, arguments.connections, arguments.workers)
    return Report("burst", figures, _BARS)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the burst lasts; draining takes 9 times")
    parser.add_argument("--latency", type=float, default=30.0, help="milliseconds before each reply of the sink")
    parser.add_argument("--connections", type=int, default=4, help="of each worker to the sink")
    parser.add_argument("--workers", type=int, default=1)


if __name__ == "__main__":
    main(measure, options)
