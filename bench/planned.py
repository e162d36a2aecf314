"""Whether the plan's model foretells a real run: a burst into `posthouse serve`, its drain time
and how long its messages take from the request to the sink's 250.

As in a plan, what the model is given are costs, cores and the burst. The costs (CPU of a message
that is sent, with the sink's; of one that is submitted, with the client's; the part of the cores
that all this can use) come from two smaller bursts at another rate, one before and one after. The
cores are what neighbours left of this machine, by /proc/stat: on a quiet one, all. The rest is
`posthouse.capacity.queueing`. A burst is submitted by a schedule, in batches of 100.

`main_cpu_us`, `render_cpu_us` and `ledger_octets` are costs for `posthouse plan`.
"""

from __future__ import annotations

import argparse
import json
import os
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
from posthouse.capacity.queueing import Burst, drained

PER_BATCH = 100
_BARS = {"drain_error": ("≤", 0.25), "p99_error": ("≤", 0.25)}
_SUBMITTERS = 8


@dataclass(frozen=True)
class Spent:
    """CPU seconds up to a moment: of the server, its render processes, the sink and the client
    together, and of everybody else on this machine."""

    at: float
    ours: float
    others: float


@dataclass(frozen=True)
class Phase:
    """A part of a run: `cores` are those that others left."""

    seconds: float
    sent: int
    submitted: float
    ours: float
    cores: float


class _Sampler(threading.Thread):
    """Notes what was spent, ten times a second."""

    def __init__(self, posthouse: Server, sink: material.SinkProcess) -> None:
        super().__init__(daemon=True)
        self._pids = [*posthouse.pids(), sink.process.pid, os.getpid()]
        self._ended = threading.Event()
        self.found: list[Spent] = []

    def run(self) -> None:
        while not self._ended.wait(0.1):
            ours = sum(map(material.cpu_seconds, self._pids))
            self.found.append(Spent(time.time(), ours, _busy() - ours))

    def stop(self) -> list[Spent]:
        self._ended.set()
        self.join()
        return self.found


def _busy() -> float:
    """CPU seconds of all cores that were not idle, with what a hypervisor took."""
    user, nice, system, _, _, irq, soft, steal, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ran:
    """A burst that is over. Times are seconds since 1970; `waits` are from when a message's batch
    was due to be submitted until the sink had answered."""

    start: float
    end: float
    last: float
    waits: Sequence[float]
    arrivals: Sequence[float]
    spent: Sequence[Spent]
    cpu_main: float
    cpu_render: float

    @property
    def drain(self) -> float:
        return self.last - self.end

    def during(self) -> Phase:
        """The burst, without its first tenth."""
        return self._phase(self.start + (self.end - self.start) / 10, self.end)

    def after(self) -> Phase:
        """From its end on, without the last tenth, in which connections run dry."""
        return self._phase(self.end, self.end + (self.last - self.end) * 0.9)

    def _phase(self, begin: float, end: float) -> Phase:
        within = [one for one in self.spent if begin <= one.at <= end]
        first, last = within[0], within[-1]
        seconds = last.at - first.at
        submitted = len(self.waits) / (self.end - self.start) if end <= self.end else 0.0
        return Phase(
            seconds,
            sum(first.at <= at < last.at for at in self.arrivals),
            submitted * seconds,
            last.ours - first.ours,
            (os.cpu_count() or 1) - (last.others - first.others) / seconds,
        )


def burst(posthouse: Server, sink: material.SinkProcess, journal: Path, rate: float, seconds: float) -> Ran:
    """`rate` messages a second for `seconds`, to the last 250."""
    count = int(rate * seconds / PER_BATCH)
    before = sink.counts()["accepted"]
    offset = journal.stat().st_size
    main_before, render_before = _cpu(posthouse)
    due: dict[str, float] = {}
    sampler = _Sampler(posthouse, sink)
    sampler.start()
    start = time.time() + 0.2
    _submit(posthouse, [start + n * PER_BATCH / rate for n in range(count)], due)
    end = start + count * PER_BATCH / rate
    sink.wait_for(int(before) + count * PER_BATCH, 600)
    while posthouse.waiting():
        time.sleep(0.05)
    spent = sampler.stop()
    main_after, render_after = _cpu(posthouse)
    arrivals = _arrivals(journal, offset, due)
    waits = [arrivals[name] - at for name, at in due.items()]
    used = (main_after - main_before, render_after - render_before)
    return Ran(start, end, max(arrivals.values()), waits, sorted(arrivals.values()), spent, *used)


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
class Costs:
    """CPU seconds of a message that is sent, and of one that is submitted; the parts of the cores
    at hand that are used while a burst lasts and after it (a lock or a wait leaves some idle)."""

    send: float
    submit: float
    used_during: float
    used_after: float

    def during(self, cores: float, rate: float) -> float:
        """Messages a second that leave while `rate` are submitted."""
        left = self.used_during * cores - rate * self.submit
        return max(left, self.used_during * cores / 20) / self.send

    def after(self, cores: float) -> float:
        return self.used_after * cores / self.send


def calibrated(runs: Sequence[Ran]) -> Costs:
    during, after = [run.during() for run in runs], [run.after() for run in runs]
    send = sum(each.ours for each in after) / sum(each.sent for each in after)
    submit = sum(each.ours - each.sent * send for each in during) / sum(each.submitted for each in during)
    used_during, used_after = (
        sum(each.ours for each in phases) / sum(each.cores * each.seconds for each in phases)
        for phases in (during, after)
    )
    return Costs(send, max(0.0, submit), used_during, used_after)


def run(times: float, seconds: float) -> dict[str, float]:
    """
    :param times: the burst's rate by the rate at which messages leave.
    """
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-", dir=material.DISK) as temporary:
        journal = Path(temporary) / "sink.jsonl"
        with material.sink("--log", str(journal)) as sink, server(sink.port, settings=UNLIMITED) as posthouse:
            warm(posthouse, sink)
            first = burst(posthouse, sink, journal, 6000, 1.0).after()  # how fast is this machine?
            about = first.sent / first.seconds
            before = burst(posthouse, sink, journal, round(2 * about), seconds * 0.5)
            database = posthouse.directory / "data" / "posthouse.db"
            size = database.stat().st_size
            measured = burst(posthouse, sink, journal, round(times * about), seconds)
            grown = database.stat().st_size - size
            after = burst(posthouse, sink, journal, round(2 * about), seconds * 0.5)
    return _figures(calibrated((before, after)), measured, round(times * about), seconds, grown)


def _figures(costs: Costs, measured: Ran, rate: float, seconds: float, grown: int) -> dict[str, float]:
    during, after = measured.during(), measured.after()
    told = drained(Burst(rate, seconds), costs.during(during.cores, rate), costs.after(after.cores))
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
        "during_foretold_per_second": costs.during(during.cores, rate),
        "during_per_second": during.sent / during.seconds,
        "after_foretold_per_second": costs.after(after.cores),
        "after_per_second": after.sent / after.seconds,
        "messages": float(count),
        "burst_per_second": rate,
        "cores_during": during.cores,
        "cores_after": after.cores,
        "send_cpu_us": costs.send * 1e6,
        "submit_cpu_us": costs.submit * 1e6,
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
