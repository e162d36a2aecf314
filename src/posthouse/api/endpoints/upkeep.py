"""`/v1/tasks`: prove the store, mend it, index it anew; for operators."""

from __future__ import annotations

from posthouse.accounts.model import Scope
from posthouse.api.answers import encode, ok
from posthouse.api.doors import account_of
from posthouse.api.http import Body, Call, Reply
from posthouse.api.mail_drafts import CheckDraft, ReindexDraft
from posthouse.api.mail_shown import task_view
from posthouse.api.mail_views import TaskView
from posthouse.api.operations import Context, Operation

CHECK = Body(CheckDraft)
REINDEX = Body(ReindexDraft)
OPERATOR = frozenset({Scope.OPERATOR})


async def check(context: Context, call: Call) -> Reply:
    draft = CHECK.read(call.data)
    task = context.services.mail.upkeep.start("check", deep=draft.deep, mend=draft.mend)
    return Reply(202, encode(task_view(task)))


async def reindex(context: Context, call: Call) -> Reply:
    REINDEX.read(call.data)
    return Reply(202, encode(task_view(context.services.mail.upkeep.start("reindex"))))


async def reindex_account(context: Context, call: Call) -> Reply:
    REINDEX.read(call.data)
    account = await account_of(context, call)
    return Reply(202, encode(task_view(context.services.mail.upkeep.start("reindex", account=account.number))))


async def get(context: Context, call: Call) -> Reply:
    return ok(task_view(context.services.mail.upkeep.get(call.path["id"])))


_TASK = {
    "id": "tsk_0198c1a2b3c47000a1b2c3d4e5f60718",
    "kind": "check",
    "state": "done",
    "started_at": "2026-11-22T12:00:00.000000Z",
    "found": 0,
    "findings": [],
    "mended": [],
    "queued": 0,
    "ended_at": "2026-11-22T12:00:01.000000Z",
}

OPERATIONS = (
    Operation(
        id="start_check",
        method="POST",
        path="/v1/tasks/check",
        summary="Prove that the mailboxes are what they say",
        handler=check,
        tag="Tasks",
        scopes=OPERATOR,
        description="Every count, thread, mark and content; it goes on by itself.",
        body=CHECK,
        answer=TaskView,
        status=202,
        example={"deep": True},
        answer_example=_TASK,
        problems=(409,),
    ),
    Operation(
        id="start_reindex",
        method="POST",
        path="/v1/tasks/reindex",
        summary="Make the search index anew",
        handler=reindex,
        tag="Tasks",
        scopes=OPERATOR,
        description="It is emptied first; new mail goes before old.",
        body=REINDEX,
        answer=TaskView,
        status=202,
        example={},
        answer_example=_TASK,
        problems=(409,),
    ),
    Operation(
        id="start_account_reindex",
        method="POST",
        path="/v1/tasks/reindex/{account}",
        summary="Index one account anew",
        handler=reindex_account,
        tag="Tasks",
        scopes=OPERATOR,
        body=REINDEX,
        answer=TaskView,
        status=202,
        example={},
        answer_example=_TASK,
        problems=(409,),
    ),
    Operation(
        id="get_task",
        method="GET",
        path="/v1/tasks/{id}",
        summary="How far it has come",
        handler=get,
        tag="Tasks",
        scopes=OPERATOR,
        answer=TaskView,
        answer_example=_TASK,
    ),
)
