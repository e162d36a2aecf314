"""`posthouse init`: from nothing to a first key. Safe to run again: what is there stays."""

from __future__ import annotations

import os
import shlex
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posthouse.cli import domain as domains
from posthouse.cli.server import KEY_FILE, App, Problem, load_app
from posthouse.cli.session import Session, app_for_tests, wired
from posthouse.errors import Misconfigured

if TYPE_CHECKING:
    from posthouse.cli.client import Client
    from posthouse.config import Settings

_FIRST_KEY = "first"
_SCOPES = ["send", "read", "templates", "domains", "suppressions", "streams", "mail"]
_STARTER = """\
# Settings of this Posthouse. `posthouse config` shows every one with its meaning.
# Variables (POSTHOUSE_HTTP__PORT) and flags go before what stands here.

{hostname}
# [http]
# port = 8025

# Hand all mail to a relay instead of delivering it to each MX:
# [[routes]]
# domains = ["*"]
# kind = "relay"
# hosts = ["smtp.example.com:587"]
# tls = "required"
# username = "…"
# password = "…"
"""


@wired
async def command(
    session: Session,
    tenant: Annotated[str, typer.Option(help="Name of the first tenant.")] = "default",
    domain: Annotated[str | None, typer.Option(help="A domain to send from; its DNS records are printed.")] = None,
    hostname: Annotated[str | None, typer.Option(help="Our name in EHLO, kept in the settings file.")] = None,
) -> None:
    """Set up the data directory, the keys, the first tenant and its first API key."""
    configuration = session.configuration({"hostname": hostname}, {"hostname": "--hostname"})
    settings = configuration.settings
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if configuration.file is None:
        _write(settings.data_dir / "posthouse.toml", _STARTER.format(hostname=_hostname_line(hostname)), mode=0o600)
    app = app_for_tests[0] if app_for_tests else load_app()
    fresh = await _operator(session, settings, app, tenant)
    async with _own(session, settings, app) as client:
        made = await _first_key(client)
        shown = await _domain(client, domain)
    _report(session, settings, fresh, made, shown)


def _hostname_line(hostname: str | None) -> str:
    return f'hostname = "{hostname}"\n' if hostname else '# hostname = "mail.example.com"\n'


def _own_key(settings: Settings) -> str:
    return (settings.data_dir / KEY_FILE).read_text().strip()


async def _operator(session: Session, settings: Settings, app: App, tenant: str) -> bool:
    """Whether anything had to be made: a missing or refused operator key is replaced."""
    path = settings.data_dir / KEY_FILE
    if path.is_file() and await _works(session, settings, app):
        return False
    _write(path, await app.bootstrap(settings, tenant=tenant) + "\n", mode=0o600)
    return True


def _own(session: Session, settings: Settings, app: App) -> AbstractAsyncContextManager[Client]:
    """With the key of this data directory, whatever the environment says."""
    from posthouse.cli.client import connect  # noqa: PLC0415 - as in `Session.client`

    return connect(settings, session.environment, key=_own_key(settings), app=app)


async def _works(session: Session, settings: Settings, app: App) -> bool:
    try:
        async with _own(session, settings, app) as client:
            await client.get("/v1/me")
    except Problem as problem:
        if problem.status == 401:
            return False
        raise
    except Misconfigured as wrong:
        if wrong.code == "not_initialised":
            return False
        raise
    return True


def _write(path: Path, text: str, *, mode: int) -> None:
    """All of the file or none of it, readable as `mode` says from its first moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


async def _first_key(client: Client) -> dict[str, Any] | None:
    """The first API key with its secret; None when there is one already."""
    keys = await client.pages("/v1/keys", 200)
    if any(key.get("name") == _FIRST_KEY for key in keys):
        return None
    return await client.post("/v1/keys", {"name": _FIRST_KEY, "scopes": _SCOPES})


async def _domain(client: Client, name: str | None) -> dict[str, Any] | None:
    if name is None:
        return None
    try:
        return await client.post("/v1/domains", {"name": name})
    except Problem as problem:
        if problem.status != 409:
            raise
        return await client.get(f"/v1/domains/{name}")


def _report(
    session: Session, settings: Settings, fresh: bool, key: dict[str, Any] | None, domain: dict[str, Any] | None
) -> None:
    out = session.out
    if out.as_json:
        out.data({"data_dir": str(settings.data_dir), "initialised": fresh, "key": key, "domain": domain})
        return
    out.say(f"{'Set up' if fresh else 'Already set up:'} {settings.data_dir}", style="bold")
    if key is not None:
        out.say(f"API key, shown this once: {key['secret']}")
    if domain is not None:
        domains.show(out, domain)
    beside = "" if session.data_dir is None else f" --data-dir {shlex.quote(str(session.data_dir))}"
    out.say("What next:")
    out.say(f"  posthouse serve{beside}".ljust(44) + "start the server")
    if domain is None:
        out.say(f"  posthouse domain add YOUR-DOMAIN{beside}".ljust(44) + "a domain to send from, and its DNS records")
    out.say(f"  posthouse send --help{beside and ''}".ljust(44) + "send a first mail")
