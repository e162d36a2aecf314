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
        table.add_row(name, shown(value), said(bar), verdict(met.get(name)))
    Console().print(table)


def shown(value: float | str) -> str:
    """A number as a reader wants it: three decimals when it is small."""
    if isinstance(value, str):
        return value
    if value == int(value) and abs(value) < 100:
        return str(int(value))
    return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"


def said(bar: tuple[str, float] | None) -> str:
    return f"{bar[0]} {bar[1]:,g}" if bar else ""


def verdict(met: bool | None) -> str:
    return "" if met is None else "met" if met else "NOT MET"


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
