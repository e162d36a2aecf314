"""`/v1/mail-domains`: domains that mail is received for, and how."""

from __future__ import annotations

from typing import Any

import msgspec

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import created, listed, nothing, ok
from posthouse.api.doors import check_bound
from posthouse.api.drafts import PageQuery
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.mail_drafts import MailDomainChange, MailDomainDraft, MailSettings
from posthouse.api.mail_shown import mail_domain_view
from posthouse.api.mail_views import MailDomainView
from posthouse.api.operations import Context, Operation
from posthouse.api.views import Listed
from posthouse.directory.model import DomainSettings
from posthouse.domains.name import normalise

DRAFT = Body(MailDomainDraft)
CHANGE = Body(MailDomainChange)
QUERY = Query(PageQuery)
MAIL = frozenset({Scope.MAIL})


async def create(context: Context, call: Call) -> Reply:
    draft = DRAFT.read(call.data)
    check_bound(call, draft.name)
    settings = changed(DomainSettings(), draft.settings)
    made = await context.services.mail.directory.add_domain(call.caller.tenant.id, draft.name, settings)
    return created(mail_domain_view(made))


async def list_all(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    after = cursors.decode("mail-domains", query.cursor) or ""
    found = await context.services.mail.directory.list_domains(
        call.caller.tenant.id, after=after, limit=query.limit + 1
    )
    shown = [mail_domain_view(one) for one in found[: query.limit] if call.caller.domain in (None, one.name)]
    return listed("mail-domains", shown, found[query.limit - 1].name if len(found) > query.limit else None)


async def get(context: Context, call: Call) -> Reply:
    return ok(mail_domain_view(await context.services.mail.directory.get_domain(call.caller.tenant.id, _name(call))))


async def change(context: Context, call: Call) -> Reply:
    draft = CHANGE.read(call.data)
    domain = await context.services.mail.directory.set_domain(
        call.caller.tenant.id, _name(call), lambda before: changed(before, draft.settings)
    )
    return ok(mail_domain_view(domain))


async def delete(context: Context, call: Call) -> Reply:
    await context.services.mail.directory.remove_domain(call.caller.tenant.id, _name(call))
    return nothing()


def changed(before: DomainSettings, draft: MailSettings) -> DomainSettings:
    given: dict[str, Any] = {
        name: value for name in draft.__struct_fields__ if (value := getattr(draft, name)) is not None
    }
    return msgspec.structs.replace(before, **given)


def _name(call: Call) -> str:
    """A path that is no domain name, or not the one the key is bound to, is one that does not exist."""
    try:
        name = normalise(call.path["name"])
    except errors.Invalid:
        name = ""
    if not name or call.caller.domain not in (None, name):
        raise errors.NotFound("Mail for this domain is not received here", code="mail_domain_not_found")
    return name


_DOMAIN = {
    "name": "example.com",
    "settings": {"spam": "junk", "dmarc": "follow", "greylist": False, "plus": "+", "quota": 0, "quota_all": 0},
    "created_at": "2026-11-22T12:00:00.000000Z",
}

OPERATIONS = (
    Operation(
        id="create_mail_domain",
        method="POST",
        path="/v1/mail-domains",
        summary="Receive mail for a domain",
        handler=create,
        tag="Mail domains",
        scopes=MAIL,
        description="From then on mail for its addresses is taken; point its MX record here.",
        body=DRAFT,
        answer=MailDomainView,
        status=201,
        once=True,
        example={"name": "example.com"},
        answer_example=_DOMAIN,
        problems=(409,),
    ),
    Operation(
        id="list_mail_domains",
        method="GET",
        path="/v1/mail-domains",
        summary="List the domains that mail is received for",
        handler=list_all,
        tag="Mail domains",
        scopes=MAIL,
        description="By name.",
        query=QUERY,
        answer=Listed[MailDomainView],
        answer_example={"data": [_DOMAIN], "next": None},
    ),
    Operation(
        id="get_mail_domain",
        method="GET",
        path="/v1/mail-domains/{name}",
        summary="Get one with its settings",
        handler=get,
        tag="Mail domains",
        scopes=MAIL,
        answer=MailDomainView,
        answer_example=_DOMAIN,
    ),
    Operation(
        id="change_mail_domain",
        method="PATCH",
        path="/v1/mail-domains/{name}",
        summary="Change how its mail is treated",
        handler=change,
        tag="Mail domains",
        scopes=MAIL,
        body=CHANGE,
        answer=MailDomainView,
        example={"settings": {"greylist": True}},
        answer_example=_DOMAIN,
    ),
    Operation(
        id="delete_mail_domain",
        method="DELETE",
        path="/v1/mail-domains/{name}",
        summary="Receive no more mail for it",
        handler=delete,
        tag="Mail domains",
        scopes=MAIL,
        description="Its accounts and aliases have to go first.",
        status=204,
        problems=(409,),
    ),
)
