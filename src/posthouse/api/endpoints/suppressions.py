"""`/v1/suppressions`: who is not written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import created, listed, ok
from posthouse.api.drafts import Cursor, Limit, Request, SuppressionDraft, SuppressionsDraft
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.views import Listed, SuppressionView, suppression_view
from posthouse.clock import from_datetime
from posthouse.errors import Fault
from posthouse.outbound.model import Line
from posthouse.suppression.model import ALL_STREAMS, Entry, Suppression


class SuppressionQuery(Request, frozen=True, kw_only=True):
    address: Line | None = None
    reason: Literal["bounce", "complaint", "unsubscribe", "manual"] | None = None
    stream: Annotated[Line, Meta(description="Those of this stream only; empty: those of every stream")] | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class StreamQuery(Request, frozen=True, kw_only=True):
    stream: Annotated[Line, Meta(description="The one of this stream, not that of every stream")] | None = None


class _Kind(msgspec.Struct, frozen=True):
    suppressions: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


ONE = Body(SuppressionDraft)
MANY = Body(SuppressionsDraft)
EITHER = Body(_Kind, documented=(SuppressionDraft, SuppressionsDraft))
QUERY = Query(SuppressionQuery)
STREAM = Query(StreamQuery)
READ = frozenset({Scope.READ, Scope.SUPPRESSIONS})
WRITE = frozenset({Scope.SUPPRESSIONS})


async def add(context: Context, call: Call) -> Reply:
    many = EITHER.read(call.data).suppressions is not msgspec.UNSET
    drafts = MANY.read(call.data).suppressions if many else [ONE.read(call.data)]
    ids = await _stream_ids(context, call)
    base = "/suppressions/{}" if many else ""
    entries = [
        Entry(
            draft.address,
            draft.reason,
            _stream_id(ids, draft.stream, base.format(n) + "/stream"),
            f"api:{call.caller.key_id}",
            draft.evidence,
            None if draft.expires_at is None else from_datetime(draft.expires_at),
        )
        for n, draft in enumerate(drafts)
    ]
    try:
        added = await context.services.suppressions.add(call.caller.tenant.id, entries)
    except errors.Invalid as error:
        raise _repointed(error, many=many) from None
    return _many(added, ids, status=201)


async def list_suppressions(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    ids = await _stream_ids(context, call)
    found, after = await context.services.suppressions.list(
        call.caller.tenant.id,
        address=query.address,
        reason=query.reason,
        stream_id=None if query.stream is None else _stream_id(ids, query.stream, "?stream"),
        cursor=cursors.decode("suppressions", query.cursor),
        limit=query.limit,
    )
    return listed("suppressions", _views(found, ids), after)


async def get(context: Context, call: Call) -> Reply:
    ids = await _stream_ids(context, call)
    stream_id = _stream_id(ids, STREAM.read(call.query_string).stream, "?stream")
    found = await context.services.suppressions.get(call.caller.tenant.id, _address(call), stream_id)
    return ok(_views([found], ids)[0])


async def remove(context: Context, call: Call) -> Reply:
    ids = await _stream_ids(context, call)
    stream_id = _stream_id(ids, STREAM.read(call.query_string).stream, "?stream")
    removed = await context.services.suppressions.remove(
        call.caller.tenant.id, _address(call), stream_id, complaints_too=call.caller.operator
    )
    return ok(_views([removed], ids)[0])


def _address(call: Call) -> str:
    """A path that is no address is one that is not listed."""
    address = call.path["address"]
    if "@" not in address or not address.isprintable():
        raise errors.NotFound("This address is not suppressed", code="suppression_not_found")
    return address


async def _stream_ids(context: Context, call: Call) -> Mapping[str, str]:
    """The tenant's streams' ids by name."""
    return {name: stream.id for name, stream in (await context.services.streams.of(call.caller.tenant.id)).items()}


def _stream_id(ids: Mapping[str, str], name: str | None, pointer: str) -> str:
    if not name:
        return ALL_STREAMS
    if name not in ids:
        message = "There is no such stream"
        raise errors.Invalid(message, code="stream_not_found", faults=(Fault(pointer, message),))
    return ids[name]


def _views(found: Sequence[Suppression], ids: Mapping[str, str]) -> list[SuppressionView]:
    names = {stream_id: name for name, stream_id in ids.items()}
    return [suppression_view(one, names.get(one.stream_id)) for one in found]


def _many(found: Sequence[Suppression], ids: Mapping[str, str], *, status: int) -> Reply:
    reply = created(Listed(_views(found, ids), None))
    reply.status = status
    return reply


def _repointed(error: errors.Invalid, *, many: bool) -> errors.Invalid:
    """The service numbers the entries; the body has them elsewhere."""
    prefix = "/suppressions" if many else ""
    faults = tuple(
        Fault(prefix + (fault.pointer if many else "/" + fault.pointer.lstrip("/").partition("/")[2]), fault.message)
        for fault in error.faults
    )
    return type(error)(error.public, code=error.code, faults=faults)


_ONE = {
    "address": "ann@example.org",
    "reason": "bounce",
    "source": "smtp",
    "created_at": "2026-11-22T12:00:00.000000Z",
    "evidence": "550 5.1.1 no such user",
}

OPERATIONS = (
    Operation(
        id="add_suppressions",
        method="POST",
        path="/v1/suppressions",
        summary="Suppress one address or many",
        handler=add,
        tag="Suppressions",
        scopes=WRITE,
        description="One, or up to 10,000 in `suppressions`. An address that is listed already takes the new reason.",
        body=EITHER,
        answer=Listed[SuppressionView],
        status=201,
        once=True,
        example={"address": "ann@example.org", "reason": "manual", "evidence": "asked by phone"},
        answer_example={"data": [_ONE], "next": None},
    ),
    Operation(
        id="list_suppressions",
        method="GET",
        path="/v1/suppressions",
        summary="List suppressed addresses",
        handler=list_suppressions,
        tag="Suppressions",
        scopes=READ,
        description="By address.",
        query=QUERY,
        answer=Listed[SuppressionView],
        answer_example={"data": [_ONE], "next": None},
    ),
    Operation(
        id="get_suppression",
        method="GET",
        path="/v1/suppressions/{address}",
        summary="Whether and why an address is suppressed",
        handler=get,
        tag="Suppressions",
        scopes=READ,
        query=STREAM,
        answer=SuppressionView,
        answer_example=_ONE,
    ),
    Operation(
        id="remove_suppression",
        method="DELETE",
        path="/v1/suppressions/{address}",
        summary="Write to an address again",
        handler=remove,
        tag="Suppressions",
        scopes=WRITE,
        description="Who complained stays, except for an operator.",
        query=STREAM,
        answer=SuppressionView,
        answer_example=_ONE,
        problems=(409,),
    ),
)
