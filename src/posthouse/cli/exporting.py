"""`posthouse export`: an account's mail as files that every mail program reads.

    mbox     a file for each mailbox, mboxrd: text that looks like a `From ` line gets a `>`
    maildir  Maildir++ with flags; Dovecot's list of keywords beside them
    eml      a folder for each mailbox, a file for each email

Bytes are as they came, but in mbox and maildir lines end in LF where all of a message's end in
CR LF, as programs there want it; `posthouse import` gives back the same bytes. An email in
several mailboxes is in each of them. Keywords stand in the names of a Maildir's files, and in mbox
in fields above each message, which `posthouse import` takes off again; .eml files have none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from posthouse.cli import places
from posthouse.cli.mailstores import free_name, same_device_name
from posthouse.cli.output import Output, count
from posthouse.cli.server import Problem
from posthouse.cli.session import Session, wired
from posthouse.errors import Conflict
from posthouse.mail import maildir, mbox

if TYPE_CHECKING:
    from posthouse.cli.client import Client

_FORMATS = ("mbox", "maildir", "eml")
_AHEAD = 8
"""Emails that are fetched at once."""
_LETTERS = 26
"""Keywords of one's own that a Maildir can name."""


@wired
async def command(
    session: Session,
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Address or id.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder, made when it is not there.")],
    *,
    format_: Annotated[str, typer.Option("--format", help="mbox, maildir or eml.")] = "mbox",
    mailbox: Annotated[str | None, typer.Option(metavar="MAILBOX", help="Only this one.")] = None,
) -> None:
    """Write an account's mail as mbox files, a Maildir or .eml files."""
    if format_ not in _FORMATS:
        raise typer.BadParameter(f"--format {format_}: one of {', '.join(_FORMATS)}")
    async with session.client() as client:
        there = await places.boxes(client, account)
        wanted = [await places.named(client, account, mailbox)] if mailbox else there
        path.mkdir(parents=True, exist_ok=True)
        written: dict[str, int] = {}
        with _progress(session.out) as progress:
            bar = progress.add_task(account, total=sum(box["total"] for box in wanted))
            reader = _Reader(client, account, lambda: progress.advance(bar))
            write = {"mbox": _mbox, "maildir": _maildir, "eml": _eml}[format_]
            for box in wanted:
                progress.update(bar, description=box["path"])
                written[box["path"]] = await write(reader, path, box)
    if session.out.as_json:
        session.out.data({"path": str(path), "format": format_, "mailboxes": written})
    else:
        emails, boxes = count(sum(written.values()), "email"), count(len(written), "mailbox/mailboxes")
        session.out.say(f"Exported {emails} of {boxes} to {path}.")


def _progress(out: Output) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out.errors,
        disable=out.as_json or not out.errors.is_terminal,
        transient=True,
    )


@dataclass(frozen=True, slots=True)
class Email:
    number: int
    received_at: datetime
    keywords: tuple[str, ...]
    sender: str
    raw: bytes


class _Reader:
    """The emails of a mailbox, the oldest first; those that go meanwhile are left out."""

    def __init__(self, client: Client, account: str, advance: Any) -> None:
        self._client = client
        self._account = account
        self._advance = advance

    async def emails(self, box: places.Box) -> AsyncIterator[Email]:
        lines = await self._lines(box)
        for start in range(0, len(lines), _AHEAD):
            for email in await asyncio.gather(*map(self._email, lines[start : start + _AHEAD])):
                self._advance()
                if email is not None:
                    yield email

    async def _lines(self, box: places.Box) -> list[tuple[int, str, tuple[str, ...], str]]:
        path = places.account_path(self._account, "mailboxes", box["id"], "emails")
        lines: list[tuple[int, str, tuple[str, ...], str]] = []
        cursor: str | None = None
        while True:
            page = await self._client.get(path, limit=200, cursor=cursor)
            for one in page["data"]:
                senders: list[dict[str, str]] = one["senders"]
                sender = senders[0].get("address", "") if senders else ""
                lines.append((one["id"], one["received_at"], tuple(one["keywords"]), sender))
            cursor = page["next"]
            if cursor is None:
                return lines[::-1]

    async def _email(self, line: tuple[int, str, tuple[str, ...], str]) -> Email | None:
        number, at, keywords, sender = line
        try:
            raw = await self._client.octets(places.account_path(self._account, "emails", number, "raw"))
        except Problem as problem:
            if problem.code == "email_not_found":
                return None
            raise
        return Email(number, datetime.fromisoformat(at), keywords, sender, raw)


async def _mbox(reader: _Reader, root: Path, box: places.Box) -> int:
    target = _below(root, box, ".mbox")
    if target.exists():
        raise Conflict(f"{target} is there already; choose another folder", code="file_exists")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, written = same_device_name(target), 0
    try:
        with partial.open("wb") as file:
            async for email in reader.emails(box):
                file.write(mbox.entry(email.raw, sender=email.sender, at=email.received_at, keywords=email.keywords))
                written += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return written


async def _maildir(reader: _Reader, root: Path, box: places.Box) -> int:
    folder = root if box["role"] == "inbox" else root / maildir.directory(box["path"].split("/"))
    for sub in ("cur", "new", "tmp"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    if folder != root:
        (folder / "maildirfolder").touch()
    there = {maildir.base_name(file.name): file for file in (folder / "cur").iterdir()}
    custom: list[str] = []
    written = 0
    async for email in reader.emails(box):
        custom += [word for word in email.keywords if word not in {*custom, *maildir.FLAGS.values()}]
        base = f"{int(email.received_at.timestamp())}.P{email.number}.posthouse,S={len(mbox.with_lf(email.raw))}"
        name = base + maildir.flags(email.keywords, custom[:_LETTERS])
        written += 1
        if base in there:
            there[base].rename(folder / "cur" / name)  # its flags may have changed
            continue
        _write(folder / "tmp" / base, mbox.with_lf(email.raw), email.received_at)
        (folder / "tmp" / base).rename(folder / "cur" / name)
    if custom:
        lines = "".join(f"{n} {word}\n" for n, word in enumerate(custom[:_LETTERS]))
        (folder / "dovecot-keywords").write_text(lines)
    return written


async def _eml(reader: _Reader, root: Path, box: places.Box) -> int:
    folder = _below(root, box, "")
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    async for email in reader.emails(box):
        target = folder / f"{email.number:08}.eml"
        partial = same_device_name(target)
        _write(partial, email.raw, email.received_at)
        partial.replace(target)
        written += 1
    return written


def _below(root: Path, box: places.Box, suffix: str) -> Path:
    names: Sequence[str] = [free_name(name) for name in box["path"].split("/")]
    return root.joinpath(*names[:-1], names[-1] + suffix)


def _write(path: Path, data: bytes, at: datetime) -> None:
    path.write_bytes(data)
    os.utime(path, (at.timestamp(), at.timestamp()))
