"""The demo's figures, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from posthouse.cli.demo.check import Latency, Tally
from posthouse.cli.demo.processes import CONNECTIONS
from posthouse.cli.output import Output, clean
from posthouse.smtpd.sink.journal import Entry


@dataclass(slots=True)
class Run:
    """What the run has seen, from outside. Seconds."""

    orders: int
    urgent: int
    ids: list[str] = field(default_factory=list[str])
    """Of every message that a 202 named."""
    submitted: bool = False
    submit_seconds: float = 0.0
    down_seconds: float = 0.0
    killed_after: int | None = None
    """Messages that the sink had when the server was killed."""
    failure: Exception | None = None

    @property
    def wanted(self) -> int:
        return self.orders + self.urgent


@dataclass(frozen=True, slots=True)
class Figures:
    """`agrees`: nothing lost, nothing twice beyond what was in flight, every signature good,
    and as many delivered in the ledger as the sink has."""

    accepted: int
    delivered: int
    bounced: int
    other: dict[str, int]
    deferred_on_the_way: int
    lost: int
    duplicates: int
    duplicates_at_most: int
    unexplained_at_sink: int
    killed_after: int | None
    down_s: float
    accepted_per_second: int
    delivered_per_second: int
    latency_s: dict[str, Latency]
    signatures_verified: int
    signatures_sampled: int
    seconds: float
    agrees: bool


def figures(run: Run, found: Tally, log: Sequence[Entry], verified: tuple[int, int], seconds: float) -> Figures:
    in_flight = CONNECTIONS if run.killed_after is not None else 0
    expected = ("delivered", "bounced")
    return Figures(
        accepted=len(run.ids),
        delivered=found.states["delivered"],
        bounced=found.states["bounced"],
        other={state: count for state, count in found.states.items() if state not in expected},
        deferred_on_the_way=found.deferred,
        lost=len(found.lost),
        duplicates=found.duplicates,
        duplicates_at_most=in_flight,
        unexplained_at_sink=len(found.unexplained),
        killed_after=run.killed_after,
        down_s=round(run.down_seconds, 2),
        accepted_per_second=round(run.orders / max(run.submit_seconds, 1e-9)),
        delivered_per_second=round(_rate([e.at for e in log if e.outcome.startswith("250")], run.down_seconds)),
        latency_s=found.latency,
        signatures_verified=verified[0],
        signatures_sampled=verified[1],
        seconds=round(seconds, 1),
        agrees=(
            not found.lost
            and not found.unexplained
            and len(set(run.ids)) == run.wanted
            and found.duplicates <= in_flight
            and found.at_sink - found.duplicates == found.states["delivered"]
            and verified[0] == verified[1] > 0
        ),
    )


def _rate(times: Sequence[float], down: float) -> float:
    """Messages a second up to the 90th percentile, without the time that the server was down;
    the rest are retries, which wait on purpose."""
    ordered = sorted(times)[: max(2, len(times) * 9 // 10)]
    seconds = ordered[-1] - ordered[0] - down if len(ordered) > 1 else 0.0
    return len(ordered) / seconds if seconds > 0 else 0.0


def show(out: Output, found: Figures, story: Mapping[str, Any] | None) -> None:
    """
    :param story: one message, as `GET /v1/messages/{id}/explain` tells it.
    """
    if out.as_json:
        out.data({**asdict(found), "story": story})
        return
    out.console.print(_table(found))
    if story is not None:
        out.console.print(Text(f"One of them, explained ({story['id']}):", style="bold"))
        for sentence in story["story"]:
            time = sentence["at"].partition("T")[2][:12]
            out.console.print(Text.assemble((f"  {time}  ", "dim"), clean(sentence["text"])), soft_wrap=True)
    verdict = (
        ("Every mail that was accepted is accounted for.", "bold green")
        if found.agrees
        else ("The totals do not agree: this is a bug in Posthouse.", "bold red")
    )
    out.console.print(Text.assemble(verdict, (f"  {found.seconds:.0f} s in all", "dim")))


def _table(found: Figures) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, value, note in _rows(found):
        table.add_row(name, value, note)
    return table


def _rows(found: Figures) -> list[tuple[str, str, str]]:
    killed = found.killed_after is not None
    at_most = f"at most {found.duplicates_at_most}: one for each connection at the kill" if killed else "none may be"
    rows = [
        ("accepted", f"{found.accepted:,}", f"answered 202, on disk; {found.accepted_per_second:,}/s"),
        ("delivered", f"{found.delivered:,}", f"the sink said 250; {found.delivered_per_second:,}/s"),
        ("bounced", f"{found.bounced:,}", "refused for good, as the sink was told to; now suppressed"),
        *((state, f"{count:,}", "") for state, count in found.other.items()),
        ("deferred", f"{found.deferred_on_the_way:,}", "refused for now on the way, then tried again"),
        ("lost", f"{found.lost:,}", f"killed with SIGKILL, back after {found.down_s:.1f} s" if killed else ""),
        ("twice", f"{found.duplicates:,}", at_most),
        ("signatures", f"{found.signatures_verified} of {found.signatures_sampled}", "good, a sample from the sink"),
    ]
    names = {"broadcast": "orders", "critical": "sign-in codes"}
    for stream, latency in sorted(found.latency_s.items()):
        note = f"95 % {_seconds(latency.p95)}, 99 % {_seconds(latency.p99)}, longest {_seconds(latency.longest)}"
        rows.append((names.get(stream, stream), _seconds(latency.p50), f"median from 202 to 250; {note}"))
    return rows


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
