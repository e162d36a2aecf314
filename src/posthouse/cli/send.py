"""`posthouse send`: one mail from flags, files and standard input."""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posthouse.cli import message as messages
from posthouse.cli.output import Output, one_line
from posthouse.cli.server import IN_PROCESS
from posthouse.cli.session import Session, wired
from posthouse.cli.template import read, variables

if TYPE_CHECKING:
    from posthouse.cli.client import Client

_FINAL = {"delivered", "bounced", "suppressed", "canceled", "failed"}
_SERVER_LIMIT = 15.0  # seconds that `--wait` gives a server to appear
_MAX_TEXT = 10_000_000
_MAX_ATTACHMENT = 50_000_000
Many = list[str] | None


@wired
async def command(
    session: Session,
    *,
    sender: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="Ann <ann@example.com>")],
    to: Annotated[list[str], typer.Option(metavar="ADDRESS", help="Repeat for several.")],
    cc: Annotated[Many, typer.Option(metavar="ADDRESS")] = None,
    bcc: Annotated[Many, typer.Option(metavar="ADDRESS")] = None,
    reply_to: Annotated[Many, typer.Option(metavar="ADDRESS")] = None,
    subject: Annotated[str | None, typer.Option(help="Needed without --template.")] = None,
    text: Annotated[str | None, typer.Option(help="Text part; - reads standard input.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML part.")] = None,
    template: Annotated[str | None, typer.Option(metavar="NAME", help="Instead of subject and parts.")] = None,
    template_version: Annotated[int | None, typer.Option(min=1, help="Instead of the published one.")] = None,
    var: Annotated[Many, typer.Option(metavar="NAME=VALUE", help="For the template; repeat.")] = None,
    vars_: Annotated[Path | None, typer.Option("--vars", metavar="FILE", help="Variables as a JSON object.")] = None,
    attach: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Repeat for several.")] = None,
    header: Annotated[Many, typer.Option(metavar="NAME=VALUE", help="A header field of your own; repeat.")] = None,
    stream: Annotated[str | None, typer.Option(help="Default: transactional.")] = None,
    tag: Annotated[Many, typer.Option(help="Repeat for several.")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Not before this RFC 3339 time.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(metavar="KEY", help="The same key never sends twice.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end; exit code 1 if not delivered.")] = False,
    wait_limit: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Stop waiting after this.")] = 300.0,
) -> None:
    """Send a mail. Without --text, --html and --template, the text is read from standard input."""
    body: dict[str, Any] = {
        "from": sender,
        "to": to,
        "cc": cc,
        "bcc": bcc,
        "reply_to": reply_to,
        "subject": subject,
        "text": _text(text, needed=html is None and template is None),
        "html": read(html, "--html"),
        "template": template,
        "template_version": template_version,
        "variables": variables(var, vars_),
        "attachments": [_attachment(path) for path in attach or ()],
        "headers": dict(_pair(pair) for pair in header or ()),
        "stream": stream,
        "tags": tag,
        "send_at": at,
    }
    given = {name: value for name, value in body.items() if value not in (None, [], {})}
    async with session.client() as client:
        answer = await client.post("/v1/messages", given, idempotency_key=idempotency_key)
        if wait and client.where != IN_PROCESS:
            await _follow(session.out, client, answer["id"], wait_limit)
            return
    if wait:
        await _follow_later(session, answer["id"], wait_limit)
        return
    _accepted(session.out, client, answer)


def _text(given: str | None, *, needed: bool) -> str | None:
    if given == "-" or (given is None and needed):
        if sys.stdin.isatty():
            sys.stderr.write("Type the text; end with Ctrl-D.\n")
        data = sys.stdin.buffer.read(_MAX_TEXT + 1)
        if len(data) > _MAX_TEXT:
            raise typer.BadParameter(f"standard input is larger than {_MAX_TEXT} bytes")
        return data.decode(errors="replace")
    return given


def _attachment(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_ATTACHMENT + 1)
    except OSError as wrong:
        raise typer.BadParameter(f"--attach {path}: {wrong.strerror}") from None
    if len(data) > _MAX_ATTACHMENT:
        raise typer.BadParameter(f"--attach {path} is larger than {_MAX_ATTACHMENT} bytes")
    kind, encoding = mimetypes.guess_type(path.name)
    content_type = kind if kind and not encoding else "application/octet-stream"
    return {"filename": path.name, "content_type": content_type, "content": base64.b64encode(data).decode()}


def _pair(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--header {pair}: write NAME=VALUE")
    return name, value


def _accepted(out: Output, client: Client, answer: dict[str, Any]) -> None:
    if out.as_json:
        out.data(answer)
        return
    out.say(f"{answer['id']} {answer['status']}")
    if client.where == IN_PROCESS:
        out.hint("It is stored, and is sent when `posthouse serve` runs.")
    else:
        out.hint(f"Follow it: posthouse explain {answer['id']}")


async def _follow_later(session: Session, id: str, limit: float) -> None:  # noqa: A002 - the API's name
    """The mail was stored with no server running. One may be starting (`posthouse serve &` a
    moment ago): it gets a while to answer, with the database free for it."""
    from posthouse.cli.client import appeared  # noqa: PLC0415 - as in `Session.client`

    session.out.hint(f"{id} is stored. Waiting for `posthouse serve` on this data directory.")
    if await appeared(session.configuration().settings, min(limit, _SERVER_LIMIT)) is None:
        session.out.hint("No server has started. The mail goes out when `posthouse serve` runs.")
        raise typer.Exit(1)
    async with session.client() as client:
        await _follow(session.out, client, id, limit)


async def _follow(out: Output, client: Client, id: str, limit: float) -> None:  # noqa: A002 - the API's name
    """Until every recipient is in a final state; exit code 1 unless all were delivered."""
    end, pause = time.monotonic() + limit, 0.05
    seen: dict[str, str] = {}
    while True:
        message = await client.get(f"/v1/messages/{id}")
        states = {one["address"]: one["status"] for one in message["recipients"]}
        for address, state in states.items():
            if seen.get(address) != state:
                out.hint(f"{address}: {state}")
        seen = states
        done = set(states.values()) <= _FINAL
        if done or time.monotonic() >= end:
            break
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 2.0)
    messages.view(out, message)
    if not done:
        out.hint(f"Not at its end after {limit:g} s. It goes on without us: posthouse explain {id}")
    if set(states.values()) != {"delivered"}:
        await _reason(out, client, id)
        raise typer.Exit(1)


async def _reason(out: Output, client: Client, id: str) -> None:  # noqa: A002 - the API's name
    """The end of the story, for people: a table of states says what, not why."""
    if out.as_json:
        return
    told = await client.get(f"/v1/messages/{id}/explain")
    endings = {one.get("recipient"): one["text"] for one in told["story"]}
    for text in [endings[key] for key in endings if key is not None or len(endings) == 1]:
        out.hint(one_line(text))
    out.hint(f"All of it: posthouse explain {id}")
