"""The demo's figures, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from posthouse.cli.demo.check import Latency, Tally
from posthouse.cli.demo.mails import FORWARDS, INVOICE
from posthouse.cli.demo.post import Run
from posthouse.cli.demo.rooms import SEARCHED, Rooms
from posthouse.cli.output import Output, clean

_STREAMS = {"broadcast": "orders", "critical": "sign-in codes", "transactional": "letters"}
_PREVIEW = 60


@dataclass(frozen=True, slots=True)
class Figures:
    """`agrees`: what the ledger calls delivered is what the mailboxes hold, each once and
    authenticated, what is nobody's bounced, and no invariant of the store is hurt."""

    accepted: int
    delivered: int
    stored: int
    forwarded: int
    bounced: int
    bounces_expected: int
    other: dict[str, int]
    deferred_on_the_way: int
    lost: int
    duplicates: int
    unexplained: int
    authenticated: int
    junk: int
    people: int
    findings: list[str]
    killed: list[str]
    down_s: float
    accepted_per_second: int
    stored_per_second: int
    latency_s: dict[str, Latency]
    signatures_verified: int
    signatures_sampled: int
    mail_seconds: float
    seconds: float
    agrees: bool


def figures(run: Run, found: Tally, verified: tuple[int, int], findings: Sequence[str], seconds: float) -> Figures:
    """:param verified: messages of a sample whose signatures are good, and in all."""
    mail_seconds = run.ended - run.began
    expected = ("delivered", "bounced")
    return Figures(
        accepted=len(run.ids),
        delivered=found.states["delivered"],
        stored=found.stored,
        forwarded=found.forwarded,
        bounced=found.states["bounced"],
        bounces_expected=run.nobodys,
        other={state: count for state, count in found.states.items() if state not in expected},
        deferred_on_the_way=found.deferred,
        lost=len(found.lost),
        duplicates=found.duplicates,
        unexplained=len(found.unexplained),
        authenticated=found.authenticated,
        junk=found.junk,
        people=len(run.people),
        findings=list(findings),
        killed=list(run.killed),
        down_s=round(run.down_seconds, 2),
        accepted_per_second=round(run.orders / max(run.submit_seconds, 1e-9)),
        stored_per_second=round(found.stored / max(mail_seconds - run.down_seconds, 1e-9)),
        latency_s=found.latency,
        signatures_verified=verified[0],
        signatures_sampled=verified[1],
        mail_seconds=round(mail_seconds, 1),
        seconds=round(seconds, 1),
        agrees=_agrees(run, found, verified, findings),
    )


def _agrees(run: Run, found: Tally, verified: tuple[int, int], findings: Sequence[str]) -> bool:
    return (
        not found.lost
        and not found.unexplained
        and not found.duplicates
        and not findings
        and len(set(run.ids)) == run.wanted
        and found.states == {"delivered": run.copies, **({"bounced": run.nobodys} if run.nobodys else {})}
        and found.forwarded == FORWARDS
        and found.stored == run.copies + FORWARDS
        and found.authenticated == found.stored
        and verified[0] == verified[1] > 0
    )


