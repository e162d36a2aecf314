"""`posthouse mail-domain`: domains that mail is received for."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from posthouse.cli.account import shown, size
from posthouse.cli.output import Column, Output, one_line
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(help="Domains to receive mail for: add, list, show, set, remove.", no_args_is_help=True)
_COLUMNS = (
    Column("DOMAIN", "name"),
    Column("SPAM", "spam"),
    Column("DMARC", "dmarc"),
    Column("GREYLIST", "greylist"),
    Column("TAG", "plus"),
    Column("QUOTA", "quota", right=True),
    Column("ALL", "quota_all", right=True),
    Column("SINCE", "created_at"),
)
Name = Annotated[str, typer.Argument(metavar="DOMAIN", help="Such as example.com.")]


def _path(name: str) -> str:
    return f"/v1/mail-domains/{quote(name, safe='')}"


@app.command("add")
@wired
async def add(session: Session, name: Name) -> None:
    """Receive mail for a domain."""
    async with session.client() as client:
        made = await client.post("/v1/mail-domains", {"name": name})
    _show(session.out, made)
    session.out.hint(f"Next: posthouse account add ANYBODY@{one_line(made['name'])}, then point its MX record here.")


@app.command("list")
@wired
async def list_(session: Session, limit: Annotated[int, at_most(100_000)] = 100) -> None:
    """List the domains that mail is received for."""
    async with session.client() as client:
        found = await client.pages("/v1/mail-domains", limit)
    session.out.listed(
        found, _COLUMNS, empty="Mail is received for no domain; `posthouse mail-domain add DOMAIN`.", row=_row
    )


@app.command("show")
@wired
async def show(session: Session, name: Name) -> None:
    """Show how its mail is treated."""
    async with session.client() as client:
        _show(session.out, await client.get(_path(name)))


@app.command("set")
@wired
async def set_(
    session: Session,
    name: Name,
    *,
    spam: Annotated[str | None, typer.Option(help="What the filter takes for spam: junk or refuse.")] = None,
    dmarc: Annotated[str | None, typer.Option(help="Mail that fails DMARC: follow, junk or accept.")] = None,
    greylist: Annotated[bool | None, typer.Option("--greylist/--no-greylist", help="Strangers come twice.")] = None,
    plus: Annotated[str | None, typer.Option(metavar="CHARACTER", help="Before a tag; empty: no tags.")] = None,
    quota: Annotated[str | None, typer.Option(metavar="SIZE", help="Of a new account; 0: none.")] = None,
    quota_all: Annotated[str | None, typer.Option(metavar="SIZE", help="Of all accounts together; 0: none.")] = None,
) -> None:
    """Change how its mail is treated."""
    given = {
        "spam": spam,
        "dmarc": dmarc,
        "greylist": greylist,
        "plus": plus,
        "quota": None if quota is None else size(quota),
        "quota_all": None if quota_all is None else size(quota_all),
    }
    settings = {key: value for key, value in given.items() if value is not None}
    async with session.client() as client:
        _show(session.out, await client.patch(_path(name), {"settings": settings}))


@app.command("remove")
@wired
async def remove(session: Session, name: Name) -> None:
    """Receive no more mail for it; its accounts and aliases have to go first."""
    async with session.client() as client:
        await client.delete(_path(name))
    session.out.done({"name": name, "removed": True}, f"Mail for {name} is received no more.")


def _row(domain: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = domain["settings"]
    quotas = {name: shown(settings[name], none="-") for name in ("quota", "quota_all")}
    return {**domain, **settings, **quotas}


def _show(out: Output, domain: dict[str, Any]) -> None:
    if out.as_json:
        out.data(domain)
        return
    row = _row(domain)
    tag = f"{row['plus']} (anybody{row['plus']}tag@)" if row["plus"] else "none"
    out.facts(
        [
            *((name, row[name]) for name in ("name", "spam", "dmarc", "greylist")),
            ("tags", tag),
            ("quota", f"of a new account {row['quota']}, of all together {row['quota_all']}"),
        ]
    )
