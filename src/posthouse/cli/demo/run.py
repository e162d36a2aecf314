"""The demo, from its set-up to its figures."""

from __future__ import annotations

import time
from collections import deque

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from posthouse.cli.demo import check, judge, mails, report, rooms
from posthouse.cli.demo.dns import Dns
from posthouse.cli.demo.post import Post, Run
from posthouse.cli.demo.processes import Failed, House
from posthouse.cli.output import Output

_SAMPLES = 100
"""Messages at most whose signatures are checked by hand."""
_LOOK_SECONDS = 0.25
_PATIENCE = 90.0
"""Seconds without any progress after which the demo gives up."""


def demo(out: Output, server: House, messages: int, mailboxes: int, *, kill: bool) -> bool:
    """Whether all totals agree.

    :param kill: each part of the server once, in equal distances.
    :raises Failed: :raises httpx.HTTPError: it could not be shown.
    """
    started = time.monotonic()
    run = Run(messages, mails.people(mailboxes))
    with Dns() as dns:
        try:
            out.hint(f"Setting up: a DNS server, a mail server, signed domains, {mailboxes} mailboxes …")
            server.set_up(dns.address)
            server.start()
            with server.http(operator=True) as http:
                keys = rooms.furnish(http, server.domain, dns, run.people)
            run.began = time.monotonic()
            _send_all(out, server, run, kill=kill)
            run.ended = time.monotonic()
            out.hint("Comparing the ledger with every mailbox …")
            with server.http(operator=True) as http:
                ledger = rooms.every(http, "/v1/messages")
                invoice = next(
                    (one for one in ledger if one["id"] in run.ids and one.get("subject") == mails.INVOICE), None
                )
                shown = rooms.look(http, run.people[0], check.worth_telling(run.ids, ledger), invoice)
        finally:
            server.stop()
    house = judge.look(server.directory, server.tenant, max(1, messages // _SAMPLES))
    found = check.tally(run.ids, ledger, house.copies)
    verified = check.count_verified(house.samples, keys)
    figures = report.figures(run, found, verified, house.findings, time.monotonic() - started)
    report.show(out, figures, shown)
    return figures.agrees


# Sending.


def _send_all(out: Output, server: House, run: Run, *, kill: bool) -> None:
    """Until every message is final, stored and indexed."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out.errors, disable=out.as_json) as progress, Post(server, run):
        parts = server.parts if kill else ()
        kills = deque((run.copies * n // (len(parts) + 1), part) for n, part in enumerate(parts, 1))
        _watch(_Bars(progress, run), server, run, kills)


class _Bars:
    """Moved when something happened; knows how long nothing did."""

    def __init__(self, progress: Progress, run: Run) -> None:
        self._progress = progress
        self._bars = [
            progress.add_task("accepted", total=run.wanted),
            progress.add_task("in mailboxes", total=run.copies + mails.FORWARDS),
        ]
        self._last: tuple[int, ...] = ()
        self._moved = time.monotonic()

    def show(self, *counts: int) -> None:
        """:raises Failed: nothing moves."""
        if counts != self._last:
            self._last, self._moved = counts, time.monotonic()
            for bar, count in zip(self._bars, counts, strict=True):
                self._progress.update(bar, completed=count)
        elif time.monotonic() - self._moved > _PATIENCE:
            raise Failed(f"nothing moved for {_PATIENCE:.0f} s: {counts[0]} accepted, {counts[1]} in mailboxes")

    def say(self, text: str, style: str) -> None:
        self._progress.console.print(Text(text, style=style))


def _watch(bars: _Bars, server: House, run: Run, kills: deque[tuple[int, str]]) -> None:
    while True:
        with server.http(operator=True) as http:
            done = run.submitted and rooms.waiting(http) == 0
            run.stored = rooms.stored(http)
        bars.show(len(run.ids), run.stored)
        if run.failure is not None:
            raise Failed(str(run.failure))
        if kills and run.stored >= kills[0][0]:
            _kill(bars, server, run, kills.popleft()[1])
        elif done:
            return
        time.sleep(_LOOK_SECONDS)


def _kill(bars: _Bars, server: House, run: Run, part: str) -> None:
    run.killed.append(part)
    down = time.monotonic()
    server.kill(part)
    bars.say(f"kill -9 of {part} with {run.stored:,} mails in the mailboxes; starting it again …", "bold red")
    server.start_again(part)
    run.down_seconds += time.monotonic() - down
    bars.say(f"it is back after {time.monotonic() - down:.1f} s and goes on where it stood", "bold green")
