"""Emails of an account: pages of a mailbox, one with all that is known of it, changes."""

from __future__ import annotations

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api import cursors, showing
from posthouse.api.answers import nothing, ok
from posthouse.api.doors import account_of, email_of, mailbox_of
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.mail_drafts import EmailChange, EmailQuery, EmailsChange, EmailsQuery
from posthouse.api.mail_shown import email_view, line_view
from posthouse.api.mail_views import ChangedEmails, EmailPage, EmailView
from posthouse.api.operations import Context, Operation
from posthouse.mailbox.model import Anchor
from posthouse.mailbox.service import Done
from posthouse.storage.search.base import parse_position, position

QUERY = Query(EmailsQuery)
ONE = Query(EmailQuery)
CHANGE = Body(EmailChange)
MANY = Body(EmailsChange)
MAIL = frozenset({Scope.MAIL})


async def page(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    account = await account_of(context, call)
    mailbox = await mailbox_of(context, call, account)
    kind = "threads" if query.threads else "emails"
    found = await context.services.mail.reading.page(
        account.number,
        mailbox,
        limit=query.limit,
        after=_anchor(cursors.decode(kind, query.cursor)),
        threads=query.threads,
    )
    after = found.next
    where = None if after is None else position(after.received_at, str(after.email))
    lines = [line_view(line, threads=query.threads) for line in found.lines]
    return ok(EmailPage(lines, found.total, cursors.page(kind, where)))


def _anchor(where: str | None) -> Anchor | None:
    if where is None:
        return None
    at, email = parse_position(where)
    if not (email.isascii() and email.isdecimal() and len(email) <= 15):
        raise errors.Invalid("This is not a cursor of this list", code="cursor_invalid")
    return Anchor(at, int(email))


async def get(context: Context, call: Call) -> Reply:
    query = ONE.read(call.query_string)
    account = await account_of(context, call)
    mail = context.services.mail
    email = await mail.reading.email(account.number, email_of(call))
    evidence = None
    if email.inbound_id is not None:
        evidence = await mail.journal.evidence(call.caller.tenant.id, email.inbound_id)
    headers = await showing.headers(mail.reading, account.number, email)
    body = await showing.body(mail.reading, account.number, email) if query.body else None
    trace = showing.trace(email.trace)
    return ok(email_view(email, headers, trace, evidence.auth if evidence is not None else None, body))


async def change(context: Context, call: Call) -> Reply:
    draft = CHANGE.read(call.data)
    account = await account_of(context, call)
    done = await _change(context, account.number, [email_of(call)], draft)
    if done.missing:
        raise errors.NotFound("There is no such email", code="email_not_found")
    return ok(ChangedEmails(done.modseq, done.missing))


async def change_many(context: Context, call: Call) -> Reply:
    draft = MANY.read(call.data)
    account = await account_of(context, call)
    done = await _change(context, account.number, draft.emails, draft)
    return ok(ChangedEmails(done.modseq, done.missing))


async def _change(context: Context, account: int, emails: list[int], draft: EmailChange) -> Done:
    only = draft.mailboxes
    return await context.services.mail.mailboxes.update(
        account,
        emails,
        words=(draft.add_keywords, draft.remove_keywords),
        into=[*(only or ()), *draft.add_mailboxes],
        out_of=draft.remove_mailboxes if only is None else None,
    )


async def delete(context: Context, call: Call) -> Reply:
    account = await account_of(context, call)
    done = await context.services.mail.mailboxes.destroy(account.number, [email_of(call)])
    if done.missing:
        raise errors.NotFound("There is no such email", code="email_not_found")
    return nothing()


LINE_EXAMPLE = {
    "id": 12,
    "thread": 7,
    "received_at": "2026-11-22T12:00:00.000000Z",
    "subject": "Your order",
    "senders": [{"name": "Shop", "address": "orders@shop.example"}],
    "preview": "Thank you, Ann.",
    "keywords": ["$seen"],
    "attachments": 0,
    "size": 6144,
    "uid": 3,
}
_EMAIL = {
    "id": 12,
    "thread": 7,
    "received_at": "2026-11-22T12:00:00.000000Z",
    "size": 6144,
    "subject": "Your order",
    "mailboxes": [{"id": 1, "uid": 3}],
    "keywords": ["$seen"],
    "preview": "Thank you, Ann.",
    "structure": {"id": "1", "type": "text/plain", "size": 120, "encoding": "7bit", "charset": "utf-8"},
    "text": ["1"],
    "html": ["1"],
    "attachments": [],
    "headers": [{"name": "Subject", "value": "Your order"}],
    "from": [{"name": "Shop", "address": "orders@shop.example"}],
}
_DONE = {"modseq": 42, "missing": []}
_EMAIL_PATH = "/v1/accounts/{account}/emails/{email}"

OPERATIONS = (
    Operation(
        id="list_emails",
        method="GET",
        path="/v1/accounts/{account}/mailboxes/{mailbox}/emails",
        summary="A page of a mailbox",
        handler=page,
        tag="Emails",
        scopes=MAIL,
        description="Newest first; with `threads` one line for each conversation. The mailbox by number or role.",
        query=QUERY,
        answer=EmailPage,
        answer_example={"data": [LINE_EXAMPLE], "total": 1, "next": None},
    ),
    Operation(
        id="get_email",
        method="GET",
        path=_EMAIL_PATH,
        summary="An email with all that is known of it",
        handler=get,
        tag="Emails",
        scopes=MAIL,
        description="Header fields, structure, what SPF, DKIM, DMARC and ARC said, the filter's verdict.",
        query=ONE,
        answer=EmailView,
        answer_example=_EMAIL,
    ),
    Operation(
        id="change_email",
        method="PATCH",
        path=_EMAIL_PATH,
        summary="Change its mailboxes and keywords",
        handler=change,
        tag="Emails",
        scopes=MAIL,
        body=CHANGE,
        answer=ChangedEmails,
        example={"mailboxes": ["archive"], "add_keywords": ["$seen"]},
        answer_example=_DONE,
    ),
    Operation(
        id="delete_email",
        method="DELETE",
        path=_EMAIL_PATH,
        summary="Destroy an email",
        handler=delete,
        tag="Emails",
        scopes=MAIL,
        description="For good; to put it into the trash, change its mailboxes.",
        status=204,
    ),
    Operation(
        id="change_emails",
        method="PATCH",
        path="/v1/accounts/{account}/emails",
        summary="Change the mailboxes and keywords of many",
        handler=change_many,
        tag="Emails",
        scopes=MAIL,
        description="In one step; emails that do not exist are named in the answer.",
        body=MANY,
        answer=ChangedEmails,
        example={"emails": [12, 13], "add_keywords": ["$flagged"]},
        answer_example=_DONE,
    ),
)
