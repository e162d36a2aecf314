"""`posthouse mailbox`: what lies in an account, as a reader sees it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from posthouse.cli import places
from posthouse.cli.output import Column, Output, count, one_line
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(help="Mailboxes: list, show, create, rename, remove.", no_args_is_help=True)
_BOXES = (
    Column("MAILBOX", "shown"),
    Column("ROLE", "role"),
    Column("UNREAD", "unread", right=True),
    Column("EMAILS", "total", right=True),
    Column("THREADS", "threads", right=True),
    Column("NUMBER", "id", right=True),
)
_LINES = (
    Column("", "marks"),
    Column("FROM", "from"),
    Column("SUBJECT", "subject"),
    Column("DATE", "date", right=True),
    Column("NUMBER", "id", right=True),
)
_WIDE = 76
"""Characters of subject and preview."""
Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Address or id.")]
Path = Annotated[str, typer.Argument(metavar="MAILBOX", help="Such as Archive/Bills, inbox, or a number.")]


@app.command("list")
@wired
async def list_(session: Session, account: Account) -> None:
    """List its mailboxes with what is in them."""
    async with session.client() as client:
        found = await places.boxes(client, account)
    if session.out.as_json:
        session.out.data(found)
        return
    rows = [{**box, "shown": "  " * box["path"].count("/") + box["name"]} for box in sorted(found, key=_place(found))]
    session.out.table(_BOXES, rows, empty="There are no mailboxes.")


def _place(boxes: list[places.Box]) -> Any:
    """As a tree: those with a role first, as they are sorted, then by name; children below."""
    by_id = {box["id"]: box for box in boxes}

    def key(box: places.Box) -> list[tuple[bool, int, str]]:
        above: list[tuple[bool, int, str]] = []
        while box:
            above.append((box["role"] is None, box["sort_order"], box["name"].casefold()))
            box = by_id.get(box["parent"], {})
        return above[::-1]

    return key


@app.command("show")
@wired
async def show(
    session: Session,
    account: Account,
    mailbox: Path = "inbox",
    *,
    threads: Annotated[bool, typer.Option("--threads/--emails", help="One line a conversation, or an email.")] = True,
    limit: Annotated[int, at_most(100_000)] = 20,
) -> None:
    """Show a page of a mailbox, newest first."""
    async with session.client() as client:
        box = await places.named(client, account, mailbox)
        path = places.account_path(account, "mailboxes", box["id"], "emails")
        found = await client.pages(path, limit, threads="true" if threads else None)
    if session.out.as_json:
        session.out.data(found)
        return
    unread = box["unread_threads" if threads else "unread"]
    there = count(box["threads"], "conversation") if threads else count(box["total"], "email")
    session.out.say(f"{one_line(box['path'])}: {there}, {unread:,} unread", style="bold")
    lines(session.out, found, empty="It is empty.")


def lines(out: Output, found: list[dict[str, Any]], *, empty: str) -> None:
    """Emails as a list: `*` unread, `!` flagged, `<` answered, `+` with files."""
    out.table(_LINES, map(_line, found), empty=empty)


def _line(email: dict[str, Any]) -> dict[str, Any]:
    words: set[str] = set(email.get("keywords") or ())
    unread = email["unread"] > 0 if email.get("unread") is not None else not words & {"$seen", "$draft"}
    marks = "".join(
        mark
        for mark, here in (
            ("*", unread),
            ("!", "$flagged" in words),
            ("<", "$answered" in words),
            ("+", bool(email.get("attachments"))),
        )
        if here
    )
    emails = email.get("emails") or 1
    who = ", ".join(one.get("name") or one.get("address") or "" for one in email.get("senders") or ())
    subject, preview = one_line(email["subject"]) or "(no subject)", one_line(email["preview"])
    text = f"{subject}  {preview}" if preview else subject
    return {
        "marks": marks,
        "from": _cut(who or "(nobody)", 24) + (f" ({emails})" if emails > 1 else ""),
        "subject": _cut(text, _WIDE),
        "date": when(email["received_at"]),
        "id": email["id"],
    }


def _cut(text: str, most: int) -> str:
    text = one_line(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def when(stamp: object, now: datetime | None = None) -> str:
    """Local time as mail programs show it: the hour today, the day this year, else the date."""
    try:
        at = datetime.fromisoformat(str(stamp)).astimezone()
    except ValueError:
        return one_line(stamp)
    today = (now or datetime.now(UTC)).astimezone()
    if at.date() == today.date():
        return f"{at:%H:%M}"
    return f"{at.day} {at:%b}" if at.year == today.year else f"{at:%Y-%m-%d}"


@app.command("create")
@wired
async def create(session: Session, account: Account, mailbox: Path) -> None:
    """Make a mailbox, with those above it."""
    async with session.client() as client:
        number = await places.made(client, account, [name for name in mailbox.split("/") if name])
        box = await client.get(places.account_path(account, "mailboxes", number))
    session.out.done(box, f"{one_line(box['path'])} is there.")


@app.command("rename")
@wired
async def rename(
    session: Session,
    account: Account,
    mailbox: Path,
    to: Annotated[str, typer.Argument(metavar="NEW", help="Its new name, or path to move it.")],
) -> None:
    """Give a mailbox another name or place."""
    *above, name = [part for part in to.split("/") if part] or [to]
    async with session.client() as client:
        box = await places.named(client, account, mailbox)
        change: dict[str, object] = {"name": name}
        if "/" in to:
            change["parent"] = await places.made(client, account, above) if above else 0
        changed = await client.patch(places.account_path(account, "mailboxes", box["id"]), change)
    session.out.done(changed, f"{one_line(box['path'])} is now {one_line(changed['path'])}.")


@app.command("remove")
@wired
async def remove(
    session: Session,
    account: Account,
    mailbox: Path,
    emails: Annotated[str, typer.Option(help="Those that lie only there: refuse, trash or destroy.")] = "refuse",
) -> None:
    """Remove a mailbox."""
    async with session.client() as client:
        box = await places.named(client, account, mailbox)
        await client.delete(f"{places.account_path(account, 'mailboxes', box['id'])}?emails={emails}")
    session.out.done({"mailbox": box["path"], "removed": True}, f"{one_line(box['path'])} is removed.")
