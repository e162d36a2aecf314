"""`posthouse reindex`: makes the search index anew."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from posthouse.cli.check import ended
from posthouse.cli.output import count
from posthouse.cli.server import IN_PROCESS
from posthouse.cli.session import Session, wired


@wired
async def command(
    session: Session,
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Only this one; else all.")] = "",
) -> None:
    """Make the search index anew from the mail itself. Mail can be read meanwhile."""
    path = f"/v1/tasks/reindex/{quote(account, safe='@')}" if account else "/v1/tasks/reindex"
    async with session.client() as client:
        task = await ended(client, await client.post(path, {}))
    if session.out.as_json:
        session.out.data(task)
        return
    session.out.say(f"{count(task['queued'], 'email')} {'is' if task['queued'] == 1 else 'are'} queued for the index.")
    session.out.hint(
        "They are read when `posthouse serve` runs."
        if client.where == IN_PROCESS
        else "Search finds more and more of them; `posthouse queue list` shows how many wait."
    )
