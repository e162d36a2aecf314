"""All benchmarks one after the other, with a PostgreSQL of their own that syncs.

    python -m bench.all [--quick] [--json] [--only NAME …] [--write docs/performance.md]
                        [--costs FILE]

Ends with 1 when a figure with a bar does not meet it, or a benchmark failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

from bench import (
    accept,
    burst,
    costs,
    deliver,
    failover,
    inbox,
    lanes,
    material,
    memory,
    parse,
    planned,
    postfix,
    queues,
    scale,
    search,
    send,
    submit,
    threads,
)
from bench.postgres import cluster
from bench.report import Report, said, show, shown, verdict

BENCHMARKS: dict[str, ModuleType] = {
    "send": send,  # the floor is part of it
    "submit": submit,
    "lanes": lanes,
    "memory": memory,
    "postfix": postfix,
    "search": search,
    "parse": parse,
    "threads": threads,
    "accept": accept,
    "deliver": deliver,
    "inbox": inbox,
    "queues": queues,
    "planned": planned,
    "failover": failover,
    "scale": scale,
    "burst": burst,
}
_QUICK: dict[str, list[str]] = {
    "send": ["--messages", "10000"],
    "submit": ["--batches", "10", "--singles", "8000", "--seconds", "2"],
    "lanes": ["--bulk", "30000", "--seconds", "5"],
    "memory": ["--queued", "100000", "--few", "10000", "--sent", "10000"],
    "postfix": ["--messages", "2000"],
    "search": ["--messages", "30000"],
    "parse": ["--rounds", "3"],
    "threads": ["--accounts", "4"],
    "accept": ["--messages", "3000"],
    "deliver": ["--messages", "5000"],
    "inbox": ["--largest", "100000", "--rounds", "200"],
    "queues": ["--jobs", "10000"],
    "planned": ["--seconds", "4"],
    "failover": ["--rate", "50"],
    "scale": ["--messages", "5000"],
    "burst": ["--seconds", "10"],
}
_WITH_POSTGRESQL = ("send", "submit", "search", "deliver", "inbox", "queues")
_FIRST = ("ratio", "times_faster")
"""Parts of the names of ratios: they say the same on every machine, so they come first."""
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def run(
    names: Sequence[str], *, quick: bool, postgresql: str | None
) -> Generator[Report | tuple[str, str], None, None]:
    """A report each, or the name with what went wrong; one failure does not end the rest."""
    for name in names:
        module = BENCHMARKS[name]
        words = list(_QUICK[name]) if quick else []
        if postgresql is not None and name in _WITH_POSTGRESQL:
            words += ["--postgresql", postgresql]
        parser = argparse.ArgumentParser()
        module.options(parser)
        try:
            yield module.measure(parser.parse_args(words))
        except Exception as error:
            yield name, f"{type(error).__name__}: {error}"


@contextmanager
def _postgresql(names: Sequence[str], wanted: bool) -> Generator[str | None, None, None]:
    if not wanted or not set(names) & set(_WITH_POSTGRESQL):
        yield None
        return
    with cluster() as address:
        yield address


def command() -> None:
    """The command line."""
    arguments = _parser().parse_args()
    reports: list[Report] = []
    failed: dict[str, str] = {}
    with _postgresql(arguments.only, arguments.postgresql) as address:
        for result in run(arguments.only, quick=arguments.quick, postgresql=address):
            if isinstance(result, Report):
                reports.append(result)
                print(f"{result.name}: done", file=sys.stderr)
            else:
                failed[result[0]] = result[1]
                print(f"{result[0]}: {result[1]}", file=sys.stderr)
            if arguments.json:
                _show_json(result)
    if not arguments.json:
        Console().print(_table(reports, failed))
    if arguments.write is not None:
        material.fill_in(arguments.write, BEGIN, END, markdown(reports, quick=arguments.quick))
    if arguments.costs is not None:
        costs.write(reports, arguments.costs)
    sys.exit(bool(failed) or not all(all(report.met().values()) for report in reports))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=f"Benchmarks: {', '.join(BENCHMARKS)}.")
    parser.add_argument("--json", action="store_true", help="one JSON object on a line for each")
    parser.add_argument("--quick", action="store_true", help="smaller runs: whether it works, not how well")
    parser.add_argument("--no-postgresql", dest="postgresql", action="store_false", help="SQLite only")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="write what `posthouse plan --costs` reads")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the figures between the file's two markers")
    return parser


def _show_json(result: Report | tuple[str, str]) -> None:
    if isinstance(result, Report):
        show(result, as_json=True)
    else:
        print(json.dumps({"name": result[0], "error": result[1], "figures": {}, "bars": {}, "met": {}}))
    sys.stdout.flush()


def _rows(reports: Sequence[Report]) -> list[tuple[str, str, str, str]]:
    """Name, value, bar and verdict; ratios first, then what has a bar, then the rest."""
    rows = [
        (_rank(report, name), (f"{report.name}.{name}", shown(value), said(report.bars.get(name)), _met(report, name)))
        for report in reports
        for name, value in report.figures.items()
    ]
    return [row for _, row in sorted(rows, key=lambda each: each[0])]


def _rank(report: Report, name: str) -> int:
    if any(word in name for word in _FIRST):
        return 0
    return 1 if name in report.bars else 2


def _met(report: Report, name: str) -> str:
    return verdict(report.met().get(name))


def _table(reports: Sequence[Report], failed: dict[str, str]) -> Table:
    table = Table("figure", "measured", "bar", "")
    for row in _rows(reports):
        table.add_row(*row)
    for name, error in failed.items():
        table.add_row(name, error[:200], "", "NOT MET")
    return table


def markdown(reports: Sequence[Report], *, quick: bool) -> str:
    """The table of docs/performance.md."""
    lines = [_machine(quick), "", "| Figure | Measured | Bar | |", "| --- | ---: | ---: | --- |"]
    lines += [f"| `{name}` | {value} | {bar} | {met} |" for name, value, bar, met in _rows(reports)]
    return "\n".join(lines)


def _machine(quick: bool) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    runs = " Small runs (`--quick`)." if quick else ""
    return (
        f"Measured {time.strftime('%Y-%m-%d')} at commit {commit.stdout.strip() or 'unknown'}: {os.cpu_count()} cores"
        f" ({platform.machine()}), Python {platform.python_version()}.{runs}"
    )


if __name__ == "__main__":
    command()
