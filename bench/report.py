"""How a benchmark says what it measured."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Report:
    """`bars`: figure → ("≥" or "<" or "≤", bound). A figure without a bar is for reading."""

    name: str
    figures: Mapping[str, float | str]
    bars: Mapping[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])

    def met(self) -> dict[str, bool]:
        return {name: _holds(self.figures.get(name), *bar) for name, bar in self.bars.items()}


def _holds(value: float | str | None, sign: str, bound: float) -> bool:
    if not isinstance(value, int | float):
        return False
    return {"≥": value >= bound, "≤": value <= bound, "<": value < bound}[sign]


def show(report: Report, as_json: bool) -> None:
    met = report.met()
    if as_json:
        bars = {name: f"{sign} {bound:g}" for name, (sign, bound) in report.bars.items()}
        print(json.dumps({"name": report.name, "figures": dict(report.figures), "bars": bars, "met": met}))
        return
    table = Table("figure", "measured", "bar", "", title=report.name)
    for name, value in report.figures.items():
        bar = report.bars.get(name)
        shown = (
            f"{value:,.3f}"
            if isinstance(value, float) and abs(value) < 100
            else f"{value:,.0f}"
            if isinstance(value, int | float)
            else value
        )
        table.add_row(
            name, shown, f"{bar[0]} {bar[1]:g}" if bar else "", ("met" if met[name] else "NOT MET") if bar else ""
        )
    Console().print(table)


def main(
    measure: Callable[[argparse.Namespace], Report], options: Callable[[argparse.ArgumentParser], None] | None = None
) -> None:
    """The command line of a benchmark."""
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    if options is not None:
        options(parser)
    arguments = parser.parse_args()
    show(measure(arguments), arguments.json)
