"""The whole sending flow: API batch → durable → render → sign → SMTP 250 → event recorded,
against the floor in the same run, on SQLite and on PostgreSQL."""

from __future__ import annotations

import argparse
import time

from bench import floor, material
from bench.report import Report, main
from bench.server import Server, batch, server

PER_BATCH = 1000


def run(count: int, records: str | None = None) -> tuple[float, float, dict[str, float]]:
    """Messages a second from the first request to the last recorded outcome; µs of CPU a
    message without the sink's; seconds of the phases."""
    with material.sink() as sink, server(sink.port, records=records) as posthouse:
        warm(posthouse, sink)
        bodies = [batch(n, PER_BATCH) for n in range(0, count, PER_BATCH)]
        cpu = posthouse.cpu()
        start = time.time()
        for body in bodies:
            answer = posthouse.call("POST", "/v1/messages/batch", body)
            assert answer["accepted"] == PER_BATCH
        accepted = time.time()
        last = sink.wait_for(count, 300)
        while posthouse.waiting():
            time.sleep(0.02)
        end = time.time()
        used = posthouse.cpu() - cpu
        return count / (end - start), used / count * 1e6, {"accept_s": accepted - start, "sent_s": last - start}


def warm(posthouse: Server, sink: material.SinkProcess) -> None:
    """A first thousand, which no figure counts."""
    posthouse.call("POST", "/v1/messages/batch", batch(0, 1000))
    sink.wait_for(1000, 60)
    while posthouse.waiting():
        time.sleep(0.05)
    sink.reset()


def measure(arguments: argparse.Namespace) -> Report:
    """Messages a second through all of Posthouse, as a part of the floor."""
    floors = {n: floor.run(arguments.messages, n) for n in (2, 3)}
    floor_rate, floor_cpu = max(floors.values())
    rate, cpu, phases = run(arguments.messages)
    figures: dict[str, float | str] = {
        "floor_per_second": floor_rate,
        "floor_cpu_us": floor_cpu,
        "per_second": rate,
        "cpu_us": cpu,
        **phases,
        "ratio": rate / floor_rate,
        "cpu_ratio": floor_cpu / cpu,
    }
    bars = {"ratio": ("≥", 0.7)}
    if arguments.postgresql:
        rate, cpu, _ = run(arguments.messages, arguments.postgresql)
        figures |= {"per_second_postgresql": rate, "cpu_us_postgresql": cpu, "ratio_postgresql": rate / floor_rate}
        bars["ratio_postgresql"] = ("≥", 0.5)
    return Report("send", figures, bars)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=30000)
    parser.add_argument("--postgresql", help="postgresql://… of a server for the second run (fsync on)")


if __name__ == "__main__":
    main(measure, options)
