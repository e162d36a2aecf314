"""`posthouse ready`: what `/readyz` of the process with these settings says, as an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from posthouse.cli.output import one_line
from posthouse.cli.session import Session, wired
from posthouse.errors import Misconfigured

if TYPE_CHECKING:
    from posthouse.config import Settings

_SECONDS = 4.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on


@wired
async def command(session: Session) -> None:
    """Ask the server of these settings whether it is ready: exit code 0, or 1 and what is missing. For containers."""
    import httpx  # noqa: PLC0415 - this command alone

    url = f"{session.url.rstrip('/') if session.url else _own(session.configuration().settings)}/readyz"
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
            answer = await client.get(url)
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        found, status = {"status": "away", "checks": {url: type(error).__name__}}, 0
    else:
        status = answer.status_code
    if session.out.as_json:
        session.out.data(found)
    else:
        session.out.say(one_line(found.get("status", "")))
        for name, result in found.get("checks", {}).items():
            session.out.say(f"{one_line(name)}: {one_line(result)}")
    if status != 200:
        raise typer.Exit(1)


def _own(settings: Settings) -> str:
    """:raises Misconfigured: this process listens nowhere."""
    port = settings.http.health_port or (settings.http.port if "api" in settings.roles else 0)
    if not port:
        raise Misconfigured("A process without the role api listens only where http.health_port says; or give --url.")
    host = _ANYWHERE.get(settings.http.host, settings.http.host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
