"""`/v1/messages`: the hot path. Bodies are decoded once; answers go through as bytes."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import ok
from posthouse.api.drafts import Cursor, Limit, Request
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.once import REPLAYED
from posthouse.api.operations import Context, Operation
from posthouse.api.views import Listed
from posthouse.clock import from_datetime
from posthouse.errors import Fault
from posthouse.events.story import Explanation
from posthouse.outbound.model import (
    LINE,
    Answer,
    EventView,
    FanOutDraft,
    Filter,
    Line,
    ManyDraft,
    MessageDraft,
    MessageView,
    Moment,
    Page,
    State,
)

MAX_MESSAGES = 1000
MAX_RECIPIENTS = 10_000
SEND = frozenset({Scope.SEND})
READ = frozenset({Scope.READ})


class MessageQuery(Request, frozen=True, kw_only=True):
    to: Annotated[str, Meta(pattern=LINE, max_length=320, description="One of its recipients")] | None = None
    status: Annotated[State, Meta(description="Of one of its recipients")] | None = None
    tag: Line | None = None
    stream: Line | None = None
    since: Annotated[Moment, Meta(description="Submitted then or later")] | None = None
    until: Annotated[Moment, Meta(description="Submitted before then")] | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class Reschedule(Request, frozen=True, kw_only=True):
    send_at: Annotated[Moment, Meta(description="A later or an earlier time; past: now")]


class Recipient(msgspec.Struct, frozen=True, omit_defaults=True):
    address: str
    status: str


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Durably stored; it will end in exactly one final state for each recipient."""

    id: str
    status: str
    recipients: list[Recipient] = []


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item of a batch, in the order given: an `id`, or the `error` that keeps it out."""

    id: str | None = None
    error: dict[str, Any] | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    results: list[Result]


class Events(msgspec.Struct, frozen=True):
    data: list[EventView]
    next: str | None = None


class _Kind(msgspec.Struct, frozen=True):
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


MESSAGE = Body(MessageDraft)
MANY = Body(ManyDraft, nul=True)
FAN_OUT = Body(FanOutDraft)
BATCH = Body(_Kind, nul=True, documented=(ManyDraft, FanOutDraft))
QUERY = Query(MessageQuery)
RESCHEDULE = Body(Reschedule)


async def send(context: Context, call: Call) -> Reply:
    caller = call.caller
    draft = MESSAGE.read(call.data)
    call.standing = await context.limiter.take(caller.tenant.id, caller.tenant.limits, 1)
    answer = await context.services.messages.send(caller, draft, idempotency=await call.idempotency())
    return _answer(answer)


async def send_batch(context: Context, call: Call) -> Reply:
    many = BATCH.read(call.data).messages is not msgspec.UNSET
    return await (_send_many if many else _send_each)(context, call)


async def _send_many(context: Context, call: Call) -> Reply:
    draft = MANY.read(call.data)
    _check_count(len(draft.messages), MAX_MESSAGES, "messages")
    await _take(context, call, len(draft.messages))
    answer = await context.services.messages.send_many(call.caller, draft, idempotency=await call.idempotency())
    return _answer(answer)


async def _send_each(context: Context, call: Call) -> Reply:
    draft = FAN_OUT.read(call.data)
    _check_count(len(draft.recipients), MAX_RECIPIENTS, "recipients")
    await _take(context, call, len(draft.recipients))
    answer = await context.services.messages.send_each(call.caller, draft, idempotency=await call.idempotency())
    return _answer(answer)


async def list_messages(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    wanted = Filter(
        to=query.to,
        status=query.status,
        tag=query.tag,
        stream=query.stream,
        since=None if query.since is None else from_datetime(query.since),
        until=None if query.until is None else from_datetime(query.until),
    )
    position = cursors.decode("messages", query.cursor)
    page = await context.services.messages.list(call.caller, wanted, cursor=position, limit=query.limit)
    return ok(Page(page.data, cursors.page("messages", page.next)))


async def get(context: Context, call: Call) -> Reply:
    return ok(await context.services.messages.get(call.caller, call.path["id"]))


async def reschedule(context: Context, call: Call) -> Reply:
    change = RESCHEDULE.read(call.data)
    return ok(await context.services.messages.reschedule(call.caller, call.path["id"], change.send_at))


async def cancel(context: Context, call: Call) -> Reply:
    return ok(await context.services.messages.cancel(call.caller, call.path["id"]))


async def events(context: Context, call: Call) -> Reply:
    return ok(Events(await context.services.messages.events(call.caller, call.path["id"])))


async def explain(context: Context, call: Call) -> Reply:
    return ok(await context.services.messages.explain(call.caller, call.path["id"]))


async def content(context: Context, call: Call) -> Reply:
    data = await context.services.messages.content(call.caller, call.path["id"])
    disposition = (b"content-disposition", b'attachment; filename="message.eml"')
    return Reply(200, data, b"message/rfc822", (disposition,))


def _answer(answer: Answer) -> Reply:
    return Reply(answer.status, answer.body, headers=(REPLAYED,) if answer.replayed else ())


async def _take(context: Context, call: Call, count: int) -> None:
    tenant = call.caller.tenant
    call.standing = await context.limiter.take(tenant.id, tenant.limits, count)


def _check_count(count: int, most: int, field: str) -> None:
    if count == 0:
        message = f"A batch has at least one of {field}"
        raise errors.Invalid(message, faults=(Fault(f"/{field}", message),))
    if count > most:
        message = f"A batch has at most {most} {field}"
        raise errors.TooLarge(message, code="too_many_messages", faults=(Fault(f"/{field}", message),))


_ID = "msg_0198c1a2b3c47000a1b2c3d4e5f60718"
_DRAFT = {
    "from": "Shop <orders@example.com>",
    "to": ["ann@example.org"],
    "subject": "Your order 1042",
    "text": "Thank you, Ann.",
    "html": "<p>Thank you, Ann.</p>",
    "tags": ["order"],
    "metadata": {"order": "1042"},
}
_FAN_OUT = {
    "from": "Shop <news@example.com>",
    "template": "news",
    "stream": "broadcast",
    "recipients": [{"to": "ann@example.org", "variables": {"name": "Ann"}}],
}
_TIME = "2026-11-22T12:00:00.000000Z"
_MESSAGE = {
    "id": _ID,
    "status": "delivered",
    "from": "orders@example.com",
    "stream": "transactional",
    "lane": "transactional",
    "created_at": _TIME,
    "send_at": _TIME,
    "expires_at": "2026-11-25T12:00:00.000000Z",
    "recipients": [{"address": "ann@example.org", "status": "delivered", "attempts": 1, "updated_at": _TIME}],
    "subject": "Your order 1042",
}
_EVENT = {
    "id": "evt_0198c1a2b3c47000a1b2c3d4e5f60718",
    "type": "delivered",
    "at": _TIME,
    "stage": "send",
    "recipient": "ann@example.org",
    "data": {"reply": "250 2.0.0 Ok"},
}
_STORY = {
    "id": _ID,
    "status": "delivered",
    "summary": "Delivered to 1 of 1 recipient.",
    "story": [{"at": _TIME, "text": "Accepted from the key key_… on the stream transactional."}],
}

OPERATIONS = (
    Operation(
        "send_message",
        "POST",
        "/v1/messages",
        "Send a message",
        send,
        "Messages",
        SEND,
        description="Answered with 202 once the message is on disk. `Idempotency-Key` makes a retry safe.",
        body=MESSAGE,
        answer=Accepted,
        status=202,
        idempotent=True,
        limited=True,
        example=_DRAFT,
        answer_example={
            "id": _ID,
            "status": "queued",
            "recipients": [{"address": "ann@example.org", "status": "queued"}],
        },
        problems=(404, 409),
    ),
    Operation(
        "send_batch",
        "POST",
        "/v1/messages/batch",
        "Send many messages",
        send_batch,
        "Messages",
        SEND,
        description="Either up to 1,000 independent `messages`, or one content for up to 10,000 `recipients`, each with"
        " variables of their own. A bad item does not keep the others out, unless `all_or_nothing` is set.",
        body=BATCH,
        answer=BatchAnswer,
        status=202,
        idempotent=True,
        limited=True,
        example=_FAN_OUT,
        answer_example={"results": [{"id": _ID}]},
        problems=(404, 409),
    ),
    Operation(
        "list_messages",
        "GET",
        "/v1/messages",
        "List messages",
        list_messages,
        "Messages",
        READ,
        description="Newest first.",
        query=QUERY,
        answer=Listed[MessageView],
        limited=True,
        answer_example={"data": [_MESSAGE], "next": None},
    ),
    Operation(
        "get_message",
        "GET",
        "/v1/messages/{id}",
        "Get a message",
        get,
        "Messages",
        READ,
        answer=MessageView,
        limited=True,
        answer_example=_MESSAGE,
    ),
    Operation(
        "reschedule_message",
        "PATCH",
        "/v1/messages/{id}",
        "Change when it is sent",
        reschedule,
        "Messages",
        SEND,
        description="While it is scheduled.",
        body=RESCHEDULE,
        answer=MessageView,
        limited=True,
        example={"send_at": "2026-12-01T08:00:00Z"},
        answer_example=_MESSAGE,
        problems=(409,),
    ),
    Operation(
        "cancel_message",
        "POST",
        "/v1/messages/{id}/cancel",
        "Cancel it",
        cancel,
        "Messages",
        SEND,
        description="For the recipients it has not gone to yet.",
        answer=MessageView,
        limited=True,
        answer_example=_MESSAGE,
        problems=(409,),
    ),
    Operation(
        "list_message_events",
        "GET",
        "/v1/messages/{id}/events",
        "Everything that happened to it",
        events,
        "Messages",
        READ,
        answer=Events,
        limited=True,
        answer_example={"data": [_EVENT], "next": None},
    ),
    Operation(
        "explain_message",
        "GET",
        "/v1/messages/{id}/explain",
        "Its story in sentences",
        explain,
        "Messages",
        READ,
        answer=Explanation,
        limited=True,
        answer_example=_STORY,
    ),
    Operation(
        "get_message_content",
        "GET",
        "/v1/messages/{id}/content",
        "The message as it was sent",
        content,
        "Messages",
        READ,
        media="message/rfc822",
        limited=True,
        problems=(409,),
    ),
)
