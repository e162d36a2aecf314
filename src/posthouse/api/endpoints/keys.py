"""`/v1/keys` and `/v1/me`: a tenant's API keys."""

from __future__ import annotations

from posthouse.accounts import limits
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import by_id, created, ok
from posthouse.api.drafts import KeyDraft, PageQuery
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.views import KeyView, Listed, MeView, key_view, tenant_view
from posthouse.clock import from_datetime
from posthouse.storage.records.base import Tx

DRAFT = Body(KeyDraft)
QUERY = Query(PageQuery)
KEYS = frozenset({Scope.KEYS})


async def create(context: Context, call: Call) -> Reply:
    return await create_for(context, call, call.caller.tenant.id)


async def create_for(context: Context, call: Call, tenant_id: str) -> Reply:
    """A key of that tenant; a replay answers it without its secret."""
    draft = DRAFT.read(call.data)
    made = await context.services.accounts.create_key(
        tenant_id,
        draft.name,
        draft.scopes,
        domain=draft.domain,
        expires_at=None if draft.expires_at is None else from_datetime(draft.expires_at),
        by=call.caller,
    )
    return created(key_view(made.key, made.secret), keep=key_view(made.key))


async def list_keys(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    after = cursors.decode("keys", query.cursor) or ""
    found = await context.services.accounts.list_keys(call.caller.tenant.id, after=after, limit=query.limit + 1)
    return by_id("keys", found, [key_view(key) for key in found], query.limit)


async def get(context: Context, call: Call) -> Reply:
    return ok(key_view(await context.services.accounts.access_key(call.caller.tenant.id, call.path["id"])))


async def revoke(context: Context, call: Call) -> Reply:
    return ok(key_view(await context.services.accounts.revoke_key(call.caller.tenant.id, call.path["id"])))


async def me(context: Context, call: Call) -> Reply:
    caller = call.caller

    async def work(tx: Tx) -> int:
        return await limits.used(tx, caller.tenant.id, now=context.services.clock())

    today = await context.services.records.read(work)
    return ok(MeView(tenant_view(caller.tenant), caller.key_id, sorted(caller.scopes), today, caller.domain))


_KEY = {
    "id": "key_0198c1a2b3c47000a1b2c3d4e5f60718",
    "name": "shop",
    "hint": "x7Qz",
    "scopes": ["read", "send"],
    "created_at": "2026-11-22T12:00:00.000000Z",
}
TENANT_EXAMPLE = {
    "id": "ten_0198c1a2b3c47000a1b2c3d4e5f60718",
    "name": "shop",
    "rate_per_second": 1000,
    "burst": 10000,
    "daily_quota": 0,
    "created_at": "2026-11-22T12:00:00.000000Z",
}

OPERATIONS = (
    Operation(
        id="create_key",
        method="POST",
        path="/v1/keys",
        summary="Create an API key",
        handler=create,
        tag="Keys",
        scopes=KEYS,
        description="The answer holds the secret, once. A key cannot give what it does not have itself.",
        body=DRAFT,
        answer=KeyView,
        status=201,
        once=True,
        example={"name": "shop", "scopes": ["send", "read"], "domain": "example.com"},
        answer_example=_KEY | {"secret": "ph_…"},
    ),
    Operation(
        id="list_keys",
        method="GET",
        path="/v1/keys",
        summary="List API keys",
        handler=list_keys,
        tag="Keys",
        scopes=KEYS,
        description="Oldest first, revoked ones as well.",
        query=QUERY,
        answer=Listed[KeyView],
        answer_example={"data": [_KEY], "next": None},
    ),
    Operation(
        id="get_key",
        method="GET",
        path="/v1/keys/{id}",
        summary="Get an API key",
        handler=get,
        tag="Keys",
        scopes=KEYS,
        answer=KeyView,
        answer_example=_KEY,
    ),
    Operation(
        id="revoke_key",
        method="DELETE",
        path="/v1/keys/{id}",
        summary="Revoke an API key",
        handler=revoke,
        tag="Keys",
        scopes=KEYS,
        description="For good. It is refused at once in the process that answers, and within 5 s in others.",
        answer=KeyView,
        answer_example=_KEY | {"revoked_at": "2026-11-23T12:00:00.000000Z"},
    ),
    Operation(
        id="get_me",
        method="GET",
        path="/v1/me",
        summary="Whose key this is",
        handler=me,
        tag="Keys",
        scopes=frozenset(),
        answer=MeView,
        answer_example={
            "tenant": TENANT_EXAMPLE,
            "key_id": _KEY["id"],
            "scopes": ["read", "send"],
            "messages_today": 17,
        },
    ),
)
