"""The JSON bodies of everything but messages, in and out, as frozen types."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from posthouse.accounts.model import ApiKey, Scope, Stream, StreamKind, Tenant
from posthouse.accounts.streams import LaneName
from posthouse.clock import rfc3339
from posthouse.domains.model import Domain
from posthouse.outbound.model import LINE, Line, Moment
from posthouse.storage.queue.base import Buried, Depth, Lane
from posthouse.suppression.model import Suppression
from posthouse.templates.model import Template, TemplateDetail, Version

T = TypeVar("T")
Count = Annotated[int, Meta(ge=0, le=10**9)]
Limit = Annotated[int, Meta(ge=1, le=200, description="How many at most")]
Cursor = Annotated[str, Meta(description="`next` of the page before")]
Time = Annotated[str, Meta(description="RFC 3339, UTC", extra_json_schema={"format": "date-time"})]
Name = Annotated[str, Meta(pattern=LINE, min_length=1, max_length=200)]
Slug = Annotated[Line, Meta(description="Letters a-z, digits, `.`, `_` and `-`; at most 100")]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """A page of a list; `next` is null on the last."""

    data: list[T]
    next: str | None


class PageQuery(Request, frozen=True, kw_only=True):
    limit: Limit = 50
    cursor: Cursor | None = None


# Keys and tenants


class KeyDraft(Request, frozen=True, kw_only=True):
    """A new API key."""

    name: Annotated[Name, Meta(description="For people")]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=20, description="What it may do")]
    domain: Annotated[Line, Meta(description="The only domain that it may send from")] | None = None
    expires_at: Annotated[Moment, Meta(description="From then on it is refused")] | None = None


class KeyView(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    name: str
    hint: Annotated[str, Meta(description="The secret's last four characters")]
    scopes: list[str]
    created_at: Time
    domain: str | None = None
    expires_at: Time | None = None
    revoked_at: Time | None = None
    last_used_at: Time | None = None
    secret: Annotated[str, Meta(description="In the answer that creates it, and never again")] | None = None


class TenantDraft(Request, frozen=True, kw_only=True):
    name: Annotated[Name, Meta(description="Unique")]
    rate_per_second: Annotated[Count, Meta(description="Messages; by default the installation's")] | None = None
    burst: Annotated[Count, Meta(description="Messages at once")] | None = None
    daily_quota: Annotated[Count, Meta(description="Messages a day (UTC); 0: no bound")] | None = None


class TenantChange(Request, frozen=True, kw_only=True):
    """What is left out stays."""

    name: Name | None = None
    rate_per_second: Count | None = None
    burst: Count | None = None
    daily_quota: Count | None = None
    suspended: Annotated[bool, Meta(description="Suspended: all its keys are refused")] | None = None


class TenantView(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    name: str
    rate_per_second: int
    burst: int
    daily_quota: int
    created_at: Time
    suspended_at: Time | None = None


class MeView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose key this is, what it may do and how much is left."""

    tenant: TenantView
    key_id: str
    scopes: list[str]
    messages_today: int
    domain: str | None = None


# Streams


class StreamDraft(Request, frozen=True, kw_only=True):
    name: Slug
    kind: StreamKind = "transactional"
    lane: Annotated[LaneName, Meta(description="By default that of the kind")] | None = None
    max_age: Annotated[int, Meta(ge=60, le=2_592_000, description="Seconds of trying")] | None = None
    settings: dict[str, Any] = {}


class StreamChange(Request, frozen=True, kw_only=True):
    """What is left out stays."""

    lane: LaneName | None = None
    max_age: Annotated[int, Meta(ge=60, le=2_592_000)] | None = None
    settings: dict[str, Any] | None = None


class StreamView(msgspec.Struct, frozen=True):
    id: str
    name: str
    kind: str
    lane: str
    max_age: int
    settings: dict[str, Any]
    created_at: Time


# Templates


