"""The JSON bodies and query strings that come in, of everything but messages, as frozen types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from posthouse.accounts.model import Scope, StreamKind
from posthouse.accounts.streams import LaneName
from posthouse.outbound.model import LINE, Line, Moment

Count = Annotated[int, Meta(ge=0, le=10**9)]
Limit = Annotated[int, Meta(ge=1, le=200, description="How many at most")]
Cursor = Annotated[str, Meta(description="`next` of the page before")]
Name = Annotated[str, Meta(pattern=LINE, min_length=1, max_length=200)]
Slug = Annotated[Line, Meta(description="Letters a-z, digits, `.`, `_` and `-`; at most 100")]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class PageQuery(Request, frozen=True, kw_only=True):
    limit: Limit = 50
    cursor: Cursor | None = None


class KeyDraft(Request, frozen=True, kw_only=True):
    """A new API key."""

    name: Annotated[Name, Meta(description="For people")]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=20, description="What it may do")]
    domain: Annotated[Line, Meta(description="The only domain that it may send from")] | None = None
    expires_at: Annotated[Moment, Meta(description="From then on it is refused")] | None = None


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


class DomainDraft(Request, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=LINE, min_length=1, max_length=253)]
    algorithms: Annotated[
        list[Literal["rsa-sha256", "ed25519-sha256"]],
        Meta(max_length=2, description="Of its DKIM keys; RSA is needed, and both are made when this is left out"),
    ] = []


class SuppressionDraft(Request, frozen=True, kw_only=True):
    address: Annotated[str, Meta(pattern=LINE, max_length=320)]
    reason: Literal["bounce", "complaint", "unsubscribe", "manual"] = "manual"
    stream: Annotated[Line, Meta(description="Only this stream; every stream when left out")] | None = None
    evidence: Annotated[str, Meta(max_length=4096, description="A note, a reply, a report's id")] | None = None
    expires_at: Moment | None = None


class SuppressionsDraft(Request, frozen=True, kw_only=True):
    """Many at once: all are added or, when one is wrong, none."""

    suppressions: Annotated[list[SuppressionDraft], Meta(min_length=1, max_length=10_000)]


class RetryDraft(Request, frozen=True, kw_only=True):
    ids: Annotated[list[Line], Meta(max_length=1000, description="Buried jobs to run again")] = []
    all: Annotated[bool, Meta(description="Every buried job")] = False


class BuryDraft(Request, frozen=True, kw_only=True):
    ids: Annotated[list[Line], Meta(min_length=1, max_length=1000)]
    reason: Annotated[str, Meta(pattern=LINE, min_length=1, max_length=500)]
