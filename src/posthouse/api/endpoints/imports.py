"""Importing: messages as they are, each stored once."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api.answers import ok
from posthouse.api.doors import account_of
from posthouse.api.http import Body, Call, Reply
from posthouse.api.mail_drafts import ImportDraft, ImportItem, MarksDraft
from posthouse.api.mail_views import ImportedView, ImportView, MarksView
from posthouse.api.operations import Context, Operation
from posthouse.clock import from_datetime
from posthouse.directory.model import Account
from posthouse.errors import Fault
from posthouse.inbound.importing import Item
from posthouse.mailbox.model import Role
from posthouse.mailbox.verbs import check_keywords

DRAFT = Body(ImportDraft)
MARKS = Body(MarksDraft)
MAIL = frozenset({Scope.MAIL})
OCTETS_AT_ONCE = 8_000_000
"""Of several messages; a single one may be as large as the body of a request."""
LARGEST = 80_000_000
"""Octets of a request's body: a message of 55 MB in base64."""


async def take(context: Context, call: Call) -> Reply:
    drafts = DRAFT.read(call.data).emails
    _check(drafts)
    account = await account_of(context, call)
    await _check_places(context, account, drafts)
    stored = await context.services.mail.importing.store(account, [_item(draft) for draft in drafts])
    shown = [ImportedView() if one is None else ImportedView(one.email, one.thread) for one in stored]
    return ok(ImportView(sum(one is not None for one in stored), shown))


async def marks(context: Context, call: Call) -> Reply:
    draft = MARKS.read(call.data)
    account = await account_of(context, call)
    return ok(MarksView(dict(await context.services.mail.importing.marks(account.number, draft.sources))))


def _item(draft: ImportItem) -> Item:
    return Item(
        draft.raw,
        tuple(draft.mailboxes) or (Role.INBOX.value,),
        tuple(sorted(check_keywords(draft.keywords))),
        None if draft.received_at is None else from_datetime(draft.received_at),
        draft.source,
        draft.position,
    )


def _check(drafts: Sequence[ImportItem]) -> None:
    if len(drafts) > 1 and sum(len(draft.raw) for draft in drafts) > OCTETS_AT_ONCE:
        raise errors.TooLarge(f"Several messages have at most {OCTETS_AT_ONCE} octets in all", code="body_too_large")
    if len({draft.source == "" for draft in drafts}) == 2:
        message = "Either every message has a source or none"
        raise errors.Invalid(message, faults=(Fault("/emails", message),))


async def _check_places(context: Context, account: Account, drafts: Sequence[ImportItem]) -> None:
    """:raises NotFound: code `mailbox_not_found`."""
    boxes = await context.services.mail.reading.mailboxes(account.number)
    known: set[int | str | None] = {box.id for box in boxes} | {box.role for box in boxes}
    for draft in drafts:
        if not known.issuperset(draft.mailboxes):
            raise errors.NotFound("There is no such mailbox", code="mailbox_not_found")


_PATH = "/v1/accounts/{account}/import"

OPERATIONS = (
    Operation(
        id="import_emails",
        method="POST",
        path=_PATH,
        summary="Put messages into mailboxes as they are",
        handler=take,
        tag="Import",
        scopes=MAIL,
        description="In one step, at most 8 MB. `source` and `position` make it safe to repeat: a message that does "
        "not go beyond the position to which its source has come is not stored again.",
        body=DRAFT,
        answer=ImportView,
        once=True,
        largest=LARGEST,
        example={"emails": [{"raw": "U3ViamVjdDogSGkNCg0KSGkNCg==", "source": "old.mbox", "position": 20}]},
        answer_example={"stored": 1, "emails": [{"id": 12, "thread": 7}]},
        problems=(429,),
    ),
    Operation(
        id="get_import_marks",
        method="POST",
        path=_PATH + "/marks",
        summary="How far imports have come",
        handler=marks,
        tag="Import",
        scopes=MAIL,
        body=MARKS,
        answer=MarksView,
        example={"sources": ["old.mbox"]},
        answer_example={"positions": {"old.mbox": 20}},
    ),
)
