"""From figures to costs: the file that `posthouse plan --costs` reads."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from bench.report import Report
from posthouse.capacity.costs import Costs, priced


def costs(reports: Sequence[Report]) -> dict[str, float]:
    """Those that these figures tell; `Costs` says which figure tells which."""
    figures = {f"{report.name}.{name}": value for report in reports for name, value in report.figures.items()}
    found: dict[str, float] = {}
    for one in fields(Costs):
        inverse, slash, rest = str(one.metadata["source"]).partition("/")
        value = figures.get(rest if slash else inverse)
        if isinstance(value, int | float) and value > 0:
            found[one.name] = float(f"{(float(inverse) / value if slash else value):.4g}")
    return found


def write(reports: Sequence[Report], path: Path) -> None:
    """:raises ValueError: the figures tell no cost."""
    found = costs(reports)
    if not found:
        raise ValueError(
            "none of these benchmarks measures a cost of the plan: planned, submit, accept, deliver, search"
        )
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    text = json.dumps({"date": time.strftime("%Y-%m-%d"), "machine": machine, "measured": found}, indent=2) + "\n"
    priced(text)  # the plan will take it
    path.write_text(text)
