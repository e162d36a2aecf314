"""`posthouse cluster`: every process, what waits, who holds which lease, and what is stuck."""

from __future__ import annotations

from typing import Any

import typer

from posthouse.cli.output import Column, one_line
from posthouse.cli.queue import DEPTHS
from posthouse.cli.session import Session, wired

_PROCESSES = (
    Column("PROCESS", "id"),
    Column("HOST", "host"),
    Column("PID", "pid", right=True),
    Column("ROLES", "roles"),
    Column("VERSION", "version"),
    Column("SINCE", "started_at"),
    Column("SEEN", "seen_at"),
    Column("", "status"),
    Column("HOLDS", "held", right=True),
    Column("FINISHED", "finished", right=True),
)
_LEASES = (
    Column("LEASE", "name"),
    Column("HOLDER", "holder"),
    Column("FENCE", "fence", right=True),
    Column("UNTIL", "until"),
    Column("HELD", "held"),
)


@wired
async def command(session: Session) -> None:
    """Show every process, lag by stage and lane, leases and what is stuck. Exit code 1 while something is."""
    async with session.client() as client:
        found: dict[str, Any] = await client.get("/v1/cluster")
    out = session.out
    if out.as_json:
        out.data(found)
    else:
        out.table(_PROCESSES, map(_process, found["processes"]), empty="No process has shown itself.")
        out.say("")
        out.table(DEPTHS, found["depths"], empty="The queues are empty.")
        if found["leases"]:
            out.say("")
            out.table(_LEASES, found["leases"], empty="")
        out.say("")
        for sentence in found["stuck"]:
            out.say(one_line(sentence), style="yellow")
        if not found["stuck"]:
            out.say("Nothing is stuck.", style="bold")
    if found["stuck"]:
        raise typer.Exit(1)


def _process(one: dict[str, Any]) -> dict[str, Any]:
    lanes = one["lanes"]
    return one | {"held": sum(lane["held"] for lane in lanes), "finished": sum(lane["finished"] for lane in lanes)}
