"""`posthouse account`: who has mailboxes here."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from posthouse.cli.output import Column, Output, count, one_line
from posthouse.cli.places import account_path
from posthouse.cli.session import Session, at_most, wired
from posthouse.cli.template import read
from posthouse.errors import Invalid

app = typer.Typer(help="Accounts: add, list, show, passwd, quota, set, remove.", no_args_is_help=True)
_COLUMNS = (
    Column("ADDRESS", "address"),
    Column("NAME", "name"),
    Column("STATE", "state"),
    Column("EMAILS", "emails", right=True),
    Column("USED", "used", right=True),
    Column("QUOTA", "quota", right=True),
    Column("SINCE", "created_at"),
)
_MOST_PASSWORD = 1024
Name = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Address or id.")]
Many = Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Repeat for several; empty: none.")]


@app.command("add")
@wired
async def add(
    session: Session,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="At a domain of `posthouse mail-domain`.")],
    *,
    name: Annotated[str, typer.Option(help="Of the person.")] = "",
    quota: Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 5GB; 0 for none.")] = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for a password, or read it from a pipe.")] = False,
) -> None:
    """Add an account with its mailboxes."""
    body: dict[str, Any] = {"address": address, "name": name}
    if quota is not None:
        body["quota"] = size(quota)
    if password:
        body["password"] = ask_password()
    async with session.client() as client:
        made = await client.post("/v1/accounts", body)
    view(session.out, made)
    if not password:
        session.out.hint(f"Nobody can log in with a password yet: posthouse account passwd {one_line(address)}")


@app.command("list")
@wired
async def list_(
    session: Session,
    domain: Annotated[str | None, typer.Option(help="Only of this domain.")] = None,
    limit: Annotated[int, at_most(1_000_000)] = 100,
) -> None:
    """List accounts, by address."""
    async with session.client() as client:
        found = await client.pages("/v1/accounts", limit, domain=domain)
    session.out.listed(
        found,
        _COLUMNS,
        empty="There are no accounts; `posthouse account add ADDRESS` adds one.",
        row=lambda one: {**one, "used": shown(one["used"]), "quota": shown(one["quota"], none="-")},
    )


@app.command("show")
@wired
async def show(session: Session, account: Name) -> None:
    """Show an account with its settings."""
    async with session.client() as client:
        view(session.out, await client.get(account_path(account)))


@app.command("passwd")
@wired
async def passwd(
    session: Session,
    account: Name,
    none: Annotated[bool, typer.Option("--none", help="Nobody can log in with a password.")] = False,
) -> None:
    """Set the password, asked for or read from a pipe; it never stands on the command line."""
    secret = None if none else ask_password()
    async with session.client() as client:
        await client.patch(account_path(account), {"password": secret})
    now = "no password works" if secret is None else "the new password is set"
    session.out.done({"account": account, "password": secret is not None}, f"{account}: {now}.")


@app.command("quota")
@wired
async def quota(
    session: Session, account: Name, limit: Annotated[str, typer.Argument(metavar="SIZE", help="Such as 5GB; 0: none.")]
) -> None:
    """Set how much mail it may hold."""
    async with session.client() as client:
        view(session.out, await client.patch(account_path(account), {"quota": size(limit)}))


@app.command("set")
@wired
async def set_(
    session: Session,
    account: Name,
    *,
    name: Annotated[str | None, typer.Option(help="Of the person.")] = None,
    state: Annotated[str | None, typer.Option(help="active or disabled.")] = None,
    allow: Many = None,
    block: Many = None,
    forward: Many = None,
    keep: Annotated[bool | None, typer.Option("--keep/--no-keep", help="Keep what is forwarded.")] = None,
    rules: Annotated[Path | None, typer.Option(metavar="FILE", help="Filter rules: a JSON list.")] = None,
    vacation: Annotated[str | None, typer.Option(metavar="TEXT", help="Answer mail with this; empty: no more.")] = None,
) -> None:
    """Change its name, state, filter rules, forwarding, lists or vacation answer."""
    settings: dict[str, Any] = {
        key: [one for one in value if one]
        for key, value in (("allow", allow), ("block", block), ("forward", forward))
        if value is not None
    }
    if keep is not None:
        settings["keep"] = keep
    if rules is not None:
        settings["rules"] = _json(rules)
    if vacation is not None:
        settings["vacation"] = {"text": vacation} if vacation else None
    body = {key: value for key, value in (("name", name), ("state", state), ("settings", settings)) if value}
    async with session.client() as client:
        view(session.out, await client.patch(account_path(account), body))


@app.command("remove")
@wired
async def remove(
    session: Session, account: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Remove an account and all of its mail, for good."""
    async with session.client() as client:
        found = await client.get(account_path(account))
        if not yes:
            typer.confirm(
                f"Remove {found['address']} with its {count(found['emails'], 'email')} for good?", abort=True, err=True
            )
        await client.delete(account_path(account))
    session.out.done({"account": account, "removed": True}, f"{found['address']} is removed.")


def view(out: Output, account: dict[str, Any]) -> None:
    if out.as_json:
        out.data(account)
        return
    settings: dict[str, Any] = account["settings"]
    rules: list[dict[str, Any]] = settings["rules"]
    out.facts(
        [
            *((name, account.get(name)) for name in ("address", "name", "id", "state", "emails")),
            ("used", f"{shown(account['used'])} of {shown(account['quota'], none='any number')}"),
            *((name, settings.get(name)) for name in ("allow", "block", "forward")),
            ("kept here", "no" if settings["forward"] and not settings["keep"] else None),
            ("rules", [rule.get("name") or "unnamed" for rule in rules]),
            ("vacation", (settings["vacation"] or {}).get("text")),
        ]
    )


def ask_password() -> str:
    """From the terminal, twice; from a pipe, its first line.

    :raises Invalid: code `password_mismatch`.
    """
    if not sys.stdin.isatty():
        return sys.stdin.readline(_MOST_PASSWORD + 2).rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != first:
        raise Invalid("The two are not the same; nothing was changed", code="password_mismatch")
    return first


def size(text: str) -> int:
    """Octets of `5GB`."""
    from posthouse.config.units import octets  # noqa: PLC0415 - with all the settings

    try:
        found = octets(text)
    except ValueError as wrong:
        raise typer.BadParameter(f"{text}: {wrong}") from None
    assert isinstance(found, int)
    return found


def shown(count: int, *, none: str = "0") -> str:
    """Octets for people: `6.1 MB`."""
    if not count:
        return none
    for scale, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def _json(path: Path) -> Any:
    try:
        return json.loads(read(path, "--rules") or "")
    except ValueError as wrong:
        raise typer.BadParameter(f"--rules {path}: no JSON: {wrong}") from None
