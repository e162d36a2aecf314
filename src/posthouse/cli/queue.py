"""`posthouse queue`: what waits, what was set aside and why, and putting it back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from posthouse.cli.output import Column
from posthouse.cli.session import Session, wired

app = typer.Typer(help="Queues (needs an operator key): list, retry, bury.", no_args_is_help=True)
DEPTHS = (
    Column("STAGE", "stage"),
    Column("LANE", "lane"),
    Column("READY", "ready", right=True),
    Column("WAITING", "delayed", right=True),
    Column("BURIED", "buried", right=True),
    Column("OLDEST DUE", "oldest_due_at"),
)
_BURIED = (
    Column("JOB", "id"),
    Column("STAGE", "stage"),
    Column("LANE", "lane"),
    Column("ATTEMPTS", "attempts", right=True),
    Column("BURIED", "buried_at"),
    Column("REASON", "reason"),
)


@app.command("list")
@wired
async def list_(session: Session) -> None:
    """Show the depth of each queue, and the buried jobs with their reasons."""
    async with session.client() as client:
        queue = await client.get("/v1/queue")
    if session.out.as_json:
        session.out.data(queue)
        return
    session.out.table(DEPTHS, queue["depths"], empty="The queues are empty.")
    if queue.get("buried"):
        session.out.say("")
        session.out.table(_BURIED, queue["buried"], empty="")
        session.out.hint("`posthouse queue retry ID` puts a job back, `posthouse explain` tells its story.")


@app.command("retry")
@wired
async def retry(
    session: Session,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID…]")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All buried jobs.")] = False,
) -> None:
    """Put buried jobs back, due now."""
    if bool(ids) == everything:
        raise typer.BadParameter("name the jobs, or give --all")
    async with session.client() as client:
        answer = await client.post("/v1/queue/retry", {"all": True} if everything else {"ids": ids})
    _count(session, answer, "put back", ids)


@app.command("bury")
@wired
async def bury(
    session: Session,
    ids: Annotated[list[str], typer.Argument(metavar="ID…")],
    reason: Annotated[str, typer.Option(help="Why; shown in the list.")] = "set aside by an operator",
) -> None:
    """Set jobs aside so that nothing works on them."""
    async with session.client() as client:
        answer = await client.post("/v1/queue/bury", {"ids": ids, "reason": reason})
    _count(session, answer, "buried", ids)


def _count(session: Session, answer: Any, verb: str, ids: list[str] | None) -> None:
    count, asked = answer["changed"], len(set(ids or ()))
    session.out.done(answer, f"{count} {'job' if count == 1 else 'jobs'} {verb}.")
    if count < asked:
        session.out.hint(f"{asked - count} of {asked} cannot be found in that state: posthouse queue list")
        raise typer.Exit(1)