def show(out: Output, found: Figures, rooms: Rooms) -> None:
    if out.as_json:
        out.data({**asdict(found), **asdict(rooms)})
        return
    out.console.print(_table(found))
    _show_inbox(out, rooms)
    _show_story(out, rooms)
    for finding in found.findings:
        out.console.print(Text(f"posthouse check: {clean(finding)}", style="red"))
    verdict = (
        ("Every mail that was accepted is accounted for, once.", "bold green")
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
    killed = f"{', '.join(found.killed)} killed with SIGKILL, back after {found.down_s:.1f} s" if found.killed else ""
    rows = [
        ("accepted", f"{found.accepted:,}", f"messages, answered 202, on disk; {found.accepted_per_second:,}/s"),
        ("delivered", f"{found.delivered:,}", "recipients, by the ledger of the sending flow"),
        ("stored", f"{found.stored:,}", _stored(found)),
        ("bounced", f"{found.bounced:,}", f"of {found.bounces_expected:,} to addresses that nobody has: 550 5.1.1"),
        *((state, f"{count:,}", "") for state, count in found.other.items()),
        ("deferred", f"{found.deferred_on_the_way:,}", "greylisted, or cut off by the kill; then tried again"),
        ("lost", f"{found.lost:,}", killed),
        ("twice", f"{found.duplicates:,}", "what was in flight is repeated with the same bytes, and known again"),
        ("authenticated", f"{found.authenticated:,}", "SPF, DKIM and DMARC (p=reject) pass, by the demo's own DNS"),
        ("signatures", f"{found.signatures_verified} of {found.signatures_sampled}", "good, of a sample, by hand"),
        ("check", f"{len(found.findings)}", "invariants hurt: counts, threads, changes, every message's hash"),
    ]
    for stream, latency in sorted(found.latency_s.items()):
        note = f"95 % {_seconds(latency.p95)}, 99 % {_seconds(latency.p99)}, longest {_seconds(latency.longest)}"
        rows.append((_STREAMS.get(stream, stream), _seconds(latency.p50), f"median from 202 to 250; {note}"))
    return rows


def _stored(found: Figures) -> str:
    forwarded = f", {found.forwarded:,} of them sent on by another" if found.forwarded else ""
    return f"in {found.people:,} mailboxes{forwarded}; {found.stored_per_second:,}/s through both flows"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


# One person's mail.


def _show_inbox(out: Output, rooms: Rooms) -> None:
    counts = ", ".join(f"{clean(one['name'])} {one['total']:,} ({one['unread']:,} unread)" for one in rooms.mailboxes)
    out.console.print(Text.assemble((f"{rooms.person.name}: ", "bold"), counts), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    for style in ("dim", "bold", "", "dim"):
        table.add_column(style=style, no_wrap=True)
    for line in rooms.inbox:
        table.add_row(_time(line["received_at"])[:8], *_cells(line))
    out.console.print(table)
    subjects = ", ".join(sorted({clean(line["subject"]) for line in rooms.found})) or "nothing"
    found = f"{len(rooms.found)} found: {subjects}"
    out.console.print(Text.assemble((f"Searched for “{SEARCHED}”: ", "bold"), found), soft_wrap=True)
    if rooms.rules:
        out.console.print(
            Text.assemble((f"What became of “{INVOICE}”: ", "bold"), clean(" ".join(rooms.rules))), soft_wrap=True
        )


def _cells(line: Mapping[str, Any]) -> tuple[str, Text, str]:
    """Who, what with how many mails the conversation has, how it begins."""
    who = ", ".join(clean(one.get("name") or one.get("address", "")) for one in line["senders"])
    emails = line.get("emails", 1)
    what = Text.assemble(clean(line["subject"]), (f"  {emails} mails" if emails > 1 else "", "cyan"))
    preview = clean(line["preview"])
    return who, what, preview if len(preview) <= _PREVIEW else preview[: _PREVIEW - 1] + "…"


def _show_story(out: Output, rooms: Rooms) -> None:
    if rooms.out is None:
        return
    out.console.print()
    _show_sentences(out, "One mail on its way out", rooms.out)
    if rooms.back is not None:
        _show_sentences(out, "the same mail coming in", rooms.back)
    if rooms.authentication is not None:
        text = ", ".join(_results(rooms.authentication))
        out.console.print(Text.assemble(("Authentication: ", "bold"), text), soft_wrap=True)
    out.console.print()


def _show_sentences(out: Output, title: str, story: Mapping[str, Any]) -> None:
    out.console.print(Text(f"{title} ({story['id']}):", style="bold"))
    for sentence in story["story"]:
        out.console.print(
            Text.assemble((f"  {_time(sentence['at'])}  ", "dim"), clean(sentence["text"])), soft_wrap=True
        )


def _results(found: Mapping[str, Any]) -> list[str]:
    spf, dmarc = found["spf"], found["dmarc"]
    dkim = [
        f"DKIM {one['result']} ({clean(one['domain'])}, {clean(one.get('algorithm', ''))})" for one in found["dkim"]
    ]
    return [
        f"SPF {spf['result']} ({clean(spf['domain'])})",
        *dkim,
        f"DMARC {dmarc['result']} ({clean(dmarc['domain'])}, p={clean(dmarc.get('policy', 'none'))})",
    ]


def _time(at: str) -> str:
    """`12:00:00.123`"""
    return at.partition("T")[2][:12]
