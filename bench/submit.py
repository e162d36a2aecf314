"""What it takes to accept messages durably, with nothing being sent (`roles = ["api"]`):
batches of 1,000 recipients of a template, and single messages of 2 KB over keep-alive
connections, on SQLite and on PostgreSQL.

The client is a process of its own and shares the machine's cores with the server.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request

from bench.client import Single, percentile, run_singles
from bench.report import Report, main
from bench.server import Server, batch, server

PER_BATCH = 1000
CONNECTIONS = 128
API_ONLY = {"POSTHOUSE_ROLES": "api"}
_BARS = {"batch_per_second": ("≥", 10_000.0), "single_per_second": ("≥", 5_000.0), "p99_ms": ("<", 50.0)}


def run(batches: int, singles: int, seconds: float, records: str | None = None) -> dict[str, float]:
    """The three figures; `seconds` of load for the latencies."""
    with server(9, records=records, settings=API_ONLY) as posthouse:
        batch_rate = _batches(posthouse, batches)
        single = Single(posthouse.port, posthouse.key)
        run_singles(single, range(500), connections=CONNECTIONS)
        cpu = posthouse.cpu()
        answers = run_singles(single, range(singles), connections=CONNECTIONS)
        cpu = posthouse.cpu() - cpu
        rate = singles / (max(a.at for a in answers) - min(a.due for a in answers))
        load = 0.8 * rate
        timed = run_singles(single, range(int(load * seconds)), per_second=load, connections=CONNECTIONS)
        times = [answer.seconds * 1000 for answer in timed]
        return {
            "batch_per_second": batch_rate,
            "single_per_second": rate,
            "single_cpu_us": cpu / singles * 1e6,
            "p50_ms": percentile(times, 0.5),
            "p99_ms": percentile(times, 0.99),
        }


def _batches(posthouse: Server, count: int) -> float:
    """Messages a second, one batch after the other; the bodies are made before the clock runs."""
    bodies = [json.dumps(batch(n * PER_BATCH, PER_BATCH)).encode() for n in range(count + 2)]
    for body in bodies[:2]:
        _post(posthouse, body)
    start = time.perf_counter()
    for body in bodies[2:]:
        _post(posthouse, body)
    return count * PER_BATCH / (time.perf_counter() - start)


def _post(posthouse: Server, body: bytes) -> None:
    request = urllib.request.Request(f"{posthouse.url}/v1/messages/batch", body, method="POST")
    request.add_header("Authorization", f"Bearer {posthouse.key}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.loads(answer.read())["accepted"] == PER_BATCH


def measure(arguments: argparse.Namespace) -> Report:
    """Messages and requests a second accepted durably, and how long an accepted request takes."""
    figures = run(arguments.batches, arguments.singles, arguments.seconds)
    if arguments.postgresql:
        found = run(arguments.batches, arguments.singles, arguments.seconds, arguments.postgresql)
        figures |= {f"{name}_postgresql": value for name, value in found.items()}
    return Report("submit", figures, _BARS)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batches", type=int, default=30, help="of 1,000 messages")
    parser.add_argument("--singles", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load at 80 %% of the rate, for the latencies")
    parser.add_argument("--postgresql", help="postgresql://… of a server for the second run (fsync on)")


if __name__ == "__main__":
    main(measure, options)
