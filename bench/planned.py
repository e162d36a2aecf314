"""Whether the plan's model foretells a real run: a burst into `posthouse serve`, its drain time
and how long its messages take from the request to the sink's 250.

Smaller bursts in the same run, one before and one after, so that a neighbour's load that comes or
goes does not pass for an error of the model, give it its two numbers: how many messages a second
leave when nothing is submitted, and how many fewer for each that is (client, server and sink share
the cores). What another rate for another time does is told by `posthouse.capacity.queueing`, which
knows only these, and measured. A burst is submitted by a schedule, in batches of 100, whether or not it is answered.

`main_cpu_us`, `render_cpu_us` and `ledger_octets` are costs for `posthouse plan`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import material
from bench.client import percentile
from bench.report import Report, main
from bench.send import warm
from bench.server import UNLIMITED, Server, batch, server
from posthouse.capacity.queueing import Burst, Drained, drained

PER_BATCH = 100
_BARS = {"drain_error": ("≤", 0.25), "p99_error": ("≤", 0.25)}
_SUBMITTERS = 8


@dataclass(frozen=True)
class Ran:
    """A burst that is over. Times are seconds since 1970; `waits` are from when a message's batch
    was due to be submitted until the sink had answered."""

    start: float
    end: float
    last: float
    waits: Sequence[float]
    arrivals: Sequence[float]
    cpu_main: float
    cpu_render: float

    @property
    def drain(self) -> float:
        return self.last - self.end

    def rate_during(self) -> float:
        """Messages a second that left while the burst lasted, without its first tenth."""
        begin = self.start + (self.end - self.start) / 10
        return sum(begin <= at < self.end for at in self.arrivals) / (self.end - begin)

    def rate_after(self) -> float:
        """And from its end on, without the last tenth, in which queues of connections run dry."""
        until = self.end + (self.last - self.end) * 0.9
        return sum(self.end <= at < until for at in self.arrivals) / (until - self.end)


def burst(posthouse: Server, sink: material.SinkProcess, journal: Path, rate: float, seconds: float) -> Ran:
    """`rate` messages a second for `seconds`, to the last 250."""
    count = int(rate * seconds / PER_BATCH)
    before = sink.counts()["accepted"]
    offset = journal.stat().st_size
    main_before, render_before = _cpu(posthouse)
    due: dict[str, float] = {}
    start = time.time() + 0.2
    _submit(posthouse, [start + n * PER_BATCH / rate for n in range(count)], due)
    end = start + count * PER_BATCH / rate
    sink.wait_for(int(before) + count * PER_BATCH, 600)
    while posthouse.waiting():
        time.sleep(0.05)
    main_after, render_after = _cpu(posthouse)
    arrivals = _arrivals(journal, offset, due)
    waits = [arrivals[name] - at for name, at in due.items()]
    used = (main_after - main_before, render_after - render_before)
    return Ran(start, max(end, start), max(arrivals.values()), waits, sorted(arrivals.values()), *used)


def _submit(posthouse: Server, moments: Sequence[float], due: dict[str, float]) -> None:
    """Each batch at its moment. `due`: a message's number → the moment of its batch."""
    lock = threading.Lock()

    def one(number: int, at: float) -> None:
        answer = posthouse.call("POST", "/v1/messages/batch", batch(number * PER_BATCH, PER_BATCH))
        with lock:
            due.update((found["id"].removeprefix("msg_"), at) for found in answer["results"])

    with ThreadPoolExecutor(_SUBMITTERS) as pool:
        running = []
        for number, at in enumerate(moments):
            time.sleep(max(0.0, at - time.time()))
            running.append(pool.submit(one, number, at))
        for each in running:
            each.result()


def _arrivals(journal: Path, offset: int, due: dict[str, float]) -> dict[str, float]:
    """A message's number → when the sink answered.

    :raises TimeoutError: the journal lacks some."""
    found: dict[str, float] = {}
    for _ in range(100):
        with journal.open("rb") as file:
            file.seek(offset)
            for line in file:
                if line.endswith(b"}\n"):
                    entry = json.loads(line)
                    found[entry["message_id"].strip("<>").partition("@")[0]] = entry["at"]
        if due.keys() <= found.keys():
            return {name: found[name] for name in due}
        time.sleep(0.1)
    raise TimeoutError(f"the sink's journal has {len(found)} of {len(due)} messages")


def _cpu(posthouse: Server) -> tuple[float, float]:
    own, *renders = posthouse.pids()
    return material.cpu_seconds(own), sum(map(material.cpu_seconds, renders))


@dataclass(frozen=True)
class Calibration:
    """Messages a second that leave when nothing is submitted, and the part of it that each
    message a second that is submitted costs."""

    after: float
    lost: float

    def during(self, rate: float) -> float:
        return max(self.after - self.lost * rate, self.after / 20)


def calibrated(runs: Sequence[Ran], submitted: float) -> Calibration:
    """:param submitted: the rate of these runs."""
    after = sum(each.rate_after() for each in runs) / len(runs)
    during = sum(each.rate_during() for each in runs) / len(runs)
    return Calibration(after, max(0.0, after - during) / submitted)


def foretold(calibration: Calibration, rate: float, seconds: float) -> Drained:
    """The model's word for another burst."""
    return drained(Burst(rate, seconds), calibration.during(rate), calibration.after)


def run(times: float, seconds: float) -> dict[str, float]:
    """
    :param times: the burst's rate by the rate at which messages leave.
    """
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-", dir=material.DISK) as temporary:
        journal = Path(temporary) / "sink.jsonl"
        with material.sink("--log", str(journal)) as sink, server(sink.port, settings=UNLIMITED) as posthouse:
            warm(posthouse, sink)
            about = burst(posthouse, sink, journal, 3000, 1.0).rate_after()  # how fast is this machine?
            submitted, rate = round(1.5 * about), round(times * about)
            before = burst(posthouse, sink, journal, submitted, seconds * 0.6)
            database = posthouse.directory / "data" / "posthouse.db"
            size = database.stat().st_size
            measured = burst(posthouse, sink, journal, rate, seconds)
            grown = database.stat().st_size - size
            after = burst(posthouse, sink, journal, submitted, seconds * 0.6)
    calibration = calibrated((before, after), submitted)
    return {
        **_figures(foretold(calibration, rate, seconds), measured, grown),
        "burst_per_second": rate,
        "during_foretold_per_second": calibration.during(rate),
        "during_per_second": measured.rate_during(),
        "after_foretold_per_second": calibration.after,
        "after_per_second": measured.rate_after(),
    }


def _figures(told: Drained, measured: Ran, grown: int) -> dict[str, float]:
    count = len(measured.waits)
    p50, p99 = (percentile(measured.waits, part) for part in (0.5, 0.99))
    return {
        "drain_error": abs(told.seconds - measured.drain) / measured.drain,
        "p99_error": abs(told.p99 - p99) / p99,
        "drain_foretold_s": told.seconds,
        "drain_s": measured.drain,
        "p99_foretold_s": told.p99,
        "p99_s": p99,
        "p50_foretold_s": told.p50,
        "p50_s": p50,
        "messages": float(count),
        "main_cpu_us": measured.cpu_main / count * 1e6,
        "render_cpu_us": measured.cpu_render / count * 1e6,
        "ledger_octets": grown / count,
    }


def measure(arguments: argparse.Namespace) -> Report:
    """A burst foretold by the model of `posthouse plan`, and measured."""
    return Report("planned", run(arguments.times, arguments.seconds), _BARS)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=float, default=3.0, help="the burst's rate, by the rate of sending")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the burst lasts")


if __name__ == "__main__":
    main(measure, options)
