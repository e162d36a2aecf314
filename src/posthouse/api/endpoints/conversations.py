"""Threads, search and changes of an account."""

from __future__ import annotations

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import ok
from posthouse.api.doors import account_of, thread_of
from posthouse.api.endpoints.emails import LINE_EXAMPLE
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.mail_drafts import ChangesQuery, MergeDraft, SearchQuery, SplitDraft
from posthouse.api.mail_shown import email_line
from posthouse.api.mail_views import (
    ChangesView,
    ChangeView,
    DroppedView,
    EmailLine,
    FoundView,
    ThreadMade,
    ThreadView,
)
from posthouse.api.operations import Context, Operation
from posthouse.clock import rfc3339
from posthouse.errors import Fault
from posthouse.mailbox.model import Thread
from posthouse.mailbox.reading import EMAILS_AT_MOST
from posthouse.storage.search.query import parse

SPLIT = Body(SplitDraft)
MERGE = Body(MergeDraft)
SEARCH = Query(SearchQuery)
CHANGES = Query(ChangesQuery)
MAIL = frozenset({Scope.MAIL})


async def get_thread(context: Context, call: Call) -> Reply:
    account = (await account_of(context, call)).number
    thread = await _thread(context, account, thread_of(call))
    lines: list[EmailLine] = []
    for start in range(0, len(thread.members), EMAILS_AT_MOST):
        some = thread.members[start : start + EMAILS_AT_MOST]
        lines += [email_line(one) for one in await context.services.mail.reading.emails(account, some)]
    return ok(ThreadView(thread.id, lines, thread.unread, rfc3339(thread.latest_at), thread.related or None))


async def split(context: Context, call: Call) -> Reply:
    draft = SPLIT.read(call.data)
    account = (await account_of(context, call)).number
    thread = await _thread(context, account, thread_of(call))
    members = set(thread.members)
    faults = tuple(
        Fault(f"/emails/{n}", "This email is not in this conversation")
        for n, email in enumerate(draft.emails)
        if email not in members
    )
    if faults:
        raise errors.Invalid("An email is not in this conversation", code="not_in_thread", faults=faults)
    return ok(ThreadMade(await context.services.mail.mailboxes.split(account, draft.emails)))


async def merge(context: Context, call: Call) -> Reply:
    draft = MERGE.read(call.data)
    account = (await account_of(context, call)).number
    return ok(ThreadMade(await context.services.mail.mailboxes.merge(account, [thread_of(call), *draft.threads])))


async def search(context: Context, call: Call) -> Reply:
    asked = SEARCH.read(call.query_string)
    account = (await account_of(context, call)).number
    query = parse(asked.q)
    mail = context.services.mail
    page = await mail.search.query(
        str(account), query, limit=asked.limit, before=cursors.decode("search", asked.cursor)
    )
    # Some may have gone since they were indexed.
    found = await mail.reading.emails(account, [int(one) for one in page.emails])
    dropped = [DroppedView(one.text, one.reason) for one in query.dropped]
    lines = [email_line(one) for one in found]
    return ok(FoundView(lines, dropped, cursors.page("search", page.next), page.total))


async def changes(context: Context, call: Call) -> Reply:
    asked = CHANGES.read(call.query_string)
    account = (await account_of(context, call)).number
    reading = context.services.mail.reading
    if asked.since is None:
        return ok(ChangesView([], await reading.modseq(account), more=False))
    found = await reading.changes(account, asked.since, limit=asked.limit)
    shown = [ChangeView(one.modseq, one.kind, one.id, one.op) for one in found.changes]
    return ok(ChangesView(shown, found.until, found.more))


async def _thread(context: Context, account: int, number: int) -> Thread:
    found = await context.services.mail.reading.threads(account, [number])
    if not found:
        raise errors.NotFound("There is no such conversation", code="thread_not_found")
    return found[0]


_LINE = {**LINE_EXAMPLE, "mailboxes": [1]}
_THREAD = "/v1/accounts/{account}/threads/{thread}"

OPERATIONS = (
    Operation(
        id="get_thread",
        method="GET",
        path=_THREAD,
        summary="A conversation with its emails",
        handler=get_thread,
        tag="Threads",
        scopes=MAIL,
        description="The oldest first; of a very long one the first 2000.",
        answer=ThreadView,
        answer_example={"id": 7, "emails": [_LINE], "unread": 0, "latest_at": "2026-11-22T12:00:00.000000Z"},
    ),
    Operation(
        id="split_thread",
        method="POST",
        path=_THREAD + "/split",
        summary="Take emails out of a conversation",
        handler=split,
        tag="Threads",
        scopes=MAIL,
        description="They are a new one, and stay apart whatever arrives.",
        body=SPLIT,
        answer=ThreadMade,
        once=True,
        example={"emails": [12]},
        answer_example={"thread": 8},
    ),
    Operation(
        id="merge_threads",
        method="POST",
        path=_THREAD + "/merge",
        summary="Make conversations one",
        handler=merge,
        tag="Threads",
        scopes=MAIL,
        description="The oldest of them has all emails from now on, and those that answer them.",
        body=MERGE,
        answer=ThreadMade,
        once=True,
        example={"threads": [8]},
        answer_example={"thread": 7},
    ),
    Operation(
        id="search_emails",
        method="GET",
        path="/v1/accounts/{account}/search",
        summary="Search",
        handler=search,
        tag="Emails",
        scopes=MAIL,
        description='Words, `"exact words"`, `begin*`, `from:`, `to:`, `subject:`, `body:`, `filename:`, `OR`, `-not`. '
        "Newest first. What could not be used is named in `dropped`. While the index is away the answer is 503 with "
        "the code `search_unavailable`; mail is not affected.",
        query=SEARCH,
        answer=FoundView,
        answer_example={"data": [_LINE], "dropped": [], "next": None, "total": 1},
    ),
    Operation(
        id="list_changes",
        method="GET",
        path="/v1/accounts/{account}/changes",
        summary="What changed since",
        handler=changes,
        tag="Emails",
        scopes=MAIL,
        description="Without `since`: the present state alone. 422 `changes_forgotten`: read everything anew.",
        query=CHANGES,
        answer=ChangesView,
        answer_example={
            "changes": [{"modseq": 42, "kind": "email", "id": 12, "op": "created"}],
            "until": 42,
            "more": False,
        },
    ),
)
