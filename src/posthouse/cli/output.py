"""What commands print: tables and sentences for people, JSON for programs (`--json`).

Data goes to standard output; progress, hints and errors to standard error. Everything that
came from a server or a user passes `clean`, so that it cannot move the cursor or recolour.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {
    "delivered": "green",
    "verified": "green",
    "published": "green",
    "ok": "green",
    "bounced": "red",
    "failed": "red",
    "failing": "red",
    "missing": "red",
    "suppressed": "yellow",
    "deferred": "yellow",
    "pending": "yellow",
    "canceled": "dim",
    "revoked": "dim",
}
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{6}Z")
_PIPE_WIDTH = 1000  # a table in a pipe is never folded


def clean(text: object) -> str:
    """Printable text: control characters and terminal sequences become U+FFFD, LF stays."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def moment(text: object) -> str:
    """An RFC 3339 time of the API, to the second; other text as it is."""
    found = _MOMENT.fullmatch(str(text))
    return f"{found[1]}Z" if found else one_line(text)


def count(number: float, noun: str) -> str:
    """`1 email`, `1,204 emails`; a noun that is no plain plural as `mailbox/mailboxes`."""
    one, _, several = noun.partition("/")
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {one if number == 1 else several or one + 's'}"


def one_line(text: object) -> str:
    return " ".join(clean(text).split())


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False, soft_wrap=False)


@dataclass(frozen=True, slots=True)
class Column:
    """`key` of each row's mapping under `title`; the last column may fold."""

    title: str
    key: str
    right: bool = False


@dataclass(slots=True)
class Output:
    as_json: bool = False
    console: Console = field(default_factory=lambda: _console(False))
    errors: Console = field(default_factory=lambda: _console(True))

    def data(self, value: object) -> None:
        """One JSON document on standard output, whatever `--json` says."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")

    def raw(self, value: bytes) -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()

    def say(self, text: str, style: str = "") -> None:
        """A line of the answer, for people."""
        self.console.print(Text(clean(text), style=style), soft_wrap=True)

    def hint(self, text: str) -> None:
        """A line beside the answer: what to do next, what is going on."""
        if not self.as_json:
            self.errors.print(Text(clean(text), style="dim"), soft_wrap=True)

    def done(self, value: object, sentence: str) -> None:
        """What a command did: the value for programs, the sentence for people."""
        if self.as_json:
            self.data(value)
        else:
            self.say(sentence)

    def listed(
        self,
        found: Sequence[dict[str, Any]],
        columns: Sequence[Column],
        *,
        empty: str,
        row: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        """What a list command found: as it is for programs, as a table for people.

        :param row: makes a line of the table of one.
        """
        if self.as_json:
            self.data(found)
        else:
            self.table(columns, found if row is None else map(row, found), empty=empty)

    def table(self, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], *, empty: str) -> None:
        """:param empty: the sentence shown when there are no rows."""
        shown = list(rows)
        if not shown:
            self.hint(empty)
            return
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
        for row in shown:
            table.add_row(*(_cell(row.get(column.key)) for column in columns))
        self.console.print(table)

    def facts(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Names and values, one a line; empty values are left out."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in pairs:
            if value not in (None, "", [], {}):
                table.add_row(name, _cell(value))
        self.console.print(table)


def _cell(value: object) -> Text:
    text = show(value)
    return Text(text, style=_STYLES.get(text, ""))


def show(value: object) -> str:
    """A value as a cell: lists joined, mappings as `name=value`, one line."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case {"code": code, "text": text, **rest}:  # a peer's reply
            return f"“{one_line(' '.join(str(part) for part in (code, rest.get('enhanced'), text) if part))}”"
        case dict():
            return one_line(" ".join(f"{name}={show(item)}" for name, item in value.items()))  # pyright: ignore[reportUnknownVariableType] - any JSON
        case list() | tuple():
            return one_line(", ".join(show(item) for item in value))  # pyright: ignore[reportUnknownVariableType] - any JSON
        case _:
            return moment(value)
