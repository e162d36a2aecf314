"""What goes through the sending flow, as frozen types. The drafts are the public request
bodies (docs/reference/api.md); `check.py` turns them into what the stages work on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec


class State(StrEnum):
    """Of one recipient of one message. The ledger row's state is the truth about it."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RENDERING = "rendering"
    SENDING = "sending"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    SUPPRESSED = "suppressed"
    CANCELED = "canceled"
    FAILED = "failed"


FINAL = frozenset({State.DELIVERED, State.BOUNCED, State.SUPPRESSED, State.CANCELED, State.FAILED})


LINE = r"^[^\r\n\x00]*(?![\s\S])"
Line = Annotated[str, msgspec.Meta(max_length=2000, pattern=LINE)]
"""Text of one line: it ends in a header or a log, so CR, LF and NUL are refused where it is read."""


Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""RFC 3339 with a zone."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    pass


class Party(Request, frozen=True, kw_only=True):
    """An address with a display name; a plain string `Ann <ann@example.com>` does as well."""

    email: Line
    name: Line = ""


class AttachmentDraft(Request, frozen=True, kw_only=True):
    filename: Line
    content: str
    """base64"""
    content_type: Line = "application/octet-stream"
    content_id: Line | None = None
    """Set: an inline image that the HTML shows as `cid:…`."""


class Shared(Request, frozen=True, kw_only=True):
    """What a single message and a batch from one template have in common."""

    from_: Line | Party = msgspec.field(name="from")
    reply_to: list[Line | Party] = []
    subject: Line | None = None
    html: str | None = None
    text: str | None = None
    template: Line | None = None
    template_version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    headers: dict[Line, Line] = {}
    attachments: list[AttachmentDraft] = []
    stream: Line | None = None
    tags: list[Line] = []
    send_at: Moment | None = None


class MessageDraft(Shared, frozen=True, kw_only=True):
    """`POST /v1/messages`, and an item of `messages` in a batch."""

    to: list[Line | Party]
    cc: list[Line | Party] = []
    bcc: list[Line | Party] = []
    variables: dict[str, Any] = {}
    metadata: dict[Line, Line] = {}


class RecipientDraft(Request, frozen=True, kw_only=True):
    to: Line | Party
    variables: dict[str, Any] = {}
    metadata: dict[Line, Line] = {}


class FanOutDraft(Shared, frozen=True, kw_only=True):
    """A batch of one content for many recipients: each gets a message of their own."""

    recipients: list[RecipientDraft]
    variables: dict[str, Any] = {}
    """Defaults for every recipient's variables."""
    metadata: dict[Line, Line] = {}
    all_or_nothing: bool = False


class ManyDraft(Request, frozen=True, kw_only=True):
    """A batch of independent messages. Items stay raw so that a bad one fails alone."""

    messages: list[msgspec.Raw]
    all_or_nothing: bool = False


@dataclass(frozen=True, slots=True)
class Idempotency:
    """An `Idempotency-Key` with the hash of the body that came with it."""

    key: str
    body_hash: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the edge says: a status and JSON bytes, the same ones again on a replay."""

    status: int
    body: bytes
    replayed: bool = False


class RecipientView(msgspec.Struct, frozen=True, omit_defaults=True):
    address: str
    status: str
    attempts: int
    updated_at: str
    next_attempt_at: str | None = None
    reply: dict[str, Any] | None = None


class MessageView(msgspec.Struct, frozen=True, omit_defaults=True):
    """`GET /v1/messages/{id}`"""

    id: str
    status: str
    """Of the message as a whole: the recipients' common state, else the one furthest from final."""
    from_: str = msgspec.field(name="from")
    stream: str
    lane: str
    created_at: str
    send_at: str
    expires_at: str
    recipients: list[RecipientView]
    subject: str | None = None
    template: str | None = None
    template_version: int | None = None
    tags: list[str] = []
    metadata: dict[str, str] = {}


class EventView(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    type: str
    at: str
    stage: str
    recipient: str
    data: dict[str, Any] = {}


class Page(msgspec.Struct, frozen=True):
    """A list answer; `next` is an opaque cursor, null on the last page."""

    data: list[MessageView]
    next: str | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Of `GET /v1/messages`; times in µs."""

    to: str | None = None
    status: str | None = None
    tag: str | None = None
    stream: str | None = None
    since: int | None = None
    until: int | None = None
