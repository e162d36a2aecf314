"""`posthouse serve`: the server, until SIGTERM or SIGINT."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.output import Output
from posthouse.cli.server import KEY_FILE, SERVE_FILE, App, announce, announced, load_app
from posthouse.cli.session import Session, app_for_tests, wired
from posthouse.errors import Conflict, Misconfigured

if TYPE_CHECKING:
    from posthouse.config import Settings

_LABELS = {
    "http.host": "--host",
    "http.port": "--port",
    "roles": "--roles",
    "hostname": "--hostname",
    "records.url": "--records",
    "log.level": "--log-level",
    "log.format": "--log-format",
    "routes": "--sink",
}


@wired
def command(
    session: Session,
    *,
    roles: Annotated[
        str | None, typer.Option(help="Comma-separated: api, render, send, schedule, mx, store, index.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any.")] = None,
    hostname: Annotated[str | None, typer.Option(help="Our name in EHLO.")] = None,
    records: Annotated[str | None, typer.Option(help="sqlite:///PATH or postgresql://…")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, json or console.")] = None,
    sink: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Deliver everything there, for development.")
    ] = None,
) -> None:
    """Run the API, the mail gateway and every stage. SIGTERM and Ctrl-C finish what is in flight."""
    routes = [{"domains": ["*"], "kind": "static", "hosts": [sink]}] if sink else None
    given = (host, port, roles, hostname, records, log_level, log_format, routes)
    settings = session.configuration(dict(zip(_LABELS, given, strict=True)), _LABELS).settings
    if not settings.secret_key_file.exists() and not (settings.data_dir / KEY_FILE).exists():
        raise Misconfigured(
            f"{settings.data_dir} is not set up yet. Run `posthouse init` first.", code="not_initialised"
        )
    import uvloop  # noqa: PLC0415 - `--help` pays for nothing of this

    from posthouse.cli import logs  # noqa: PLC0415

    app = app_for_tests[0] if app_for_tests else load_app()
    logs.configure(settings.log.level, settings.log.format)
    uvloop.run(_serve(session.out, settings, app))


async def _serve(out: Output, settings: Settings, app: App) -> None:
    if settings.embedded and announced(settings):
        await _refuse_second(settings)
    async with app.running(settings) as running:
        path = announce(settings, {"url": running.url, "pid": os.getpid()}) if running.url else None
        roles = ", ".join(settings.roles)
        if out.as_json:
            out.data({"url": running.url, "pid": os.getpid(), "roles": settings.roles})
        else:
            where = f" at {running.url}" if running.url else ""
            out.hint(f"Posthouse serves{where} ({roles}). Ctrl-C stops it.")
        try:
            await running.wait()
        finally:
            if path is not None:
                _withdraw(path)
        out.hint("Stopping: finishing what is in flight.")


async def _refuse_second(settings: Settings) -> None:
    """:raises Conflict: another process serves this data directory."""
    from posthouse.cli.client import serving  # noqa: PLC0415 - rarely needed, and long to import

    if url := await serving(settings):
        raise Conflict(
            f"Another `posthouse serve` on {settings.data_dir} answers at {url}. Stop it first; "
            "several processes need PostgreSQL (records.url).",
            code="already_running",
        )


def _withdraw(path: Path) -> None:
    """Removes `serve.json` unless another process has put its own there."""
    try:
        if json.loads(path.read_text()).get("pid") == os.getpid():
            path.unlink()
    except (OSError, ValueError):
        return


__all__ = ["SERVE_FILE", "command"]