class VersionDraft(Request, frozen=True, kw_only=True):
    subject: Annotated[str, Meta(max_length=1024, description="A template of one line")]
    html: Annotated[str, Meta(description="A template; values are escaped")] | None = None
    text: Annotated[str, Meta(description="A template; derived from the HTML when left out")] | None = None
    publish: Annotated[bool, Meta(description="Use it from now on")] = False


class TemplateDraft(Request, frozen=True, kw_only=True):
    name: Slug
    subject: Annotated[str, Meta(max_length=1024, description="A template of one line")]
    html: Annotated[str, Meta(description="A template; values are escaped")] | None = None
    text: Annotated[str, Meta(description="A template; derived from the HTML when left out")] | None = None
    publish: Annotated[bool, Meta(description="Use version 1 from now on")] = True


class PublishDraft(Request, frozen=True, kw_only=True):
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]


class PreviewDraft(Request, frozen=True, kw_only=True):
    version: Annotated[int, Meta(ge=1, le=2**31 - 1, description="By default the one published")] | None = None
    variables: dict[str, Any] = {}


class PreviewView(msgspec.Struct, frozen=True):
    subject: str
    html: str | None
    text: str | None


class VersionLine(msgspec.Struct, frozen=True):
    version: int
    subject: str
    created_at: Time


class TemplateView(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    name: str
    latest_version: int
    published_version: int | None
    created_at: Time
    updated_at: Time
    versions: Annotated[list[VersionLine] | None, Meta(description="Newest first")] = None


class VersionView(msgspec.Struct, frozen=True):
    """A version's sources, and what compiling them showed."""

    version: int
    subject: str
    html: str | None
    text: str | None
    created_at: Time
    variables: Annotated[tuple[str, ...], Meta(description="The names that the sources refer to")]
    links: tuple[str, ...]
    warnings: tuple[str, ...]
    text_derived: bool


# Domains


class DomainDraft(Request, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=LINE, min_length=1, max_length=253)]


class CheckView(msgspec.Struct, frozen=True, omit_defaults=True):
    purpose: str
    name: str
    ok: Annotated[bool, Meta(description="null: DNS did not answer")] | None
    expected: str
    found: str
    required: bool
    at: Time


class RecordView(msgspec.Struct, frozen=True):
    """A DNS record to publish."""

    purpose: str
    type: str
    name: str
    value: str
    strings: Annotated[str, Meta(description="The value cut at 255 octets and quoted, for a zone file")]
    required: bool
    note: str


class DkimKeyView(msgspec.Struct, frozen=True):
    selector: str
    algorithm: str
    status: str
    created_at: Time


