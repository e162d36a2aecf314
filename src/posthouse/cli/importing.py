"""`posthouse import`: mail from mbox files, Maildirs and .eml files, exactly and once."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from posthouse.cli import places
from posthouse.cli.mailstores import Letter, Look, Store, stores
from posthouse.cli.output import Output, count
from posthouse.cli.server import Problem
from posthouse.cli.session import Session, wired

if TYPE_CHECKING:
    from posthouse.cli.client import Client

_OCTETS = 6_000_000
"""Of one request, beside its last message; the server takes 8 MB."""
_LETTERS = 200
_SOURCES = 1000
_TRIES = 6
_FORMS = ("auto", "rd", "o", "cl", "cl2")
_SHOWN = 10


@dataclass(slots=True)
class Result:
    imported: int = 0
    skipped: int = 0
    """Stored by an earlier run."""
    refused: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    mailboxes: dict[str, int] = field(default_factory=dict[str, int])


@wired
async def command(
    session: Session,
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Address or id.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="mbox file, Maildir, .eml file, or a folder of these.")],
    *,
    mailbox: Annotated[str, typer.Option(metavar="MAILBOX", help="Where it goes; folders lie below it.")] = "",
    mbox_form: Annotated[str, typer.Option("--mbox", metavar="FORM", help="auto, rd, o, cl or cl2.")] = "auto",
    label: Annotated[str, typer.Option(help="Another label imports the same mail once more.")] = "",
) -> None:
    """Bring mail along: exactly as it is, in its folders, with its flags.

    Stopped or killed and run again, it goes on where it was, and nothing is stored twice.
    """
    if mbox_form not in _FORMS:
        raise typer.BadParameter(f"--mbox {mbox_form}: one of {', '.join(_FORMS)}")
    look = Look(mailbox, label, mbox_form)
    found = stores(path, look)
    result = Result()
    async with session.client() as client:
        with _progress(session.out) as progress:
            bar = progress.add_task(str(path.name), total=sum(one.octets for one in found))
            for store in found:
                await _bring(_Trip(client, account, result, progress, bar), store, mailbox)
    _told(session.out, result)
    if result.refused:
        raise typer.Exit(1)


def _progress(out: Output) -> Progress:
    quiet = out.as_json or not out.errors.is_terminal
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("octets"),
        TimeRemainingColumn(),
        console=out.errors,
        disable=quiet,
        transient=True,
    )


@dataclass(frozen=True, slots=True)
class _Trip:
    client: Client
    account: str
    result: Result
    progress: Progress
    bar: Any


async def _bring(trip: _Trip, store: Store, mailbox: str) -> None:
    come = await _marks(trip, store)
    names = [*(name for name in mailbox.split("/") if name), *store.place] or ["Inbox"]
    number = await places.made(trip.client, trip.account, names)
    trip.progress.update(trip.bar, description="/".join(names))
    if store.kind == "mbox":
        trip.progress.advance(trip.bar, come.get(store.sources[0], 0))
    stored = 0
    for batch in _batches(trip, store.letters(come), come if store.kind != "mbox" else {}):
        stored += await _put(trip, batch, number)
        trip.progress.advance(trip.bar, sum(letter.size for letter, _ in batch))
    shown = "/".join(names)
    trip.result.mailboxes[shown] = trip.result.mailboxes.get(shown, 0) + stored


async def _marks(trip: _Trip, store: Store) -> dict[str, int]:
    come: dict[str, int] = {}
    path = places.account_path(trip.account, "import", "marks")
    for start in range(0, len(store.sources), _SOURCES):
        answer = await trip.client.post(path, {"sources": store.sources[start : start + _SOURCES]})
        come |= answer["positions"]
    return come


def _batches(trip: _Trip, letters: Iterator[Letter], come: Mapping[str, int]) -> Iterator[list[tuple[Letter, bytes]]]:
    batch: list[tuple[Letter, bytes]] = []
    octets = 0
    for letter in letters:
        if letter.source in come:
            trip.result.skipped += 1
            trip.progress.advance(trip.bar, letter.size)
            continue
        try:
            raw = letter.read()
        except OSError as wrong:
            trip.result.refused.append({"message": letter.name, "reason": wrong.strerror or str(wrong)})
            continue
        if not raw:
            trip.result.refused.append({"message": letter.name, "reason": "It is empty."})
            continue
        if batch and (octets + len(raw) > _OCTETS or len(batch) == _LETTERS):
            yield batch
            batch, octets = [], 0
        batch.append((letter, raw))
        octets += len(raw)
    if batch:
        yield batch


async def _put(trip: _Trip, batch: list[tuple[Letter, bytes]], mailbox: int) -> int:
    """How many were stored."""
    path = places.account_path(trip.account, "import")
    body = {"emails": [_item(letter, raw, mailbox) for letter, raw in batch]}
    for n in range(1, _TRIES + 1):
        try:
            answer = await trip.client.post(path, body)
        except Problem as problem:
            if problem.status == 503 and n < _TRIES:  # safe to repeat: each has its mark
                await asyncio.sleep(min(0.2 * 2**n, 5))
                continue
            if problem.status in (413, 422):
                return await _apart(trip, batch, mailbox, problem)
            raise
        trip.result.imported += answer["stored"]
        trip.result.skipped += len(batch) - answer["stored"]
        return int(answer["stored"])
    raise AssertionError


async def _apart(trip: _Trip, batch: list[tuple[Letter, bytes]], mailbox: int, problem: Problem) -> int:
    """One of them cannot be taken: each by itself, so that the others are."""
    if len(batch) > 1:
        return sum([await _put(trip, [one], mailbox) for one in batch])
    trip.result.refused.append({"message": batch[0][0].name, "reason": problem.detail})
    return 0


def _item(letter: Letter, raw: bytes, mailbox: int) -> dict[str, Any]:
    item: dict[str, Any] = {
        "raw": base64.b64encode(raw).decode(),
        "mailboxes": [mailbox],
        "keywords": list(letter.keywords),
        "source": letter.source,
        "position": letter.position,
    }
    if letter.received_at is not None:
        item["received_at"] = letter.received_at.isoformat()
    return item


def _told(out: Output, result: Result) -> None:
    if out.as_json:
        out.data(
            {
                "imported": result.imported,
                "skipped": result.skipped,
                "refused": result.refused,
                "mailboxes": result.mailboxes,
            }
        )
        return
    where = ", ".join(f"{number:,} into {name}" for name, number in result.mailboxes.items() if number)
    out.say(f"Imported {count(result.imported, 'message')}{f': {where}' if where else ''}.")
    if result.skipped:
        were = "was" if result.skipped == 1 else "were"
        out.say(f"{result.skipped:,} {were} there from an earlier run.")
    for one in result.refused[:_SHOWN]:
        out.say(f"Not imported: {one['message']}: {one['reason']}", style="yellow")
    if len(result.refused) > _SHOWN:
        out.say(f"… and {len(result.refused) - _SHOWN} more; --json lists all.", style="yellow")
