"""The JSON bodies that go out, of everything but messages, as frozen types, and how they are made."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from posthouse.accounts.model import ApiKey, Stream, Tenant
from posthouse.api.ports import Cluster, ClusterProcess
from posthouse.clock import rfc3339
from posthouse.domains.model import Domain
from posthouse.storage.queue.base import Buried, Depth, Lane
from posthouse.suppression.model import Suppression
from posthouse.templates.model import Template, TemplateDetail, Version

T = TypeVar("T")
Time = Annotated[str, Meta(description="RFC 3339, UTC", extra_json_schema={"format": "date-time"})]


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """A page of a list; `next` is null on the last."""

    data: list[T]
    next: str | None


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


class StreamView(msgspec.Struct, frozen=True):
    id: str
    name: str
    kind: str
    lane: str
    max_age: int
    settings: dict[str, Any]
    created_at: Time


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


class SuppressionView(msgspec.Struct, frozen=True, omit_defaults=True):
    address: str
    reason: str
    source: str
    created_at: Time
    stream: str | None = None
    evidence: str | None = None
    expires_at: Time | None = None


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


class ClusterLaneView(msgspec.Struct, frozen=True):
    stage: str
    lane: str
    held: Annotated[int, Meta(description="Jobs in hand")]
    finished: Annotated[int, Meta(description="Jobs since it started")]
    progressed_at: Annotated[str, Meta(description="When it finished one last, or held none")]


class ClusterProcessView(msgspec.Struct, frozen=True):
    id: str
    host: str
    pid: int
    roles: list[str]
    version: str
    started_at: str
    seen_at: str
    status: Annotated[str, Meta(description="here, or gone: not seen for ten seconds")]
    late: Annotated[float, Meta(description="Seconds by which its loop was late lately")]
    lanes: list[ClusterLaneView]


class ClusterLeaseView(msgspec.Struct, frozen=True):
    name: str
    holder: str
    fence: Annotated[int, Meta(description="Grows with each holder")]
    until: str
    held: bool


class ClusterView(msgspec.Struct, frozen=True):
    processes: list[ClusterProcessView]
    depths: list[DepthView]
    leases: list[ClusterLeaseView]
    stuck: Annotated[list[str], Meta(description="Sentences about what does not go on; empty when all does")]


class ChangedView(msgspec.Struct, frozen=True):
    changed: Annotated[int, Meta(description="How many jobs")]


class RoleView(msgspec.Struct, frozen=True, omit_defaults=True):
    status: Annotated[str, Meta(description="ok, idle, working or stuck")]
    held: Annotated[int, Meta(description="Jobs in hand")] = 0
    waited: Annotated[float, Meta(description="Seconds for which some are held and none was finished")] = 0.0


class HealthView(msgspec.Struct, frozen=True, omit_defaults=True):
    status: Annotated[str, Meta(description="ok or failing; ready or unready")]
    checks: Annotated[dict[str, str], Meta(description="`ok` or what is wrong, by part")] = {}
    roles: Annotated[dict[str, RoleView], Meta(description="How each role of this process fares")] = {}
    late: Annotated[float, Meta(description="Seconds by which the process's loop was late lately")] = 0.0


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


def cluster_view(cluster: Cluster) -> ClusterView:
    return ClusterView(
        [_process_view(one) for one in cluster.processes],
        [depth_view(depth) for depth in cluster.depths],
        [ClusterLeaseView(one.name, one.holder, one.fence, rfc3339(one.until), one.held) for one in cluster.leases],
        list(cluster.stuck),
    )


def _process_view(one: ClusterProcess) -> ClusterProcessView:
    return ClusterProcessView(
        one.id,
        one.host,
        one.pid,
        list(one.roles),
        one.version,
        rfc3339(one.started_at),
        rfc3339(one.seen_at),
        "here" if one.here else "gone",
        one.late,
        [ClusterLaneView(at.stage, at.lane, at.held, at.finished, rfc3339(at.progressed_at)) for at in one.lanes],
    )


def buried_view(job: Buried) -> BuriedView:
    lane = Lane(job.lane).name.lower()
    return BuriedView(job.id, job.stage, lane, job.tenant, job.attempts, rfc3339(job.buried_at), job.reason)
