"""`/v1/accounts/{account}/mailboxes`: folders and labels, with their counts."""

from __future__ import annotations

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api.answers import created, listed, nothing, ok
from posthouse.api.doors import account_of, mailbox_of
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.mail_drafts import MailboxChange, MailboxDraft, MailboxRemoval
from posthouse.api.mail_shown import mailbox_views
from posthouse.api.mail_views import MailboxView
from posthouse.api.operations import Context, Operation
from posthouse.api.views import Listed
from posthouse.directory.model import Account

DRAFT = Body(MailboxDraft)
CHANGE = Body(MailboxChange)
REMOVAL = Query(MailboxRemoval)
MAIL = frozenset({Scope.MAIL})


async def create(context: Context, call: Call) -> Reply:
    draft = DRAFT.read(call.data)
    account = await account_of(context, call)
    number = await context.services.mail.mailboxes.create_mailbox(account.number, draft.name, parent=draft.parent)
    return created(await _one(context, account, number))


async def list_all(context: Context, call: Call) -> Reply:
    account = await account_of(context, call)
    return listed("mailboxes", mailbox_views(await context.services.mail.reading.mailboxes(account.number)), None)


async def get(context: Context, call: Call) -> Reply:
    account = await account_of(context, call)
    return ok(await _one(context, account, await mailbox_of(context, call, account)))


async def change(context: Context, call: Call) -> Reply:
    draft = CHANGE.read(call.data)
    account = await account_of(context, call)
    number = await mailbox_of(context, call, account)
    await context.services.mail.mailboxes.change_mailbox(
        account.number,
        number,
        name=draft.name,
        parent=draft.parent,
        sort_order=draft.sort_order,
        subscribed=draft.subscribed,
    )
    return ok(await _one(context, account, number))


async def delete(context: Context, call: Call) -> Reply:
    how = REMOVAL.read(call.query_string)
    account = await account_of(context, call)
    number = await mailbox_of(context, call, account)
    await context.services.mail.mailboxes.remove_mailbox(account.number, number, emails=how.emails)
    return nothing()


async def _one(context: Context, account: Account, number: int) -> MailboxView:
    for view in mailbox_views(await context.services.mail.reading.mailboxes(account.number)):
        if view.id == number:
            return view
    raise errors.NotFound("There is no such mailbox", code="mailbox_not_found")


_MAILBOX = {
    "id": 1,
    "name": "Inbox",
    "path": "Inbox",
    "parent": 0,
    "role": "inbox",
    "sort_order": 1,
    "subscribed": True,
    "total": 3,
    "unread": 1,
    "threads": 2,
    "unread_threads": 1,
    "uidvalidity": 1795348801,
    "uidnext": 4,
    "modseq": 7,
}
_PATH = "/v1/accounts/{account}/mailboxes"

OPERATIONS = (
    Operation(
        id="create_mailbox",
        method="POST",
        path=_PATH,
        summary="Make a mailbox",
        handler=create,
        tag="Mailboxes",
        scopes=MAIL,
        body=DRAFT,
        answer=MailboxView,
        status=201,
        once=True,
        example={"name": "Bills"},
        answer_example=_MAILBOX,
        problems=(409,),
    ),
    Operation(
        id="list_mailboxes",
        method="GET",
        path=_PATH,
        summary="List an account's mailboxes with their counts",
        handler=list_all,
        tag="Mailboxes",
        scopes=MAIL,
        description="All of them, by number.",
        answer=Listed[MailboxView],
        answer_example={"data": [_MAILBOX], "next": None},
    ),
    Operation(
        id="get_mailbox",
        method="GET",
        path=_PATH + "/{mailbox}",
        summary="Get a mailbox",
        handler=get,
        tag="Mailboxes",
        scopes=MAIL,
        description="By its number or its role, such as `inbox`.",
        answer=MailboxView,
        answer_example=_MAILBOX,
    ),
    Operation(
        id="change_mailbox",
        method="PATCH",
        path=_PATH + "/{mailbox}",
        summary="Rename, move, sort or hide it",
        handler=change,
        tag="Mailboxes",
        scopes=MAIL,
        body=CHANGE,
        answer=MailboxView,
        example={"name": "Invoices"},
        answer_example=_MAILBOX,
        problems=(409,),
    ),
    Operation(
        id="delete_mailbox",
        method="DELETE",
        path=_PATH + "/{mailbox}",
        summary="Remove a mailbox",
        handler=delete,
        tag="Mailboxes",
        scopes=MAIL,
        description="Refused while emails are in it, unless `emails` says what becomes of them.",
        query=REMOVAL,
        status=204,
        problems=(409,),
    ),
)
