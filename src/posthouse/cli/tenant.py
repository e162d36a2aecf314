"""`posthouse tenant`: who sends, each with limits, keys and domains of their own."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from posthouse.cli.output import Column, Output
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(help="Tenants (needs an operator key): create, list, show, update.", no_args_is_help=True)
_COLUMNS = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("PER SECOND", "rate_per_second", right=True),
    Column("BURST", "burst", right=True),
    Column("A DAY", "daily_quota", right=True),
    Column("CREATED", "created_at"),
    Column("SUSPENDED", "suspended_at"),
)
Rate = Annotated[int | None, typer.Option("--rate", min=1, help="Messages a second.")]
Burst = Annotated[int | None, typer.Option(min=1, help="Messages at once.")]
Quota = Annotated[int | None, typer.Option(min=0, help="Messages a day; 0: no quota.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="ten_…")]


def _path(id: str) -> str:  # noqa: A002 - the API's name
    return f"/v1/tenants/{quote(id, safe='')}"


def _limits(rate: int | None, burst: int | None, quota: int | None) -> dict[str, Any]:
    given = {"rate_per_second": rate, "burst": burst, "daily_quota": quota}
    return {name: value for name, value in given.items() if value is not None}


@app.command("create")
@wired
async def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Unique name.")],
    rate: Rate = None,
    burst: Burst = None,
    daily_quota: Quota = None,
) -> None:
    """Make a tenant; `key create --tenant ID` then makes its first key."""
    async with session.client() as client:
        made = await client.post("/v1/tenants", {"name": name, **_limits(rate, burst, daily_quota)})
    _show(session.out, made)
    session.out.hint(f"Next: posthouse key create NAME --tenant {made['id']}")


@app.command("list")
@wired
async def list_(session: Session, limit: Annotated[int, at_most(10_000)] = 100) -> None:
    """List the tenants."""
    async with session.client() as client:
        tenants = await client.pages("/v1/tenants", limit)
    session.out.listed(tenants, _COLUMNS, empty="There are no tenants; run `posthouse init`.")


@app.command("show")
@wired
async def show(session: Session, id: Id) -> None:  # noqa: A002 - the API's name
    """Show one tenant."""
    async with session.client() as client:
        _show(session.out, await client.get(_path(id)))


@app.command("update")
@wired
async def update(
    session: Session,
    *,
    id: Id,  # noqa: A002 - the API's name
    rate: Rate = None,
    burst: Burst = None,
    daily_quota: Quota = None,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    suspend: Annotated[
        bool | None, typer.Option("--suspend/--resume", help="Refuse all its keys, or no longer.")
    ] = None,
) -> None:
    """Change a tenant's limits or name, or suspend it."""
    given = {"name": name, "suspended": suspend, **_limits(rate, burst, daily_quota)}
    change = {field: value for field, value in given.items() if value is not None}
    if not change:
        raise typer.BadParameter("say what to change, such as --rate 500")
    async with session.client() as client:
        _show(session.out, await client.patch(_path(id), change))


def _show(out: Output, tenant: dict[str, Any]) -> None:
    if out.as_json:
        out.data(tenant)
        return
    out.facts((column.title.lower(), tenant.get(column.key)) for column in _COLUMNS)
