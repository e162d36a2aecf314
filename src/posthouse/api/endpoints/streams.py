"""`/v1/streams`"""

from __future__ import annotations

from posthouse.accounts.model import Scope
from posthouse.api.answers import created, listed, ok
from posthouse.api.drafts import StreamChange, StreamDraft
from posthouse.api.http import Body, Call, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.views import Listed, StreamView, stream_view

DRAFT = Body(StreamDraft)
CHANGE = Body(StreamChange)
READ = frozenset({Scope.READ, Scope.STREAMS})
WRITE = frozenset({Scope.STREAMS})


async def create(context: Context, call: Call) -> Reply:
    draft = DRAFT.read(call.data)
    stream = await context.services.streams.create(
        call.caller.tenant.id,
        draft.name,
        draft.kind,
        lane=draft.lane,
        max_age=draft.max_age,
        settings=draft.settings,
    )
    return created(stream_view(stream))


async def list_streams(context: Context, call: Call) -> Reply:
    found = await context.services.streams.list(call.caller.tenant.id)
    return listed("streams", [stream_view(stream) for stream in found], None)


async def get(context: Context, call: Call) -> Reply:
    return ok(stream_view(await context.services.streams.access(call.caller.tenant.id, call.path["name"])))


async def update(context: Context, call: Call) -> Reply:
    change = CHANGE.read(call.data)
    stream = await context.services.streams.update(
        call.caller.tenant.id, call.path["name"], lane=change.lane, max_age=change.max_age, settings=change.settings
    )
    return ok(stream_view(stream))


_STREAM = {
    "id": "str_0198c1a2b3c47000a1b2c3d4e5f60718",
    "name": "receipts",
    "kind": "transactional",
    "lane": "transactional",
    "max_age": 259200,
    "settings": {},
    "created_at": "2026-11-22T12:00:00.000000Z",
}

OPERATIONS = (
    Operation(
        id="create_stream",
        method="POST",
        path="/v1/streams",
        summary="Create a stream",
        handler=create,
        tag="Streams",
        scopes=WRITE,
        description="What is sent on it shares a kind, a lane and a patience. A broadcast goes in the lane `bulk`.",
        body=DRAFT,
        answer=StreamView,
        status=201,
        once=True,
        example={"name": "receipts", "kind": "transactional", "max_age": 86400},
        answer_example=_STREAM,
        problems=(409,),
    ),
    Operation(
        id="list_streams",
        method="GET",
        path="/v1/streams",
        summary="List streams",
        handler=list_streams,
        tag="Streams",
        scopes=READ,
        description="All of them, by name.",
        answer=Listed[StreamView],
        answer_example={"data": [_STREAM], "next": None},
    ),
    Operation(
        id="get_stream",
        method="GET",
        path="/v1/streams/{name}",
        summary="Get a stream",
        handler=get,
        tag="Streams",
        scopes=READ,
        answer=StreamView,
        answer_example=_STREAM,
    ),
    Operation(
        id="update_stream",
        method="PATCH",
        path="/v1/streams/{name}",
        summary="Change a stream",
        handler=update,
        tag="Streams",
        scopes=WRITE,
        description="Messages accepted already keep their lane and their expiry.",
        body=CHANGE,
        answer=StreamView,
        example={"max_age": 3600},
        answer_example=_STREAM | {"max_age": 3600},
    ),
)
