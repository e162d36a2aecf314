"""`/v1/domains`: each answer holds the DNS records to publish."""

from __future__ import annotations

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import created, listed, nothing, ok
from posthouse.api.drafts import DomainDraft, PageQuery
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.views import DomainView, Listed, RecordView, domain_view
from posthouse.domains.model import Domain
from posthouse.domains.name import normalise
from posthouse.domains.service import ALGORITHMS

DRAFT = Body(DomainDraft)
QUERY = Query(PageQuery)
READ = frozenset({Scope.READ, Scope.DOMAINS})
WRITE = frozenset({Scope.DOMAINS})


async def create(context: Context, call: Call) -> Reply:
    draft = DRAFT.read(call.data)
    bound = call.caller.domain
    if bound is not None and normalise(draft.name) != bound:
        raise errors.Forbidden(f"This key is bound to {bound}", code="key_bound")
    domain = await context.services.domains.create(call.caller.tenant.id, draft.name, draft.algorithms or ALGORITHMS)
    return created(_view(context, domain))


async def list_domains(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    position = cursors.decode("domains", query.cursor)
    found, after = await context.services.domains.list(call.caller.tenant.id, cursor=position, limit=query.limit)
    return listed("domains", [_view(context, domain) for domain in found], after)


async def get(context: Context, call: Call) -> Reply:
    return ok(_view(context, await context.services.domains.get(call.caller.tenant.id, _name(call))))


async def delete(context: Context, call: Call) -> Reply:
    await context.services.domains.delete(call.caller.tenant.id, _bound_name(call))
    return nothing()


async def verify(context: Context, call: Call) -> Reply:
    return ok(_view(context, await context.services.domains.verify(call.caller.tenant.id, _bound_name(call))))


async def rotate(context: Context, call: Call) -> Reply:
    return ok(_view(context, await context.services.domains.rotate(call.caller.tenant.id, _bound_name(call))))


def _view(context: Context, domain: Domain) -> DomainView:
    records = [
        RecordView(one.purpose, one.type, one.name, one.value, one.strings, one.required, one.note)
        for one in context.services.domains.dns_records(domain)
    ]
    return domain_view(domain, records)


def _name(call: Call) -> str:
    """A path that is no domain name is a domain that does not exist."""
    try:
        return normalise(call.path["name"])
    except errors.Invalid:
        raise _absent() from None


def _bound_name(call: Call) -> str:
    """For changes: a key bound to a domain does not reach another."""
    name = _name(call)
    if call.caller.domain not in (None, name):
        raise _absent()
    return name


def _absent() -> errors.NotFound:
    return errors.NotFound("There is no such domain", code="domain_not_found")


_TIME = "2026-11-22T12:00:00.000000Z"
_DOMAIN = {
    "id": "dom_0198c1a2b3c47000a1b2c3d4e5f60718",
    "name": "example.com",
    "state": "pending",
    "created_at": _TIME,
    "records": [
        {
            "purpose": "dkim-rsa",
            "type": "TXT",
            "name": "ph2611r1a2b._domainkey.example.com",
            "value": "v=DKIM1; k=rsa; p=MIIB…",
            "strings": '"v=DKIM1; k=rsa; p=MIIB…"',
            "required": True,
            "note": "Signs your mail.",
        }
    ],
    "dkim_keys": [{"selector": "ph2611r1a2b", "algorithm": "rsa-sha256", "status": "active", "created_at": _TIME}],
}

OPERATIONS = (
    Operation(
        id="create_domain",
        method="POST",
        path="/v1/domains",
        summary="Add a domain to send from",
        handler=create,
        tag="Domains",
        scopes=WRITE,
        description="Makes its DKIM keys; the answer lists the DNS records to publish.",
        body=DRAFT,
        answer=DomainView,
        status=201,
        once=True,
        example={"name": "example.com"},
        answer_example=_DOMAIN,
        problems=(409,),
    ),
    Operation(
        id="list_domains",
        method="GET",
        path="/v1/domains",
        summary="List domains",
        handler=list_domains,
        tag="Domains",
        scopes=READ,
        description="By name.",
        query=QUERY,
        answer=Listed[DomainView],
        answer_example={"data": [_DOMAIN], "next": None},
    ),
    Operation(
        id="get_domain",
        method="GET",
        path="/v1/domains/{name}",
        summary="Get a domain",
        handler=get,
        tag="Domains",
        scopes=READ,
        answer=DomainView,
        answer_example=_DOMAIN,
    ),
    Operation(
        id="delete_domain",
        method="DELETE",
        path="/v1/domains/{name}",
        summary="Remove a domain and its keys",
        handler=delete,
        tag="Domains",
        scopes=WRITE,
        status=204,
    ),
    Operation(
        id="verify_domain",
        method="POST",
        path="/v1/domains/{name}/verify",
        summary="Look its records up in DNS",
        handler=verify,
        tag="Domains",
        scopes=WRITE,
        description="The answer tells, for each record, what was expected and what was found.",
        answer=DomainView,
        answer_example=_DOMAIN,
        problems=(409,),
    ),
    Operation(
        id="rotate_domain",
        method="POST",
        path="/v1/domains/{name}/rotate",
        summary="Make new DKIM keys",
        handler=rotate,
        tag="Domains",
        scopes=WRITE,
        description="The present ones sign on until `verify` has seen the new ones in DNS.",
        answer=DomainView,
        answer_example=_DOMAIN,
        problems=(409,),
    ),
)
