"""`posthouse suppression`: addresses that are not written to."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from posthouse.cli.output import Column
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(help="Addresses that are not written to: add, list, remove.", no_args_is_help=True)
_COLUMNS = (
    Column("ADDRESS", "address"),
    Column("REASON", "reason"),
    Column("STREAM", "stream"),
    Column("ADDED BY", "source"),
    Column("SINCE", "created_at"),
    Column("UNTIL", "expires_at"),
    Column("EVIDENCE", "evidence"),
)
Stream = Annotated[str | None, typer.Option(help="Only in this stream; default: in all.")]


@app.command("add")
@wired
async def add(
    session: Session,
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS…")],
    reason: Annotated[str, typer.Option(help="manual, bounce, complaint or unsubscribe.")] = "manual",
    stream: Stream = None,
    note: Annotated[str | None, typer.Option(help="Kept as the evidence.")] = None,
) -> None:
    """Stop writing to these addresses."""
    extra = {name: value for name, value in (("stream", stream), ("evidence", note)) if value}
    entries = [{"address": address, "reason": reason, **extra} for address in addresses]
    async with session.client() as client:
        made = await client.post("/v1/suppressions", entries[0] if len(entries) == 1 else {"suppressions": entries})
    session.out.done(made, f"Suppressed: {', '.join(addresses)}.")


@app.command("list")
@wired
async def list_(
    session: Session,
    address: Annotated[str | None, typer.Option(help="Only this address.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only for this reason.")] = None,
    limit: Annotated[int, at_most(100_000)] = 100,
) -> None:
    """List suppressed addresses and why."""
    async with session.client() as client:
        found: list[dict[str, Any]] = await client.pages("/v1/suppressions", limit, address=address, reason=reason)
    session.out.listed(found, _COLUMNS, empty="Nothing is suppressed.")


@app.command("remove")
@wired
async def remove(
    session: Session, address: Annotated[str, typer.Argument(metavar="ADDRESS")], stream: Stream = None
) -> None:
    """Write to this address again. A complaint stays."""
    query = f"?stream={quote(stream, safe='')}" if stream else ""
    async with session.client() as client:
        await client.delete(f"/v1/suppressions/{quote(address, safe='@')}{query}")
    session.out.done({"address": address, "removed": True}, f"{address} is written to again.")
