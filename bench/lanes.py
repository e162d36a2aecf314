"""How long a critical message takes from its 202 to the receiver's 250 while 100,000 bulk
messages are queued and being sent over the same route: what lanes are for.

The sink's journal says when it answered each message, to the microsecond; both processes
read the same clock.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import material
from bench.client import Answer, Single, percentile, singles
from bench.report import Report, main
from bench.server import UNLIMITED, Server, batch, server

PER_BATCH = 1000
EVERY = 0.05


def run(bulk: int, seconds: float) -> dict[str, float]:
    """Criticals for `seconds`, or as long as bulk is left."""
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-", dir=material.DISK) as temporary:
        journal = Path(temporary) / "sink.jsonl"
        with (
            material.sink("--log", str(journal)) as sink,
            server(sink.port, settings=UNLIMITED) as posthouse,
        ):
            for start in range(0, bulk, PER_BATCH):
                posthouse.call("POST", "/v1/messages/batch", batch(start, PER_BATCH))
            began, sent_before = time.time(), sink.counts()["accepted"]
            count = int(seconds / EVERY)
            single = Single(posthouse.port, posthouse.key, "critical")
            with singles(single, range(count), per_second=1 / EVERY, connections=4) as answers:
                found = answers()
            left = posthouse.waiting()
            if not left:
                raise RuntimeError("the bulk was all sent before the critical messages were: queue more")
            rate = (sink.counts()["accepted"] - sent_before) / (time.time() - began)
            times = _times(found, _arrivals(journal, count, posthouse))
        return {
            "critical_p50_s": percentile(times, 0.5),
            "critical_p99_s": percentile(times, 0.99),
            "critical_max_s": max(times),
            "criticals": float(len(times)),
            "bulk_left": float(left),
            "bulk_per_second": rate,
            "accept_p99_s": percentile([answer.seconds for answer in found], 0.99),
        }


def _arrivals(journal: Path, count: int, posthouse: Server) -> dict[str, float]:
    """A message's number (the id without `msg_`, the Message-ID's left part) → when the sink
    answered. Waits for the last ones.

    :raises TimeoutError: a critical message did not arrive."""
    found: dict[str, float] = {}
    for _ in range(600):
        for line in journal.read_bytes().splitlines():
            if b"single" in line and line.endswith(b"}"):
                entry = json.loads(line)
                found[entry["message_id"].strip("<>").partition("@")[0]] = entry["at"]
        if len(found) >= count:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{len(found)} of {count} critical messages arrived; {posthouse.waiting()} jobs wait")


def _times(answers: Sequence[Answer], arrivals: dict[str, float]) -> list[float]:
    """Seconds from each 202 to its 250; 0 when the 250 was faster."""
    assert all(answer.status == 202 for answer in answers), answers[0]
    numbers = [json.loads(answer.body)["id"].removeprefix("msg_") for answer in answers]
    return [max(0.0, arrivals[number] - answer.at) for number, answer in zip(numbers, answers, strict=True)]


def measure(arguments: argparse.Namespace) -> Report:
    """Seconds from the 202 to the 250 of critical messages under a load of bulk."""
    return Report("lanes", run(arguments.bulk, arguments.seconds), {"critical_p99_s": ("<", 1.0)})


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bulk", type=int, default=100_000, help="bulk messages queued before")
    parser.add_argument("--seconds", type=float, default=15.0, help="of critical messages, one every 50 ms")


if __name__ == "__main__":
    main(measure, options)
