"""`/v1/queue`: for operators."""

from __future__ import annotations

import asyncio

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api.answers import ok
from posthouse.api.drafts import BuryDraft, RetryDraft
from posthouse.api.http import Body, Call, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.views import ChangedView, QueueView, buried_view, depth_view
from posthouse.errors import Fault

RETRY = Body(RetryDraft)
BURY = Body(BuryDraft)
OPERATOR = frozenset({Scope.OPERATOR})
SHOWN = 100


async def get(context: Context, call: Call) -> Reply:
    queue = context.services.queue
    depths, buried = await asyncio.gather(queue.depths(), queue.buried(limit=SHOWN))
    return ok(QueueView([depth_view(depth) for depth in depths], [buried_view(job) for job in buried]))


async def retry(context: Context, call: Call) -> Reply:
    draft = RETRY.read(call.data)
    if draft.all == bool(draft.ids):
        message = "Give `ids`, or `all`: true"
        raise errors.Invalid(message, faults=(Fault("/ids", message),))
    return ok(ChangedView(await context.services.queue.put_back(draft.ids)))


async def bury(context: Context, call: Call) -> Reply:
    draft = BURY.read(call.data)
    return ok(ChangedView(await context.services.queue.set_aside(draft.ids, draft.reason)))


_ID = "msg_0198c1a2b3c47000a1b2c3d4e5f60718"

OPERATIONS = (
    Operation(
        id="get_queue",
        method="GET",
        path="/v1/queue",
        summary="What waits, and what is buried",
        handler=get,
        tag="Queue",
        scopes=OPERATOR,
        answer=QueueView,
        answer_example={
            "depths": [
                {
                    "stage": "render",
                    "lane": "bulk",
                    "ready": 12,
                    "delayed": 3,
                    "buried": 0,
                    "oldest_due_at": "2026-11-22T12:00:00.000000Z",
                }
            ],
            "buried": [],
        },
    ),
    Operation(
        id="retry_jobs",
        method="POST",
        path="/v1/queue/retry",
        summary="Run buried jobs again",
        handler=retry,
        tag="Queue",
        scopes=OPERATOR,
        body=RETRY,
        answer=ChangedView,
        example={"ids": [_ID]},
        answer_example={"changed": 1},
    ),
    Operation(
        id="bury_jobs",
        method="POST",
        path="/v1/queue/bury",
        summary="Set jobs aside",
        handler=bury,
        tag="Queue",
        scopes=OPERATOR,
        description="Those that are leased now stay: their worker ends them.",
        body=BURY,
        answer=ChangedView,
        example={"ids": [_ID], "reason": "looked at by the operator"},
        answer_example={"changed": 1},
    ),
)
