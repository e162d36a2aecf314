"""`posthouse thread`: conversations, where people know better than the headers."""

from __future__ import annotations

from typing import Annotated

import typer

from posthouse.cli import mailbox as mailboxes
from posthouse.cli.places import account_path
from posthouse.cli.session import Session, wired

app = typer.Typer(help="Conversations: show, split, merge.", no_args_is_help=True)
Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Address or id.")]
Number = Annotated[int, typer.Argument(metavar="THREAD", min=1, help="As `message show` tells it.")]


@app.command("show")
@wired
async def show(session: Session, account: Account, thread: Number) -> None:
    """List the emails of a conversation, the oldest first."""
    async with session.client() as client:
        found = await client.get(account_path(account, "threads", thread))
    if session.out.as_json:
        session.out.data(found)
    else:
        mailboxes.lines(session.out, found["emails"], empty="It is empty.")


@app.command("split")
@wired
async def split(
    session: Session,
    account: Account,
    thread: Number,
    emails: Annotated[list[int], typer.Argument(metavar="NUMBER…", min=1, help="Those that do not belong to it.")],
) -> None:
    """Take emails out of a conversation; they are a new one."""
    async with session.client() as client:
        made = await client.post(account_path(account, "threads", thread, "split"), {"emails": emails})
    session.out.done(made, f"They are conversation {made['thread']} now.")


@app.command("merge")
@wired
async def merge(
    session: Session,
    account: Account,
    thread: Number,
    others: Annotated[list[int], typer.Argument(metavar="THREAD…", min=1, help="Conversations that belong to it.")],
) -> None:
    """Make conversations one."""
    async with session.client() as client:
        made = await client.post(account_path(account, "threads", thread, "merge"), {"threads": others})
    session.out.done(made, f"All of it is conversation {made['thread']} now.")
