"""`posthouse move`: from embedded storage to the engines of another configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from posthouse.cli.output import Column, Output, count
from posthouse.cli.session import Session, wired

_COLUMNS = (Column("TABLE", "table"), Column("ROWS", "rows", right=True))


@wired
async def command(
    session: Session,
    *,
    to: Annotated[Path, typer.Option("--to", metavar="CONFIG", help="Settings file that names the engines.")],
    check: Annotated[bool, typer.Option("--check", help="Only look whether it can be moved.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every row and blob back, not only what is new.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the running `serve` for the last step.")] = False,
) -> None:
    """Move everything to PostgreSQL and S3, with a short stop. Run it again to go on after a break."""
    # Here, since it opens engines that no other command needs.
    from posthouse.app import moving  # noqa: PLC0415
    from posthouse.config import load  # noqa: PLC0415

    out = session.out
    source, target = session.configuration().settings, load(file=to).settings
    if check:
        with _Bars(out) as bars:
            rows = await moving.examine(source, target, bars)
        _counted(out, rows, "It can be moved. Nothing was changed but the new database's schema.")
        return
    with _Bars(out) as bars:
        moved = await moving.move(source, target, moving.Wishes(deep=deep, stop=stop), bars, bars.say)
    if out.as_json:
        out.data({**asdict(moved), "stop_seconds": round(moved.timing.stop, 3)})
        return
    timing = moved.timing
    _counted(out, moved.rows, f"Moved: {count(sum(moved.rows.values()), 'row')} and {count(moved.blobs, 'blob')}.")
    out.say(
        f"The stop took {timing.stop:.2f} s: {timing.catch_up:.2f} s to compare all rows and bring the last"
        f" {moved.caught_up:,}, {timing.verify:.2f} s to read them back, {timing.check:.2f} s for `posthouse check`."
    )
    if moved.replaced_nul:
        out.say(f"{count(moved.replaced_nul, 'text')} had NUL octets, which became U+FFFD: PostgreSQL holds none.")
    out.hint(
        f"Start `posthouse serve --config {to}` now. It makes the search index anew by itself, beside its work."
        " The old data is untouched; `serve` on it refuses, and says how to go back."
    )


def _counted(out: Output, rows: Mapping[str, int], sentence: str) -> None:
    if out.as_json:
        out.data({"rows": dict(rows)})
        return
    out.table(
        _COLUMNS, [{"table": name, "rows": f"{n:,}"} for name, n in rows.items() if n], empty="There are no rows."
    )
    out.say(sentence, style="bold")


class _Bars:
    """`posthouse.moving.Watch` on the terminal; a line for each phase elsewhere."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._live = out.errors.is_terminal and not out.as_json
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=out.errors,
            disable=not self._live,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, name: str, total: int) -> None:
        if not self._live:
            self._out.hint(f"{name} …")
        if self._task is not None:
            self._progress.stop_task(self._task)
        self._task = self._progress.add_task(name, total=total or None)

    def advance(self, number: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, number)

    def say(self, text: str) -> None:
        self._out.hint(text)
