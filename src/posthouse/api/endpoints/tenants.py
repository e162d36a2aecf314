"""`/v1/tenants`: for operators."""

from __future__ import annotations

from posthouse import errors
from posthouse.accounts.model import Limits, Scope
from posthouse.api import cursors
from posthouse.api.answers import by_id, created, ok
from posthouse.api.drafts import PageQuery, TenantChange, TenantDraft
from posthouse.api.endpoints import keys
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.views import KeyView, Listed, TenantView, tenant_view

DRAFT = Body(TenantDraft)
CHANGE = Body(TenantChange)
QUERY = Query(PageQuery)
OPERATOR = frozenset({Scope.OPERATOR})


async def create(context: Context, call: Call) -> Reply:
    draft = DRAFT.read(call.data)
    accounts = context.services.accounts
    return created(tenant_view(await accounts.create_tenant(draft.name, _limits(draft, accounts.defaults))))


async def list_tenants(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    after = cursors.decode("tenants", query.cursor) or ""
    found = await context.services.accounts.list_tenants(after=after, limit=query.limit + 1)
    return by_id("tenants", found, [tenant_view(tenant) for tenant in found], query.limit)


async def get(context: Context, call: Call) -> Reply:
    return ok(tenant_view(await context.services.accounts.access_tenant(call.path["id"])))


async def update(context: Context, call: Call) -> Reply:
    change = CHANGE.read(call.data)
    accounts = context.services.accounts
    tenant = await accounts.access_tenant(call.path["id"])
    if change.suspended and tenant.id == call.caller.tenant.id:
        raise errors.Conflict("An operator cannot suspend the tenant of its own key", code="own_tenant")
    limits = _limits(change, tenant.limits)
    changed = await accounts.update_tenant(tenant.id, name=change.name, limits=limits, suspended=change.suspended)
    return ok(tenant_view(changed))


async def create_key(context: Context, call: Call) -> Reply:
    return await keys.create_for(context, call, call.path["id"])


def _limits(given: TenantDraft | TenantChange, base: Limits) -> Limits:
    return Limits(
        base.rate_per_second if given.rate_per_second is None else given.rate_per_second,
        base.burst if given.burst is None else given.burst,
        base.daily_quota if given.daily_quota is None else given.daily_quota,
    )


OPERATIONS = (
    Operation(
        id="create_tenant",
        method="POST",
        path="/v1/tenants",
        summary="Create a tenant",
        handler=create,
        tag="Tenants",
        scopes=OPERATOR,
        description="With the streams `critical`, `transactional` and `broadcast`, and no key yet.",
        body=DRAFT,
        answer=TenantView,
        status=201,
        once=True,
        example={"name": "shop", "daily_quota": 100000},
        answer_example=keys.TENANT_EXAMPLE,
        problems=(409,),
    ),
    Operation(
        id="list_tenants",
        method="GET",
        path="/v1/tenants",
        summary="List tenants",
        handler=list_tenants,
        tag="Tenants",
        scopes=OPERATOR,
        description="Oldest first.",
        query=QUERY,
        answer=Listed[TenantView],
        answer_example={"data": [keys.TENANT_EXAMPLE], "next": None},
    ),
    Operation(
        id="get_tenant",
        method="GET",
        path="/v1/tenants/{id}",
        summary="Get a tenant",
        handler=get,
        tag="Tenants",
        scopes=OPERATOR,
        answer=TenantView,
        answer_example=keys.TENANT_EXAMPLE,
    ),
    Operation(
        id="update_tenant",
        method="PATCH",
        path="/v1/tenants/{id}",
        summary="Change or suspend a tenant",
        handler=update,
        tag="Tenants",
        scopes=OPERATOR,
        body=CHANGE,
        answer=TenantView,
        example={"daily_quota": 200000, "suspended": False},
        answer_example=keys.TENANT_EXAMPLE | {"daily_quota": 200000},
        problems=(409,),
    ),
    Operation(
        id="create_tenant_key",
        method="POST",
        path="/v1/tenants/{id}/keys",
        summary="Create a tenant's API key",
        handler=create_key,
        tag="Tenants",
        scopes=OPERATOR,
        description="Its first one; with the scope `keys` it makes the others itself.",
        body=keys.DRAFT,
        answer=KeyView,
        status=201,
        once=True,
        example={"name": "first", "scopes": ["send", "read", "keys"]},
        answer_example={
            "id": "key_0198c1a2b3c47000a1b2c3d4e5f60718",
            "name": "first",
            "hint": "x7Qz",
            "scopes": ["keys", "read", "send"],
            "created_at": "2026-11-22T12:00:00.000000Z",
            "secret": "ph_…",
        },
    ),
)
