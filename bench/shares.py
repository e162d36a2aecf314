"""Where a message's time goes: CPU by process and thread, and the interpreter's time in the
server's main process by stage, sampled by py-spy while the whole flow runs.

    python -m bench.shares [--py-spy PATH] [--write docs/performance.md]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench import material
from bench.send import PER_BATCH, warm
from bench.server import Server, batch, server

BEGIN, END = "<!-- shares: begin -->", "<!-- shares: end -->"
_STAGES = (
    ("posthouse/storage/queue/", "queue"),
    ("posthouse/storage/", "records: statements and their transport"),
    ("posthouse/outbound/submit.py", "submit"),
    ("posthouse/outbound/ledger.py", "records: statements and their transport"),
    ("posthouse/outbound/settle.py", "outcomes"),
    ("posthouse/outbound/verdict.py", "outcomes"),
    ("posthouse/outbound/send.py", "send"),
    ("posthouse/egress/", "send"),
    ("posthouse/smtp/", "SMTP"),
    ("posthouse/net/", "SMTP"),
    ("posthouse/outbound/prepare.py", "hand over to render and back"),
    ("posthouse/outbound/pool.py", "hand over to render and back"),
    ("posthouse/outbound/render", "hand over to render and back"),
    ("posthouse/rendering/", "hand over to render and back"),
    ("posthouse/suppression/", "suppression"),
    ("posthouse/worker.py", "queue"),
    ("posthouse/outbound/", "API"),
    ("posthouse/accounts/", "API"),
    ("posthouse/api/", "API"),
    ("uvicorn/", "API"),
)
"""Parts of a frame's path → stage; the deepest frame that has one decides."""
_REST = "event loop and the rest"


def run(count: int, sampler: str) -> tuple[dict[str, float], dict[str, float]]:
    """µs of CPU a message by process and thread; share of the interpreter by stage."""
    with tempfile.TemporaryDirectory() as temporary, material.sink() as sink, server(sink.port) as posthouse:
        warm(posthouse, sink)
        stacks = Path(temporary) / "stacks"
        before = _ticks(posthouse)
        with _sampling(sampler, posthouse.process.pid, stacks):
            for start in range(0, count, PER_BATCH):
                posthouse.call("POST", "/v1/messages/batch", batch(start, PER_BATCH))
            sink.wait_for(count, 300)
        after = _ticks(posthouse)
        tick = 1e6 / os.sysconf("SC_CLK_TCK") / count
        spent = {name: (ticks - before.get(name, 0)) * tick for name, ticks in after.items()}
        return spent, stages(stacks.read_text().splitlines())


@contextmanager
def _sampling(sampler: str, pid: int, stacks: Path) -> Generator[None, None, None]:
    command = [sampler, "record", "--pid", str(pid), "--rate", "400", "--gil", "--nonblocking"]
    process = subprocess.Popen(
        [*command, "--format", "raw", "--output", str(stacks)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(1)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def stages(stacks: Iterable[str]) -> dict[str, float]:
    """From lines `outermost;…;innermost COUNT` to shares, the largest first."""
    found: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        found[_stage(frames.split(";"))] += int(count)
    total = found.total()
    return {name: count / total for name, count in found.most_common()}


def _stage(frames: list[str]) -> str:
    for frame in reversed(frames):
        for path, stage in _STAGES:
            if path in frame:
                return stage
    return _REST


def _ticks(posthouse: Server) -> dict[str, int]:
    """Of the main process by thread (threads without a name of their own together), of the
    others by process."""
    found: Counter[str] = Counter()
    main, *others = posthouse.pids()
    for place in Path(f"/proc/{main}/task").iterdir():
        name = "main process, event loop" if place.name == str(main) else "main process, threads of storage"
        found[name] += _of(place / "stat")
    for pid in others:
        found["render processes"] += _of(Path(f"/proc/{pid}/stat"))
    return dict(found)


def _of(stat: Path) -> int:
    parts = stat.read_text().rpartition(")")[2].split()
    return int(parts[11]) + int(parts[12])


def table(spent: Mapping[str, float], shares: Mapping[str, float]) -> str:
    """Both as Markdown."""
    total = sum(spent.values())
    lines = ["| CPU of one message | µs | Share |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {us:.0f} | {us / total:.0%} |" for name, us in spent.items()]
    lines += [f"| together | {total:.0f} | |", ""]
    lines += ["| Interpreter of the main process | Share |", "| --- | ---: |"]
    lines += [f"| {name} | {share:.0%} |" for name, share in shares.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Where a message's time goes.")
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--py-spy", default=shutil.which("py-spy"), help="the program; it is found on PATH")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the file's two markers")
    arguments = parser.parse_args()
    if arguments.py_spy is None:
        sys.exit("py-spy is needed: pip install py-spy, or --py-spy PATH")
    text = table(*run(arguments.messages, arguments.py_spy))
    print(text)
    if arguments.write is not None:
        material.fill_in(arguments.write, BEGIN, END, text)


if __name__ == "__main__":
    main()
