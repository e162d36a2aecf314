"""The commands of `posthouse message` that are about emails in mailboxes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from posthouse.cli import mailbox as mailboxes
from posthouse.cli import places
from posthouse.cli.account import shown
from posthouse.cli.output import Output, clean, count, one_line
from posthouse.cli.session import Session, at_most
from posthouse.errors import Invalid

Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Address or id.")]
Numbers = Annotated[list[int], typer.Argument(metavar="NUMBER…", min=1, help="As `mailbox show` lists them.")]
_ADDRESSES = ("from", "sender", "reply_to", "to", "cc", "bcc")


async def search(
    session: Session,
    account: Account,
    words: Annotated[list[str], typer.Argument(metavar="WORD…", help='from:ann "exact words" -not begin*')],
    *,
    limit: Annotated[int, at_most(10_000)] = 20,
) -> None:
    """Search an account's mail, newest first."""
    found: list[dict[str, Any]] = []
    dropped: list[dict[str, str]] = []
    cursor: str | None = None
    async with session.client() as client:
        while len(found) < limit:
            page = await client.get(
                places.account_path(account, "search"),
                q=_query(words),
                limit=min(limit - len(found), 200),
                cursor=cursor,
            )
            found += page["data"]
            dropped, cursor = page["dropped"], page["next"]
            if cursor is None:
                break
    for one in dropped:
        session.out.hint(f"Left out: {one_line(one['text'])} ({one['reason'].replace('_', ' ')})")
    if session.out.as_json:
        session.out.data({"emails": found, "dropped": dropped})
        return
    mailboxes.lines(session.out, found, empty="Nothing is found.")


def _query(words: list[str]) -> str:
    """What the shell took apart: a word with blanks was quoted."""
    return " ".join(f'"{word}"' if " " in word and '"' not in word and ":" not in word else word for word in words)


async def move(
    session: Session,
    account: Account,
    numbers: Numbers,
    *,
    to: Annotated[str, typer.Option(metavar="MAILBOX", help="Such as archive, trash or Archive/Bills.")],
    copy: Annotated[bool, typer.Option("--label", help="Let them stay in the others too.")] = False,
) -> None:
    """Move emails to a mailbox."""
    async with session.client() as client:
        box = await places.named(client, account, to)
        change = {"emails": numbers, ("add_mailboxes" if copy else "mailboxes"): [box["id"]]}
        done = await client.patch(places.account_path(account, "emails"), change)
    _done(session.out, done, f"{count(len(numbers) - len(done['missing']), 'email')} in {box['path']}.")


async def flag(
    session: Session,
    account: Account,
    numbers: Numbers,
    *,
    add: Annotated[list[str] | None, typer.Option(metavar="KEYWORD", help="Repeat for several.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="KEYWORD", help="Repeat for several.")] = None,
    read: Annotated[bool | None, typer.Option("--read/--unread", help="$seen.")] = None,
    star: Annotated[bool | None, typer.Option("--star/--no-star", help="$flagged.")] = None,
) -> None:
    """Mark emails: read, starred, or with any keyword."""
    more, fewer = list(add or ()), list(remove or ())
    for wanted, keyword in ((read, "$seen"), (star, "$flagged")):
        if wanted is not None:
            (more if wanted else fewer).append(keyword)
    if not more and not fewer:
        raise typer.BadParameter("say what: --read, --unread, --star, --no-star, --add or --remove")
    change = {"emails": numbers, "add_keywords": more, "remove_keywords": fewer}
    async with session.client() as client:
        done = await client.patch(places.account_path(account, "emails"), change)
    _done(session.out, done, f"{count(len(numbers) - len(done['missing']), 'email')} marked.")


def _done(out: Output, done: dict[str, Any], sentence: str) -> None:
    out.done(done, sentence)
    if done["missing"]:
        out.hint(f"Not there: {', '.join(map(str, done['missing']))}")
        raise typer.Exit(1)


async def show(
    session: Session, account: str, number: int, *, raw: bool, trace: bool, headers: bool, part: str | None
) -> None:
    """One email; `raw`: its octets; `part`: those of one part."""
    if raw and part is not None:
        raise Invalid("Either --raw or --part", code="usage")
    path = places.account_path(account, "emails", number)
    async with session.client() as client:
        if raw or trace:
            session.out.raw(await client.octets(f"{path}/raw{'?trace=true' if trace else ''}"))
            return
        if part is not None:
            session.out.raw(await client.octets(places.account_path(account, "emails", number, "parts", part)))
            return
        email = await client.get(path, body="true")
        boxes = {box["id"]: box["path"] for box in await places.boxes(client, account)}
    if session.out.as_json:
        session.out.data(email)
        return
    _view(session.out, email, [boxes.get(one["id"], str(one["id"])) for one in email["mailboxes"]], headers=headers)


def _view(out: Output, email: dict[str, Any], lies_in: list[str], *, headers: bool) -> None:
    facts: list[tuple[str, object]] = []
    if headers:
        for field in [*email.get("trace", ()), *email["headers"]]:
            out.say(f"{one_line(field['name'])}: {one_line(field['value'])}")
    else:
        facts += [(name.replace("_", " "), _people(email.get(name))) for name in _ADDRESSES]
        facts += [("date", email.get("sent_at")), ("subject", email["subject"])]
    facts += [
        ("received", email["received_at"]),
        ("lies in", lies_in),
        ("marked", email["keywords"]),
        ("thread", email["thread"]),
        ("size", shown(email["size"])),
        ("proof", _proof(email.get("authentication"))),
        ("filter", _verdict(email.get("verdict"))),
        ("arrived as", email.get("inbound_id")),
    ]
    out.facts(facts)
    files = [part for part in _parts(email["structure"]) if part["id"] in set(email["attachments"])]
    for part in files:
        name = one_line(part.get("name") or "unnamed")
        out.say(f"+ {name} ({one_line(part['type'])}, {shown(part['size'])}; --part {part['id']})", style="dim")
    body = email.get("body") or {}
    out.say("")
    out.say(clean(body.get("text") or "(It has no text.)").rstrip("\n"))
    if body.get("truncated"):
        out.hint("The text goes on; --raw has all of it.")


def _people(found: list[dict[str, str]] | None) -> list[str]:
    shown_: list[str] = []
    for one in found or ():
        name, address = one_line(one.get("name", "")), one_line(one.get("address", ""))
        shown_.append(f"{name} <{address}>" if name and address else name or address)
    return shown_


def _proof(auth: dict[str, Any] | None) -> str:
    """SPF, DKIM and DMARC in a line."""
    if not auth:
        return ""
    spf, dmarc = auth["spf"], auth["dmarc"]
    said = [f"SPF {spf['result']} ({spf['domain']})"]
    said += [f"DKIM {one['result']} ({one['domain']})" for one in auth["dkim"][:5]] or ["no DKIM signature"]
    said.append(f"DMARC {dmarc['result']} ({dmarc['domain']})")
    if auth["arc"]["result"] != "none":
        said.append(f"ARC {auth['arc']['result']}")
    return ", ".join(said)


def _verdict(verdict: dict[str, Any] | None) -> str:
    if not verdict:
        return ""
    reasons = "; ".join(f"{one['score']:+g} {one['text']}" for one in verdict.get("reasons", ()))
    points = count(verdict["score"], "point")
    return f"{'junk' if verdict['junk'] else 'no junk'}, {points}{f': {reasons}' if reasons else ''}"


def _parts(part: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    waiting = [part]
    while waiting:
        each = waiting.pop()
        found.append(each)
        waiting += reversed(each.get("parts") or [])
    return found
