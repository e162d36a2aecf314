"""`posthouse template`: versions of content; one is published."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from posthouse.cli.output import Column, Output
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(help="Templates: list, create, update, show, publish, preview, remove.", no_args_is_help=True)
_COLUMNS = (
    Column("NAME", "name"),
    Column("PUBLISHED", "published_version", right=True),
    Column("LATEST", "latest_version", right=True),
    Column("CREATED", "created_at"),
    Column("UPDATED", "updated_at"),
)
_VERSIONS = (Column("VERSION", "version", right=True), Column("SUBJECT", "subject"), Column("CREATED", "created_at"))
_MAX_PART = 10_000_000  # the API's own bounds are narrower; this keeps a mistaken file out of memory

Name = Annotated[str, typer.Argument(metavar="NAME")]
Subject = Annotated[str, typer.Option(help="Subject, with {{ variables }}.")]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="HTML part.")]
Text = Annotated[Path | None, typer.Option(metavar="FILE", help="Text part; derived from the HTML when missing.")]
Publish = Annotated[bool, typer.Option("--publish/--draft", help="Publish it at once.")]


def _path(name: str, *more: str) -> str:
    return "/".join(["/v1/templates", quote(name, safe=""), *more])


def read(path: Path | None, option: str) -> str | None:
    """The text of a file an option names.

    :raises BadParameter: unreadable, too large or not UTF-8.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PART + 1)
        if len(data) > _MAX_PART:
            raise typer.BadParameter(f"{option} {path} is larger than {_MAX_PART} bytes")
        return data.decode()
    except OSError as wrong:
        raise typer.BadParameter(f"{option} {path}: {wrong.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{option} {path} is not UTF-8 text") from None


def variables(pairs: list[str] | None, file: Path | None) -> dict[str, Any]:
    """`--var NAME=VALUE` over `--vars FILE`. A value that is JSON is taken as JSON.

    :raises BadParameter:
    """
    given: dict[str, Any] = {}
    if (text := read(file, "--vars")) is not None:
        try:
            loaded: Any = json.loads(text)
        except ValueError as wrong:
            raise typer.BadParameter(f"--vars {file} is not JSON: {wrong}") from None
        if not isinstance(loaded, dict):
            raise typer.BadParameter(f"--vars {file} needs a JSON object")
        given |= loaded  # pyright: ignore[reportUnknownArgumentType] - any JSON
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--var {pair}: write NAME=VALUE")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    return given


def _content(subject: str, html: Path | None, text: Path | None) -> dict[str, Any]:
    if html is None and text is None:
        raise typer.BadParameter("give --html, --text or both")
    parts = {"subject": subject, "html": read(html, "--html"), "text": read(text, "--text")}
    return {name: value for name, value in parts.items() if value is not None}


@app.command("list")
@wired
async def list_(session: Session, limit: Annotated[int, at_most(10_000)] = 100) -> None:
    """List the templates."""
    async with session.client() as client:
        found = await client.pages("/v1/templates", limit)
    session.out.listed(found, _COLUMNS, empty="There are no templates; `posthouse template create NAME` makes one.")


@app.command("create")
@wired
async def create(
    session: Session, *, name: Name, subject: Subject, html: Html = None, text: Text = None, publish: Publish = True
) -> None:
    """Make a template with its first version."""
    content = _content(subject, html, text)
    async with session.client() as client:
        made = await client.post("/v1/templates", {"name": name, "publish": publish, **content})
    _told(session.out, made, name, 1, publish)


@app.command("update")
@wired
async def update(
    session: Session, *, name: Name, subject: Subject, html: Html = None, text: Text = None, publish: Publish = False
) -> None:
    """Add a version; `--publish` makes it the one that is sent."""
    content = _content(subject, html, text)
    async with session.client() as client:
        made = await client.post(_path(name, "versions"), {"publish": publish, **content})
    _told(session.out, made, name, int(made["version"]), publish)


def _told(out: Output, made: Any, name: str, version: int, published: bool) -> None:
    if out.as_json:
        out.data(made)
        return
    out.say(f"{name} version {version}{' is published' if published else ', not published'}.")
    for warning in made.get("warnings") or ():
        out.hint(f"Note: {warning}")


@app.command("show")
@wired
async def show(session: Session, name: Name) -> None:
    """Show a template and its versions."""
    async with session.client() as client:
        found = await client.get(_path(name))
    if session.out.as_json:
        session.out.data(found)
        return
    session.out.facts((column.title.lower(), found.get(column.key)) for column in _COLUMNS)
    session.out.say("")
    session.out.table(_VERSIONS, found.get("versions") or (), empty="It has no versions.")


@app.command("publish")
@wired
async def publish_(session: Session, name: Name, version: Annotated[int, typer.Argument(min=1)]) -> None:
    """Make a version the one that new messages get."""
    async with session.client() as client:
        made = await client.post(_path(name, "publish"), {"version": version})
    _told(session.out, made, name, version, True)


@app.command("preview")
@wired
async def preview(
    session: Session,
    *,
    name: Name,
    var: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable; repeat.")] = None,
    vars_: Annotated[Path | None, typer.Option("--vars", metavar="FILE", help="Variables as a JSON object.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Default: the published one.")] = None,
    part: Annotated[str | None, typer.Option(help="Print only subject, html or text, as it is.")] = None,
) -> None:
    """Fill a template with variables and show the result."""
    body: dict[str, Any] = {"variables": variables(var, vars_)} | ({"version": version} if version else {})
    async with session.client() as client:
        filled = await client.post(_path(name, "preview"), body)
    if session.out.as_json:
        session.out.data(filled)
        return
    if part is not None:
        if part not in {"subject", "html", "text"}:
            raise typer.BadParameter("--part is subject, html or text")
        sys.stdout.write((filled.get(part) or "") + "\n")
        return
    for title in ("subject", "text", "html"):
        session.out.say(title.upper(), style="bold")
        session.out.say((filled.get(title) or "") + "\n")


@app.command("remove")
@wired
async def remove(session: Session, name: Name) -> None:
    """Remove a template; messages already accepted keep their version."""
    async with session.client() as client:
        await client.delete(_path(name))
    session.out.done({"name": name, "removed": True}, f"{name} is removed.")
