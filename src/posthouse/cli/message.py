"""`posthouse message` and `posthouse explain`: what became of a mail, and why."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from posthouse.cli import emails
from posthouse.cli.output import Column, Output, one_line
from posthouse.cli.session import Session, at_most, wired

app = typer.Typer(
    help="Messages that are sent (msg_…: list, show, explain, events, content, cancel, reschedule) and emails in "
    "mailboxes (show, search, move, flag).",
    no_args_is_help=True,
)
# `-draft` is a word that is not wanted, no option.
app.command("search", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})(
    wired(emails.search)
)
app.command("move")(wired(emails.move))
app.command("flag")(wired(emails.flag))
_LIST = (
    Column("MESSAGE", "id"),
    Column("STATUS", "status"),
    Column("TO", "to"),
    Column("SUBJECT", "subject"),
    Column("STREAM", "stream"),
    Column("CREATED", "created_at"),
)
_RECIPIENTS = (
    Column("RECIPIENT", "address"),
    Column("STATUS", "status"),
    Column("ATTEMPTS", "attempts", right=True),
    Column("NEXT", "next_attempt_at"),
    Column("LAST REPLY", "reply"),
)
_EVENTS = (
    Column("AT", "at"),
    Column("EVENT", "type"),
    Column("STAGE", "stage"),
    Column("RECIPIENT", "recipient"),
    Column("DATA", "data"),
)
_STORIES = {"inb_": "/v1/inbound", "rfs_": "/v1/refusals"}
_MICROSECONDS = len("2026-11-22T12:00:00.000000Z")
Id = Annotated[str, typer.Argument(metavar="MESSAGE", help="msg_…")]


def _path(id: str, *more: str) -> str:  # noqa: A002 - the API's name
    return "/".join(["/v1/messages", quote(id, safe=""), *more])


@app.command("list")
@wired
async def list_(
    session: Session,
    *,
    to: Annotated[str | None, typer.Option(help="Only to this address.")] = None,
    status: Annotated[str | None, typer.Option(help="Only in this state, e.g. bounced.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    stream: Annotated[str | None, typer.Option(help="Only of this stream.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339.")] = None,
    limit: Annotated[int, at_most(100_000)] = 20,
) -> None:
    """List messages, newest first."""
    async with session.client() as client:
        found = await client.pages(
            "/v1/messages", limit, to=to, status=status, tag=tag, stream=stream, since=since, until=until
        )
    if session.out.as_json:
        session.out.data(found)
        return
    rows = [{**one, "to": [party["address"] for party in one["recipients"]], "subject": _subject(one)} for one in found]
    session.out.table(_LIST, rows, empty="No message matches.")


def _subject(message: dict[str, Any]) -> object:
    """A templated message gets its subject when it is filled; until then its template stands for it."""
    template = message.get("template")
    return f"(template {template})" if template and not message.get("subject") else message.get("subject")


@app.command("show")
@wired
async def show(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="WHAT", help="msg_…, or an account.")],
    number: Annotated[int | None, typer.Argument(metavar="NUMBER", min=1, help="Of an email of the account.")] = None,
    *,
    raw: Annotated[bool, typer.Option("--raw", help="The email as it came, octet for octet.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="As --raw, behind the header fields that we add.")] = False,
    headers: Annotated[bool, typer.Option("--headers", help="With all header fields.")] = False,
    part: Annotated[str | None, typer.Option(metavar="ID", help="A part of the email, decoded.")] = None,
) -> None:
    """Show a message that is sent and the state of each recipient, or an email of an account."""
    if number is not None:
        await emails.show(session, what, number, raw=raw, trace=trace, headers=headers, part=part)
        return
    id = what  # noqa: A001 - the API's name
    async with session.client() as client:
        view(session.out, await client.get(_path(id)))


def view(out: Output, message: dict[str, Any]) -> None:
    if out.as_json:
        out.data(message)
        return
    names = ("id", "status", "from", "subject", "template", "template_version", "stream", "lane", "tags", "metadata")
    times = ("created_at", "send_at", "expires_at")
    out.facts((name.replace("_", " "), message.get(name)) for name in names + times)
    out.say("")
    out.table(_RECIPIENTS, map(_recipient, message["recipients"]), empty="It has no recipients.")


def _recipient(row: dict[str, Any]) -> dict[str, Any]:
    reply = row.get("reply")
    if not isinstance(reply, dict):
        return row
    words = (reply.get("code"), reply.get("enhanced"), reply.get("text"))  # pyright: ignore[reportUnknownVariableType] - any JSON
    return {**row, "reply": " ".join(one_line(word) for word in words if word)}


@app.command("explain")
@wired
async def explain(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="msg_…, inb_… (it came in) or rfs_… (it was refused).")],  # noqa: A002 - the API's name
) -> None:
    """Tell the story of a message in sentences: what was decided, when, and why."""
    base = _STORIES.get(id[:4], "/v1/messages")
    async with session.client() as client:
        told = await client.get(f"{base}/{quote(id, safe='')}/explain")
    if session.out.as_json:
        session.out.data(told)
        return
    session.out.say(told["summary"], style="bold")
    for sentence in told["story"]:
        who = f" [{one_line(sentence['recipient'])}]" if sentence.get("recipient") else ""
        session.out.say(f"{_milliseconds(sentence['at'])}{who}  {one_line(sentence['text'])}")


def _milliseconds(at: object) -> str:
    text = one_line(at)
    return f"{text[:23]}Z" if len(text) == _MICROSECONDS else text


@app.command("events")
@wired
async def events(session: Session, id: Id) -> None:  # noqa: A002 - the API's name
    """List everything that happened to a message."""
    async with session.client() as client:
        answer = await client.get(_path(id, "events"))
    found = answer["data"]
    if session.out.as_json:
        session.out.data(found)
        return
    session.out.table(
        _EVENTS, ({**one, "at": _milliseconds(one["at"])} for one in found), empty="Nothing has happened yet."
    )


@app.command("content")
@wired
async def content(session: Session, id: Id) -> None:  # noqa: A002 - the API's name
    """Print the message as it is sent (message/rfc822)."""
    async with session.client() as client:
        session.out.raw(await client.get(_path(id, "content")))


@app.command("cancel")
@wired
async def cancel(session: Session, id: Id) -> None:  # noqa: A002 - the API's name
    """Cancel what has not been sent yet."""
    async with session.client() as client:
        view(session.out, await client.post(_path(id, "cancel")))


@app.command("reschedule")
@wired
async def reschedule(
    session: Session,
    id: Id,  # noqa: A002 - the API's name
    at: Annotated[str, typer.Argument(metavar="TIME", help="RFC 3339, such as 2027-01-31T08:00:00Z.")],
) -> None:
    """Send a scheduled message at another time."""
    async with session.client() as client:
        view(session.out, await client.patch(_path(id), {"send_at": at}))
