"""The whole sending flow on PostgreSQL, Kafka, Redis and S3, with one and with two worker
processes held on a core each, against the floor arranged in the same way and against embedded
storage, in one run.

The API process, the engines, the sink and the client have the cores that no worker has. A
machine of two cores has none left beside two workers: all share both then, which `shared_cores`
says, and the rates of the floor (which has no engines) and of Posthouse are no longer of the
same cores. What is compared is CPU a message: of Posthouse's processes (`cpu_us`) and of each
engine.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import floor, material, send, sending
from bench.cluster import Engine
from bench.report import Report, main

_BARS = {"cpu_ratio": ("≤", 1.5)}


@dataclass(frozen=True)
class Cores:
    """Of the workers, one each, and of everything else."""

    workers: tuple[int, ...]
    rest: frozenset[int]

    @property
    def shared(self) -> int:
        return len(self.rest.intersection(self.workers))


def split(cores: set[int], workers: int) -> Cores:
    """What is left beside the workers is the rest's; with nothing left it has all."""
    ordered = sorted(cores)
    held = tuple(ordered[n % len(ordered)] for n in range(workers))
    return Cores(held, frozenset(cores.difference(held) or cores))


@contextmanager
def _held(cores: Cores, found: Mapping[str, Engine]) -> Generator[None, None, None]:
    """This process, with what it starts, and the engines, on the rest."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores.rest)
    for engine in found.values():
        sending.hold(engine.pids(), set(cores.rest))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run(directory: Path, found: Mapping[str, Engine], count: int, cores: Cores) -> dict[str, float]:
    """Messages a second from the first request to the last recorded outcome, and CPU a message."""
    pinned = {f"worker{n}": str(core) for n, core in enumerate(cores.workers, 1)}
    with (
        _held(cores, found),
        material.sink() as sink,
        sending.cluster(directory, found, sink, workers=len(pinned), cores=pinned) as made,
    ):
        sending.warm(made, sink)
        parts = {name: node.cpu for name, node in made.nodes.items()}
        parts |= {name: engine.cpu for name, engine in found.items()}
        before = {name: cpu() for name, cpu in parts.items()}
        start = time.time()
        sending.submit(made, count)
        accepted = time.time()
        sink.wait_for(count, 600)
        sending.wait_until_empty(made)
        end = time.time()
        used = {f"{name}_cpu_us": (cpu() - before[name]) / count * 1e6 for name, cpu in parts.items()}
    ours = sum(used[f"{name}_cpu_us"] for name in made.nodes)
    return {"per_second": count / (end - start), "accept_s": accepted - start, "cpu_us": ours, **used}


def figures(count: int) -> dict[str, float]:
    every = os.sched_getaffinity(0)
    result: dict[str, float] = {}
    embedded_rate, embedded_cpu, _ = send.run(count)
    with sending.running_engines() as (directory, found):
        for workers in (1, 2):
            cores = split(every, workers)
            with _held(cores, {}):
                floor_rate, floor_cpu = floor.run(count, workers, cores.workers)
            ran = run(directory, found, count, cores)
            result |= {f"{name}_{workers}": value for name, value in ran.items()}
            result[f"floor_per_second_{workers}"] = floor_rate
            result[f"floor_cpu_us_{workers}"] = floor_cpu
            result[f"ratio_{workers}"] = ran["per_second"] / floor_rate
            result[f"shared_cores_{workers}"] = float(cores.shared)
    costs = [result["cpu_us_1"], result["cpu_us_2"]]
    return {
        "cpu_ratio": max(costs) / embedded_cpu,
        "embedded_cpu_us": embedded_cpu,
        "embedded_per_second": embedded_rate,
        **result,
    }


def measure(arguments: argparse.Namespace) -> Report:
    """Messages a second, and CPU a message, on the engines with one and two workers."""
    return Report("scale", figures(arguments.messages), _BARS)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=30_000)


if __name__ == "__main__":
    main(measure, options)