class DomainView(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    name: str
    state: Annotated[str, Meta(description="pending, verified or failing")]
    created_at: Time
    records: list[RecordView]
    dkim_keys: list[DkimKeyView]
    checks: list[CheckView] = []
    checked_at: Time | None = None
    verified_at: Time | None = None


# Suppressions


class SuppressionDraft(Request, frozen=True, kw_only=True):
    address: Annotated[str, Meta(pattern=LINE, max_length=320)]
    reason: Literal["bounce", "complaint", "unsubscribe", "manual"] = "manual"
    stream: Annotated[Line, Meta(description="Only this stream; every stream when left out")] | None = None
    evidence: Annotated[str, Meta(max_length=4096, description="A note, a reply, a report's id")] | None = None
    expires_at: Moment | None = None


class SuppressionsDraft(Request, frozen=True, kw_only=True):
    """Many at once: all are added or, when one is wrong, none."""

    suppressions: Annotated[list[SuppressionDraft], Meta(min_length=1, max_length=10_000)]


class SuppressionView(msgspec.Struct, frozen=True, omit_defaults=True):
    address: str
    reason: str
    source: str
    created_at: Time
    stream: str | None = None
    evidence: str | None = None
    expires_at: Time | None = None


# Queue


class DepthView(msgspec.Struct, frozen=True):
    stage: str
    lane: str
    ready: int
    delayed: int
    buried: int
    oldest_due_at: Time | None


class BuriedView(msgspec.Struct, frozen=True):
    id: str
    stage: str
    lane: str
    tenant: str
    attempts: int
    buried_at: Time
    reason: str


class QueueView(msgspec.Struct, frozen=True):
    depths: list[DepthView]
    buried: Annotated[list[BuriedView], Meta(description="The first 100")]


class RetryDraft(Request, frozen=True, kw_only=True):
    ids: Annotated[list[Line], Meta(max_length=1000, description="Buried jobs to run again")] = []
    all: Annotated[bool, Meta(description="Every buried job")] = False


class BuryDraft(Request, frozen=True, kw_only=True):
    ids: Annotated[list[Line], Meta(min_length=1, max_length=1000)]
    reason: Annotated[str, Meta(pattern=LINE, min_length=1, max_length=500)]


class ChangedView(msgspec.Struct, frozen=True):
    changed: Annotated[int, Meta(description="How many jobs")]


class HealthView(msgspec.Struct, frozen=True, omit_defaults=True):
    status: Annotated[str, Meta(description="ok, ready or unready")]
    checks: Annotated[dict[str, str], Meta(description="`ok` or what is wrong, by part")] = {}


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


def key_view(key: ApiKey, secret: str | None = None) -> KeyView:
    return KeyView(
        key.id,
        key.name,
        key.hint,
        sorted(key.scopes),
        rfc3339(key.created_at),
        key.domain,
        _time(key.expires_at),
        _time(key.revoked_at),
        _time(key.last_used_at),
        secret,
    )


def tenant_view(tenant: Tenant) -> TenantView:
    limits = tenant.limits
    return TenantView(
        tenant.id,
        tenant.name,
        limits.rate_per_second,
        limits.burst,
        limits.daily_quota,
        rfc3339(tenant.created_at),
        _time(tenant.suspended_at),
    )


def stream_view(stream: Stream) -> StreamView:
    return StreamView(
        stream.id,
        stream.name,
        stream.kind,
        stream.lane.name.lower(),
        stream.max_age,
        stream.settings,
        rfc3339(stream.created_at),
    )


def template_view(template: Template, detail: TemplateDetail | None = None) -> TemplateView:
    versions = None
    if detail is not None:
        versions = [VersionLine(v.version, v.subject, rfc3339(v.created_at)) for v in detail.versions]
    return TemplateView(
        template.id,
        template.name,
        template.latest_version,
        template.published_version,
        rfc3339(template.created_at),
        rfc3339(template.updated_at),
        versions,
    )


def version_view(version: Version) -> VersionView:
    return VersionView(
        version.version,
        version.subject,
        version.html,
        version.text,
        rfc3339(version.created_at),
        version.variables,
        version.links,
        version.warnings,
        version.text_derived,
    )


def domain_view(domain: Domain, records: list[RecordView]) -> DomainView:
    return DomainView(
        domain.id,
        domain.name,
        str(domain.state),
        rfc3339(domain.created_at),
        records,
        [DkimKeyView(k.selector, k.algorithm, str(k.status), rfc3339(k.created_at)) for k in domain.keys],
        [CheckView(c.purpose, c.name, c.ok, c.expected, c.found, c.required, rfc3339(c.at)) for c in domain.checks],
        _time(domain.checked_at),
        _time(domain.verified_at),
    )


def suppression_view(one: Suppression, stream: str | None) -> SuppressionView:
    return SuppressionView(
        one.address, one.reason, one.source, rfc3339(one.created_at), stream, one.evidence, _time(one.expires_at)
    )


def depth_view(depth: Depth) -> DepthView:
    lane = Lane(depth.lane).name.lower()
    return DepthView(depth.stage, lane, depth.ready, depth.delayed, depth.buried, _time(depth.oldest_due_at))


def buried_view(job: Buried) -> BuriedView:
    lane = Lane(job.lane).name.lower()
    return BuriedView(job.id, job.stage, lane, job.tenant, job.attempts, rfc3339(job.buried_at), job.reason)
