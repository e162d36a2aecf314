"""`posthouse alias`: addresses that lead to others."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from posthouse.cli.output import Column, one_line
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(help="Addresses that lead to others: add, list, remove.", no_args_is_help=True)
_COLUMNS = (
    Column("ADDRESS", "address"),
    Column("KIND", "kind"),
    Column("LEADS TO", "targets"),
    Column("SINCE", "created_at"),
)
Address = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="sales@example.com; @example.com for all that nobody has.")
]


@app.command("add")
@wired
async def add(
    session: Session,
    address: Address,
    targets: Annotated[list[str], typer.Argument(metavar="TARGET…", help="Addresses, here or elsewhere.")],
) -> None:
    """Let an address lead to others. One that is there gets these targets instead."""
    async with session.client() as client:
        made = await client.post("/v1/aliases", {"address": address, "targets": targets})
    session.out.done(made, f"{one_line(made['address'])} ({made['kind']}) leads to {', '.join(made['targets'])}.")


@app.command("list")
@wired
async def list_(session: Session, limit: Annotated[int, at_most(1_000_000)] = 100) -> None:
    """List aliases, groups and catch-alls."""
    async with session.client() as client:
        found = await client.pages("/v1/aliases", limit)
    session.out.listed(found, _COLUMNS, empty="There are no aliases.")


@app.command("remove")
@wired
async def remove(session: Session, address: Address) -> None:
    """Take mail for this address no more."""
    async with session.client() as client:
        await client.delete(f"/v1/aliases/{quote(address, safe='@')}")
    session.out.done({"address": address, "removed": True}, f"{address} is removed.")
