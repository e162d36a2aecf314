"""`/v1/aliases`: addresses that lead to others: one, a group, or whatever else a domain gets."""

from __future__ import annotations

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import created, listed, nothing, ok
from posthouse.api.doors import check_bound
from posthouse.api.drafts import PageQuery
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.mail_drafts import AliasDraft
from posthouse.api.mail_shown import alias_view
from posthouse.api.mail_views import AliasView
from posthouse.api.operations import Context, Operation
from posthouse.api.views import Listed
from posthouse.directory.model import Alias

DRAFT = Body(AliasDraft)
QUERY = Query(PageQuery)
MAIL = frozenset({Scope.MAIL})


async def put(context: Context, call: Call) -> Reply:
    draft = DRAFT.read(call.data)
    check_bound(call, draft.address.rpartition("@")[2])
    made = await context.services.mail.directory.set_alias(
        call.caller.tenant.id, draft.address, draft.targets, kind=draft.kind
    )
    return created(alias_view(made))


async def list_all(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    after = cursors.decode("aliases", query.cursor) or ""
    found = await context.services.mail.directory.list_aliases(
        call.caller.tenant.id, after=after, limit=query.limit + 1
    )
    more = found[query.limit - 1].address if len(found) > query.limit else None
    bound = call.caller.domain
    shown = [one for one in found[: query.limit] if bound in (None, one.address.rpartition("@")[2])]
    return listed("aliases", [alias_view(one) for one in shown], more)


async def get(context: Context, call: Call) -> Reply:
    return ok(alias_view(await _alias(context, call)))


async def delete(context: Context, call: Call) -> Reply:
    alias = await _alias(context, call)
    await context.services.mail.directory.remove_alias(call.caller.tenant.id, alias.address)
    return nothing()


async def _alias(context: Context, call: Call) -> Alias:
    """A path that is no address is an alias that does not exist."""
    try:
        found = await context.services.mail.directory.get_alias(call.caller.tenant.id, call.path["address"])
    except errors.Invalid:
        raise _absent() from None
    if call.caller.domain not in (None, found.address.rpartition("@")[2]):
        raise _absent()
    return found


def _absent() -> errors.NotFound:
    return errors.NotFound("There is no such alias", code="alias_not_found")


_ALIAS = {
    "address": "sales@example.com",
    "kind": "group",
    "targets": ["ann@example.com", "bob@example.org"],
    "created_at": "2026-11-22T12:00:00.000000Z",
}

OPERATIONS = (
    Operation(
        id="set_alias",
        method="POST",
        path="/v1/aliases",
        summary="Make an alias, or give it other targets",
        handler=put,
        tag="Aliases",
        scopes=MAIL,
        description="`@example.com` stands for every address there that nobody has.",
        body=DRAFT,
        answer=AliasView,
        status=201,
        once=True,
        example={"address": "sales@example.com", "targets": ["bob@example.org"]},
        answer_example=_ALIAS,
        problems=(404, 409),
    ),
    Operation(
        id="list_aliases",
        method="GET",
        path="/v1/aliases",
        summary="List aliases",
        handler=list_all,
        tag="Aliases",
        scopes=MAIL,
        description="By address.",
        query=QUERY,
        answer=Listed[AliasView],
        answer_example={"data": [_ALIAS], "next": None},
    ),
    Operation(
        id="get_alias",
        method="GET",
        path="/v1/aliases/{address}",
        summary="Get an alias",
        handler=get,
        tag="Aliases",
        scopes=MAIL,
        answer=AliasView,
        answer_example=_ALIAS,
    ),
    Operation(
        id="delete_alias",
        method="DELETE",
        path="/v1/aliases/{address}",
        summary="Remove an alias",
        handler=delete,
        tag="Aliases",
        scopes=MAIL,
        status=204,
    ),
)
