"""`/v1/queue` and `/v1/cluster`: for operators."""

from __future__ import annotations

import asyncio

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api.answers import ok
from posthouse.api.drafts import BuryDraft, RetryDraft
from posthouse.api.http import Body, Call, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.ports import Cluster
from posthouse.api.views import ChangedView, ClusterView, QueueView, buried_view, cluster_view, depth_view
from posthouse.errors import Fault

RETRY = Body(RetryDraft)
BURY = Body(BuryDraft)
OPERATOR = frozenset({Scope.OPERATOR})
SHOWN = 100


async def get(context: Context, call: Call) -> Reply:
    queue = context.services.queue
    depths, buried = await asyncio.gather(queue.depths(), queue.buried(limit=SHOWN))
    return ok(QueueView([depth_view(depth) for depth in depths], [buried_view(job) for job in buried]))


async def cluster(context: Context, call: Call) -> Reply:
    overview = context.services.cluster
    return ok(cluster_view(await overview() if overview is not None else Cluster((), (), (), ())))


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
        id="get_cluster",
        method="GET",
        path="/v1/cluster",
        summary="Every process, what waits, who holds which lease, and what is stuck",
        handler=cluster,
        tag="Queue",
        scopes=OPERATOR,
        answer=ClusterView,
        answer_example={
            "processes": [
                {
                    "id": "prc_0198c1a2b3c47000a1b2c3d4e5f60718",
                    "host": "worker-1",
                    "pid": 7,
                    "roles": ["render", "send"],
                    "version": "0.1.0",
                    "started_at": "2026-11-22T08:00:00.000000Z",
                    "seen_at": "2026-11-22T12:00:00.000000Z",
                    "status": "here",
                    "late": 0.0,
                    "lanes": [
                        {
                            "stage": "render",
                            "lane": "bulk",
                            "held": 512,
                            "finished": 81022,
                            "progressed_at": "2026-11-22T12:00:00.000000Z",
                        }
                    ],
                }
            ],
            "depths": [],
            "leases": [
                {
                    "name": "schedule",
                    "holder": "worker-2/7",
                    "fence": 3,
                    "until": "2026-11-22T12:00:12.000000Z",
                    "held": True,
                }
            ],
            "stuck": [],
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
