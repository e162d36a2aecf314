"""`posthouse check`: proves that the mailboxes are what they say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posthouse.cli.output import Column, count, one_line
from posthouse.cli.server import Problem
from posthouse.cli.session import Session, wired
from posthouse.errors import Unavailable

if TYPE_CHECKING:
    from posthouse.cli.client import Client

_COLUMNS = (Column("CODE", "code"), Column("ACCOUNT", "account", right=True), Column("FINDING", "text"))
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0  # seconds


@wired
async def command(
    session: Session,
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Read every message and compare it with its hash.")] = False,
    mend: Annotated[bool, typer.Option("--mend", help="Make right what follows from what is certain.")] = False,
) -> None:
    """Prove every count, thread, mark and content of the mailboxes. Exit code 1 while something is wrong."""
    async with session.client() as client:
        task = await client.post("/v1/tasks/check", {"deep": deep, "mend": mend})
        session.out.hint("It goes on at the server when this command is stopped.")
        task = await ended(client, task)
    found: list[dict[str, Any]] = task["findings"]
    if session.out.as_json:
        session.out.data(task)
    else:
        for sentence in task["mended"]:
            session.out.say(f"Mended: {one_line(sentence)}")
        if found:
            session.out.table(_COLUMNS, found, empty="")
        session.out.say(
            f"{count(task['found'], 'finding')}." if task["found"] else "All is as it should be.", style="bold"
        )
        if found and not mend:
            session.out.hint("`posthouse check --mend` makes right what can be made right.")
    if task["found"]:
        raise typer.Exit(1)


async def ended(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    """Waits for a task of the server.

    :raises Unavailable: code `task_failed`, or `task_lost`: the server began anew.
    """
    pause = _FIRST_PAUSE
    while task["state"] == "running":
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
        try:
            task = await client.get(f"/v1/tasks/{task['id']}")
        except Problem as problem:
            if problem.code != "task_not_found":
                raise
            raise Unavailable("The server began anew while it was at work; run it again", code="task_lost") from None
    if task["state"] == "failed":
        raise Unavailable(f"It could not be finished: {task.get('error', '')}", code="task_failed")
    return task
