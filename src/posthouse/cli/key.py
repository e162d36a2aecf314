"""`posthouse key`: API keys. A secret is shown once, when it is made."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from posthouse.cli.output import Column
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)
_COLUMNS = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("ENDS IN", "hint"),
    Column("SCOPES", "scopes"),
    Column("DOMAIN", "domain"),
    Column("CREATED", "created_at"),
    Column("LAST USED", "last_used_at"),
    Column("STATE", "state"),
)


@app.command("create")
@wired
async def create(
    session: Session,
    *,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do (send, read, templates, domains, …); repeat. Default: send and read."),
    ] = None,
    domain: Annotated[str | None, typer.Option(help="The key may send from this domain only.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339 time it ends.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="ID", help="For another tenant (operator).")] = None,
) -> None:
    """Make a key and show its secret, this once."""
    body: dict[str, Any] = {"name": name, "scopes": scope or ["send", "read"]}
    body |= {field: value for field, value in (("domain", domain), ("expires_at", expires)) if value}
    async with session.client() as client:
        made = await client.post(f"/v1/tenants/{quote(tenant, safe='')}/keys" if tenant else "/v1/keys", body)
    if session.out.as_json:
        session.out.data(made)
        return
    session.out.say(made["secret"], style="bold")
    session.out.hint(f"{made['id']}: keep this secret, it is not shown again.")


@app.command("list")
@wired
async def list_(session: Session, limit: Annotated[int, at_most(10_000)] = 100) -> None:
    """List the keys, without secrets."""
    async with session.client() as client:
        keys = await client.pages("/v1/keys", limit)
    session.out.listed(
        keys,
        _COLUMNS,
        empty="There are no keys; `posthouse key create NAME` makes one.",
        row=lambda key: {**key, "state": "revoked" if key.get("revoked_at") else "active"},
    )


@app.command("revoke")
@wired
async def revoke(session: Session, id: Annotated[str, typer.Argument(help="key_…")]) -> None:  # noqa: A002 - the API's name
    """End a key at once and for good."""
    async with session.client() as client:
        await client.delete(f"/v1/keys/{quote(id, safe='')}")
    session.out.done({"id": id, "revoked": True}, f"{id} is revoked.")
