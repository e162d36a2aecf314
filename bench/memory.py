"""What a million queued messages cost: resident memory while they are queued and while part
of them is sent, and the rate of sending beside that with ten thousand queued.

The messages are accepted by a process with the role `api` alone; then one with all roles
sends on the same data. The rates are taken over the same number of messages after the same
start, and the run with ten thousand is repeated before and after.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from bench import material
from bench.report import Report, main
from bench.server import UNLIMITED, Home, Server, batch, home, serving, set_up

PER_BATCH = 5000
LONGEST = 90.0  # seconds that one measured part may take
START = 2000  # messages that warm the caches and are not measured
_BARS = {"resident_mb": ("<", 400.0), "growth_mb": ("<", 20.0), "rate_ratio": ("≥", 0.9)}
_MB = 1024 * 1024


def run(queued: int, few: int, sent: int) -> dict[str, float]:
    with material.sink() as sink:
        before = _few(sink, few)
        with home(sink.port, settings=UNLIMITED) as place:
            accepting, rate = _queue(place, queued)
            memory: list[float] = []
            with serving(place) as posthouse:
                many = _rate(sink, START, few)
                _rate(sink, few, few + sent, lambda: memory.append(posthouse.resident() / _MB))
            sink.reset()
        after = _few(sink, few)
    third = max(1, len(memory) // 3)
    return {
        "queued": float(queued),
        "queued_per_second": rate,
        "resident_mb": max(*memory, accepting),
        "growth_mb": sum(memory[-third:]) / third - sum(memory[:third]) / third,
        "accepting_mb": accepting,
        "per_second_few": (before + after) / 2,
        "per_second_many": many,
        "rate_ratio": many / ((before + after) / 2),
    }


def _few(sink: material.SinkProcess, count: int) -> float:
    with home(sink.port, settings=UNLIMITED) as place:
        _queue(place, count)
        with serving(place):
            rate = _rate(sink, START, count)
        sink.reset()
    return rate


def _queue(place: Home, count: int) -> tuple[float, float]:
    """MB at the end, and messages accepted a second."""
    with serving(place, {"POSTHOUSE_ROLES": "api"}) as posthouse:
        set_up(posthouse)
        started = time.perf_counter()
        for start in range(0, count, PER_BATCH):
            _accept(posthouse, start, min(PER_BATCH, count - start))
        return posthouse.resident() / _MB, count / (time.perf_counter() - started)


def _accept(posthouse: Server, start: int, count: int) -> None:
    answer = posthouse.call("POST", "/v1/messages/batch", batch(start, count))
    assert answer["accepted"] == count


def _rate(sink: material.SinkProcess, first: int, last: int, look: Callable[[], object] | None = None) -> float:
    """Messages a second between the sink's `first` and its `last`; `look` every half second.

    :raises TimeoutError: they do not come."""
    marks: dict[int, float] = {}
    old = (time.time(), sink.counts()["accepted"])
    end, next_look = time.time() + LONGEST, 0.0
    while last not in marks:
        if time.time() > end:
            raise TimeoutError(f"the sink has {old[1]} messages, not {last}")
        time.sleep(0.02)
        new = (time.time(), sink.counts()["accepted"])
        for mark in (first, last):
            if mark not in marks and new[1] >= mark:
                marks[mark] = between(old, new, mark)
        if look is not None and new[0] >= next_look and new[1] >= first:
            look()
            next_look = new[0] + 0.5
        old = new
    return (last - first) / (marks[last] - marks[first])


def between(old: tuple[float, float], new: tuple[float, float], mark: float) -> float:
    """When the count passed the mark, on the line from one look to the next."""
    if new[1] <= old[1] or old[1] >= mark:
        return old[0]
    return old[0] + (new[0] - old[0]) * (mark - old[1]) / (new[1] - old[1])


def measure(arguments: argparse.Namespace) -> Report:
    """Memory and rate with very many queued messages."""
    return Report("memory", run(arguments.queued, arguments.few, arguments.sent), _BARS)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--sent", type=int, default=30_000, help="messages sent while memory is watched")


if __name__ == "__main__":
    main(measure, options)
