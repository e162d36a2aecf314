"""`/v1/inbound` and `/v1/refusals`: what came to our door, what was done with it, and why."""

from __future__ import annotations

from posthouse import errors, ids
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import listed, ok
from posthouse.api.doors import check_unbound
from posthouse.api.http import Call, Query, Reply
from posthouse.api.mail_drafts import ArrivalQuery, RefusalQuery
from posthouse.api.mail_shown import arrival_view, refusal_view
from posthouse.api.mail_views import ArrivalView, RefusalView
from posthouse.api.operations import Context, Operation
from posthouse.api.views import Listed
from posthouse.clock import from_datetime
from posthouse.events.story import Explanation
from posthouse.inbound.explain import Refusal, explain_refusal
from posthouse.inbound.journal import Refused, Wanted
from posthouse.outbound.model import Moment

ARRIVALS = Query(ArrivalQuery)
REFUSALS = Query(RefusalQuery)
EITHER = frozenset({Scope.MAIL, Scope.READ})


async def list_arrivals(context: Context, call: Call) -> Reply:
    query = ARRIVALS.read(call.query_string)
    check_unbound(call)
    tenant_id, mail = call.caller.tenant.id, context.services.mail
    account = None
    if query.account is not None:
        account = (await mail.directory.get_account(tenant_id, query.account)).number
    wanted = Wanted(query.address, account, query.state, _at(query.since), _at(query.until))
    before = cursors.decode("inbound", query.cursor)
    found, after = await mail.journal.arrivals(tenant_id, wanted, before=before, limit=query.limit)
    return listed("inbound", [arrival_view(one, whole=False) for one in found], after)


async def get_arrival(context: Context, call: Call) -> Reply:
    check_unbound(call)
    found = await context.services.mail.journal.arrival(call.caller.tenant.id, _id(call, "inb"))
    return ok(arrival_view(found, whole=True))


async def explain_arrival(context: Context, call: Call) -> Reply:
    check_unbound(call)
    return ok(await context.services.mail.journal.explain(call.caller.tenant.id, _id(call, "inb")))


async def list_refusals(context: Context, call: Call) -> Reply:
    query = REFUSALS.read(call.query_string)
    check_unbound(call)
    if query.foreign and not call.caller.operator:
        raise errors.Forbidden("Only an operator sees what was refused for domains that are nobody's here")
    wanted = Refused(query.recipient, query.peer, _at(query.since), _at(query.until), query.foreign)
    before = cursors.decode("refusals", query.cursor)
    journal = context.services.mail.journal
    found, after = await journal.refusals(call.caller.tenant.id, wanted, before=before, limit=query.limit)
    return listed("refusals", [refusal_view(one, whole=False) for one in found], after)


async def get_refusal(context: Context, call: Call) -> Reply:
    return ok(refusal_view(await _refusal(context, call), whole=True))


async def explain_refused(context: Context, call: Call) -> Reply:
    return ok(explain_refusal(await _refusal(context, call)))


async def _refusal(context: Context, call: Call) -> Refusal:
    check_unbound(call)
    owners = [call.caller.tenant.id, *([""] if call.caller.operator else [])]
    return await context.services.mail.journal.refusal(owners, _id(call, "rfs"))


def _id(call: Call, prefix: str) -> str:
    """A path that is no id is of a thing that does not exist."""
    if ids.is_id(call.path["id"], prefix):
        return call.path["id"]
    if prefix == "inb":
        raise errors.NotFound("There is no such arrival", code="arrival_not_found")
    raise errors.NotFound("There is no such refusal", code="refusal_not_found")


def _at(moment: Moment | None) -> int | None:
    return None if moment is None else from_datetime(moment)


_TIME = "2026-11-22T12:00:00.000000Z"
_ARRIVAL = {
    "id": "inb_0198c1a2b3c47000a1b2c3d4e5f60718",
    "received_at": _TIME,
    "size": 6144,
    "sender": "bounces@shop.example",
    "recipients": [
        {
            "address": "ann@example.com",
            "state": "stored",
            "account": "ann@example.com",
            "email": 12,
            "thread": 7,
            "mailboxes": ["Inbox"],
            "done_at": _TIME,
        }
    ],
    "peer": "192.0.2.7",
    "helo": "mail.shop.example",
}
_REFUSAL = {
    "id": "rfs_0198c1a2b3c47000a1b2c3d4e5f60718",
    "at": _TIME,
    "peer": "192.0.2.9",
    "helo": "host.example.net",
    "sender": "x@example.net",
    "recipient": "nobody@example.com",
    "stage": "rcpt",
    "reply": "550 5.1.1 Nobody here has this address",
    "reason": "unknown_recipient",
}
_STORY = {
    "id": "inb_0198c1a2b3c47000a1b2c3d4e5f60718",
    "status": "stored",
    "summary": "Stored.",
    "story": [{"at": _TIME, "text": "Received by SMTP from the world.", "recipient": None}],
}

OPERATIONS = (
    Operation(
        id="list_arrivals",
        method="GET",
        path="/v1/inbound",
        summary="List messages that were taken",
        handler=list_arrivals,
        tag="Inbound",
        scopes=EITHER,
        description="Newest first, with the recipients that are yours. A page may be short, or empty, with more "
        "behind `next`: a request looks at a bounded number of messages.",
        query=ARRIVALS,
        answer=Listed[ArrivalView],
        answer_example={"data": [_ARRIVAL], "next": None},
        problems=(404,),
    ),
    Operation(
        id="get_arrival",
        method="GET",
        path="/v1/inbound/{id}",
        summary="What is known about one, with its evidence and verdict",
        handler=get_arrival,
        tag="Inbound",
        scopes=EITHER,
        answer=ArrivalView,
        answer_example=_ARRIVAL,
    ),
    Operation(
        id="explain_arrival",
        method="GET",
        path="/v1/inbound/{id}/explain",
        summary="Its story in sentences",
        handler=explain_arrival,
        tag="Inbound",
        scopes=EITHER,
        answer=Explanation,
        answer_example=_STORY,
    ),
    Operation(
        id="list_refusals",
        method="GET",
        path="/v1/refusals",
        summary="List what was refused in the session",
        handler=list_refusals,
        tag="Refusals",
        scopes=EITHER,
        description="Newest first. A page may be short, or empty, with more behind `next`.",
        query=REFUSALS,
        answer=Listed[RefusalView],
        answer_example={"data": [_REFUSAL], "next": None},
    ),
    Operation(
        id="get_refusal",
        method="GET",
        path="/v1/refusals/{id}",
        summary="One refusal, by the id that ended the reply",
        handler=get_refusal,
        tag="Refusals",
        scopes=EITHER,
        answer=RefusalView,
        answer_example=_REFUSAL,
    ),
    Operation(
        id="explain_refusal",
        method="GET",
        path="/v1/refusals/{id}/explain",
        summary="Why it was refused, in sentences",
        handler=explain_refused,
        tag="Refusals",
        scopes=EITHER,
        answer=Explanation,
        answer_example={**_STORY, "id": _REFUSAL["id"], "status": "refused"},
    ),
)
