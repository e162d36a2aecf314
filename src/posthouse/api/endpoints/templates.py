"""`/v1/templates`"""

from __future__ import annotations

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import created, listed, nothing, ok
from posthouse.api.drafts import PageQuery, PreviewDraft, PublishDraft, TemplateDraft, VersionDraft
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.views import Listed, PreviewView, TemplateView, VersionView, template_view, version_view

DRAFT = Body(TemplateDraft)
VERSION = Body(VersionDraft)
PUBLISH = Body(PublishDraft)
PREVIEW = Body(PreviewDraft)
QUERY = Query(PageQuery)
READ = frozenset({Scope.READ, Scope.TEMPLATES})
WRITE = frozenset({Scope.TEMPLATES})


async def create(context: Context, call: Call) -> Reply:
    draft = DRAFT.read(call.data)
    detail = await context.services.templates.create(
        call.caller.tenant.id,
        draft.name,
        subject=draft.subject,
        html=draft.html,
        text=draft.text,
        publish=draft.publish,
    )
    return created(template_view(detail.template, detail))


async def list_templates(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    position = cursors.decode("templates", query.cursor)
    found, after = await context.services.templates.list(call.caller.tenant.id, cursor=position, limit=query.limit)
    return listed("templates", [template_view(template) for template in found], after)


async def get(context: Context, call: Call) -> Reply:
    detail = await context.services.templates.get(call.caller.tenant.id, call.path["name"])
    return ok(template_view(detail.template, detail))


async def delete(context: Context, call: Call) -> Reply:
    await context.services.templates.delete(call.caller.tenant.id, call.path["name"])
    return nothing()


async def add_version(context: Context, call: Call) -> Reply:
    draft = VERSION.read(call.data)
    version = await context.services.templates.add_version(
        call.caller.tenant.id,
        call.path["name"],
        subject=draft.subject,
        html=draft.html,
        text=draft.text,
        publish=draft.publish,
    )
    return created(version_view(version))


async def get_version(context: Context, call: Call) -> Reply:
    number = call.path["version"]
    if not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise errors.NotFound("There is no such version", code="template_version_not_found")
    tenant_id = call.caller.tenant.id
    return ok(version_view(await context.services.templates.version(tenant_id, call.path["name"], int(number))))


async def publish(context: Context, call: Call) -> Reply:
    draft = PUBLISH.read(call.data)
    tenant_id = call.caller.tenant.id
    return ok(template_view(await context.services.templates.publish(tenant_id, call.path["name"], draft.version)))


async def preview(context: Context, call: Call) -> Reply:
    draft = PREVIEW.read(call.data)
    filled = await context.services.templates.preview(
        call.caller.tenant.id, call.path["name"], draft.version, draft.variables
    )
    return ok(PreviewView(filled.subject, filled.html, filled.text))


_TIME = "2026-11-22T12:00:00.000000Z"
_TEMPLATE = {
    "id": "tpl_0198c1a2b3c47000a1b2c3d4e5f60718",
    "name": "welcome",
    "latest_version": 1,
    "published_version": 1,
    "created_at": _TIME,
    "updated_at": _TIME,
}
_DETAIL = _TEMPLATE | {"versions": [{"version": 1, "subject": "Welcome, {{ name }}", "created_at": _TIME}]}
_SOURCES = {"subject": "Welcome, {{ name }}", "html": "<p>Hello {{ name }}</p>"}
_VERSION = _SOURCES | {
    "version": 2,
    "text": None,
    "created_at": _TIME,
    "variables": ["name"],
    "links": [],
    "warnings": [],
    "text_derived": True,
}

OPERATIONS = (
    Operation(
        id="create_template",
        method="POST",
        path="/v1/templates",
        summary="Create a template",
        handler=create,
        tag="Templates",
        scopes=WRITE,
        description="With version 1. Sources are minijinja; a variable that is missing at sending is an error.",
        body=DRAFT,
        answer=TemplateView,
        status=201,
        once=True,
        example={"name": "welcome"} | _SOURCES,
        answer_example=_DETAIL,
        problems=(409,),
    ),
    Operation(
        id="list_templates",
        method="GET",
        path="/v1/templates",
        summary="List templates",
        handler=list_templates,
        tag="Templates",
        scopes=READ,
        description="By name.",
        query=QUERY,
        answer=Listed[TemplateView],
        answer_example={"data": [_TEMPLATE], "next": None},
    ),
    Operation(
        id="get_template",
        method="GET",
        path="/v1/templates/{name}",
        summary="Get a template with its versions",
        handler=get,
        tag="Templates",
        scopes=READ,
        answer=TemplateView,
        answer_example=_DETAIL,
    ),
    Operation(
        id="delete_template",
        method="DELETE",
        path="/v1/templates/{name}",
        summary="Delete a template",
        handler=delete,
        tag="Templates",
        scopes=WRITE,
        description="Its name is free again; messages accepted before still use the version they have.",
        status=204,
    ),
    Operation(
        id="add_template_version",
        method="POST",
        path="/v1/templates/{name}/versions",
        summary="Add a version",
        handler=add_version,
        tag="Templates",
        scopes=WRITE,
        description="A version never changes.",
        body=VERSION,
        answer=VersionView,
        status=201,
        once=True,
        example=_SOURCES,
        answer_example=_VERSION,
        problems=(409,),
    ),
    Operation(
        id="get_template_version",
        method="GET",
        path="/v1/templates/{name}/versions/{version}",
        summary="Get a version with its sources",
        handler=get_version,
        tag="Templates",
        scopes=READ,
        answer=VersionView,
        answer_example=_VERSION,
    ),
    Operation(
        id="publish_template",
        method="POST",
        path="/v1/templates/{name}/publish",
        summary="Publish a version",
        handler=publish,
        tag="Templates",
        scopes=WRITE,
        description="Messages submitted from now on use it, unless they pin another.",
        body=PUBLISH,
        answer=TemplateView,
        example={"version": 2},
        answer_example=_TEMPLATE | {"latest_version": 2, "published_version": 2},
    ),
    Operation(
        id="preview_template",
        method="POST",
        path="/v1/templates/{name}/preview",
        summary="Fill a template without sending",
        handler=preview,
        tag="Templates",
        scopes=READ,
        body=PREVIEW,
        answer=PreviewView,
        example={"variables": {"name": "Ann"}},
        answer_example={"subject": "Welcome, Ann", "html": "<p>Hello Ann</p>", "text": "Hello Ann"},
    ),
)
