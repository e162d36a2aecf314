"""`posthouse inbound`: what came to our door, taken or refused."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from posthouse.cli.output import Column
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(help="What came to our door: list, refused.", no_args_is_help=True)
_TAKEN = (
    Column("ARRIVAL", "id"),
    Column("RECEIVED", "received_at"),
    Column("FROM", "sender"),
    Column("TO", "to"),
    Column("STATE", "state"),
    Column("PEER", "peer"),
)
_REFUSED = (
    Column("REFUSAL", "id"),
    Column("AT", "at"),
    Column("FROM", "sender"),
    Column("TO", "recipient"),
    Column("PEER", "peer"),
    Column("TOLD", "reply"),
)
Since = Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339.")]
Limit = Annotated[int, at_most(100_000)]


@app.command("list")
@wired
async def list_(
    session: Session,
    *,
    address: Annotated[str | None, typer.Option(help="Only to this address.")] = None,
    account: Annotated[str | None, typer.Option(help="Only for this account.")] = None,
    state: Annotated[str | None, typer.Option(help="accepted, stored, discarded, forwarded or failed.")] = None,
    since: Since = None,
    until: Since = None,
    limit: Limit = 20,
) -> None:
    """List the messages that were taken, newest first."""
    async with session.client() as client:
        found = await client.all_pages(
            "/v1/inbound", limit, address=address, account=account, state=state, since=since, until=until
        )
    if session.out.as_json:
        session.out.data(found)
        return
    session.out.table(_TAKEN, map(_row, found), empty="Nothing arrived. `inbound refused` lists what was refused.")
    if found:
        session.out.hint("The whole story: posthouse explain ARRIVAL")


def _row(one: dict[str, Any]) -> dict[str, Any]:
    recipients: list[dict[str, Any]] = one["recipients"]
    states = list(dict.fromkeys(each["state"] for each in recipients))
    return {**one, "sender": one["sender"] or "<>", "to": [each["address"] for each in recipients], "state": states}


@app.command("refused")
@wired
async def refused(
    session: Session,
    *,
    to: Annotated[str | None, typer.Option(help="Only to this address.")] = None,
    peer: Annotated[str | None, typer.Option(help="Only from this IP address.")] = None,
    since: Since = None,
    until: Since = None,
    foreign: Annotated[bool, typer.Option("--foreign", help="For domains that are nobody's here.")] = False,
    limit: Limit = 20,
) -> None:
    """List what was refused in the session, newest first."""
    async with session.client() as client:
        found = await client.all_pages(
            "/v1/refusals",
            limit,
            recipient=to,
            peer=peer,
            since=since,
            until=until,
            foreign="true" if foreign else None,
        )
    if session.out.as_json:
        session.out.data(found)
        return
    session.out.table(_REFUSED, found, empty="Nothing was refused.")
