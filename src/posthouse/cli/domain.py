"""`posthouse domain`: domains to send from, and the DNS records that make receivers believe it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from posthouse.cli.output import Column, Output, one_line
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(help="Domains to send from: add, list, show, check, rotate, remove.", no_args_is_help=True)
_COLUMNS = (
    Column("DOMAIN", "name"),
    Column("STATE", "state"),
    Column("VERIFIED", "verified_at"),
    Column("CHECKED", "checked_at"),
    Column("ADDED", "created_at"),
)
_CHECKS = (
    Column("RECORD", "purpose"),
    Column("", "state"),
    Column("NAME", "name"),
    Column("FOUND", "found"),
)
Name = Annotated[str, typer.Argument(metavar="DOMAIN", help="Such as example.com.")]


def _path(name: str, *more: str) -> str:
    return "/".join(["/v1/domains", quote(name, safe=""), *more])


@app.command("add")
@wired
async def add(session: Session, name: Name) -> None:
    """Add a domain: makes its DKIM keys and prints the DNS records to publish."""
    async with session.client() as client:
        made = await client.post("/v1/domains", {"name": name})
    _to_publish(session.out, made)


@app.command("list")
@wired
async def list_(session: Session, limit: Annotated[int, at_most(10_000)] = 100) -> None:
    """List the domains and their state."""
    async with session.client() as client:
        found = await client.pages("/v1/domains", limit)
    session.out.listed(found, _COLUMNS, empty="There are no domains; `posthouse domain add DOMAIN` adds one.")


@app.command("show")
@wired
async def show_(session: Session, name: Name) -> None:
    """Print the DNS records to publish, ready to copy."""
    async with session.client() as client:
        found = await client.get(_path(name))
    if session.out.as_json:
        session.out.data(found)
    else:
        show(session.out, found)


@app.command("check")
@wired
async def check(session: Session, name: Name) -> None:
    """Look the records up in DNS. Exit code 1 while a required one is missing."""
    async with session.client() as client:
        found = await client.post(_path(name, "verify"))
    verified = found.get("state") == "verified"
    if session.out.as_json:
        session.out.data(found)
    else:
        _checks(session.out, found)
    if not verified:
        raise typer.Exit(1)


@app.command("rotate")
@wired
async def rotate(session: Session, name: Name) -> None:
    """Make new DKIM keys; the old ones sign until the new ones are seen in DNS."""
    async with session.client() as client:
        made = await client.post(_path(name, "rotate"))
    _to_publish(session.out, made)


@app.command("remove")
@wired
async def remove(session: Session, name: Name) -> None:
    """Forget a domain and its keys; nothing can be sent from it any more."""
    async with session.client() as client:
        await client.delete(_path(name))
    session.out.done({"name": name, "removed": True}, f"{name} is removed.")


def _to_publish(out: Output, made: dict[str, Any]) -> None:
    if out.as_json:
        out.data(made)
        return
    show(out, made)
    out.hint(f"When they are published: posthouse domain check {one_line(made['name'])}")


def show(out: Output, domain: dict[str, Any]) -> None:
    """The records as lines of a zone file, each under a comment that says what it is for."""
    out.say(f"{domain['name']} ({domain['state']}). Publish these in its DNS:", style="bold")
    for record in domain.get("records") or ():
        needed = "required" if record.get("required", True) else "recommended"
        out.say("")
        out.say(f"; {one_line(record['purpose'])}, {needed}. {one_line(record.get('note', ''))}".rstrip(), style="dim")
        value = record.get("strings") or record["value"]
        out.say(f"{one_line(record['name']).rstrip('.')}. IN {one_line(record['type'])} {one_line(value)}")

    if host := _unfindable(domain):
        out.hint(
            f"The records name this machine {host}, which others cannot find. Before you publish them, set `hostname` "
            "in posthouse.toml to its full name, such as mail.example.com, and start `posthouse serve` again."
        )


def _unfindable(domain: dict[str, Any]) -> str | None:
    """Our own name in the records when it is no full one: what a fresh machine is called."""
    for record in domain.get("records") or ():
        if record.get("purpose") == "return-path":
            host = one_line(record["value"]).rpartition(" ")[2]
            return host if host and "." not in host else None
    return None


def _checks(out: Output, domain: dict[str, Any]) -> None:
    checks: list[dict[str, Any]] = list(domain.get("checks") or ())
    out.say(f"{domain['name']} is {domain['state']}.", style="bold")
    out.table(_CHECKS, ({**check, "state": _state(check)} for check in checks), empty="Nothing was checked.")
    for check in checks:
        if not check.get("ok"):
            out.say(f"{one_line(check['purpose'])}: expected {one_line(check.get('expected', ''))}")


def _state(check: dict[str, Any]) -> str:
    if check.get("ok") is None:
        return "no answer"
    return "ok" if check["ok"] else "missing" if check.get("required", True) else "not there"
