"""The JSON bodies of the receiving side that go out, as frozen types; `mail_shown` makes them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from posthouse.api.views import Time
from posthouse.inbound.model import Evidence, Verdict
from posthouse.mailauth.evidence import Authentication


class MailDomainView(msgspec.Struct, frozen=True):
    """A domain that mail is received for."""

    name: str
    settings: dict[str, Any]
    created_at: Time


class AccountView(msgspec.Struct, frozen=True):
    id: str
    address: str
    name: str
    state: Annotated[str, Meta(description="active, disabled, or deleted while it is being removed")]
    quota: Annotated[int, Meta(description="Octets; 0: no bound")]
    used: Annotated[int, Meta(description="Octets")]
    emails: int
    settings: dict[str, Any]
    created_at: Time


class AliasView(msgspec.Struct, frozen=True):
    address: str
    kind: Annotated[str, Meta(description="alias, group or catch_all")]
    targets: tuple[str, ...]
    created_at: Time


class MailboxView(msgspec.Struct, frozen=True):
    id: int
    name: str
    path: Annotated[str, Meta(description="The names from the top, between slashes")]
    parent: Annotated[int, Meta(description="0: it lies at the top")]
    role: str | None
    sort_order: int
    subscribed: bool
    total: int
    unread: int
    threads: int
    unread_threads: int
    uidvalidity: int
    uidnext: int
    modseq: int


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str = ""
    address: str = ""
    group: str | None = None


class EmailLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """An email as a list shows it. In a list of conversations it is the newest of its own, which
    has so many `emails` and so many that are `unread`."""

    id: int
    thread: int
    received_at: Time
    subject: str
    senders: list[Person]
    preview: str
    keywords: tuple[str, ...]
    attachments: int
    size: int
    uid: int | None = None
    emails: int | None = None
    unread: int | None = None
    mailboxes: list[int] | None = None


class EmailPage(msgspec.Struct, frozen=True):
    data: list[EmailLine]
    total: Annotated[int, Meta(description="Lines of the whole list")]
    next: str | None


class HeaderView(msgspec.Struct, frozen=True):
    """A header field: unfolded, encoded words read."""

    name: str
    value: str


class PartView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node of the body's structure; `id` as in `…/parts/{part}`."""

    id: str
    type: str
    size: Annotated[int, Meta(description="Octets when decoded; of base64 an estimate")]
    encoding: str
    charset: str | None = None
    disposition: str | None = None
    name: str | None = None
    cid: str | None = None
    parts: list[PartView] = []


class BodyView(msgspec.Struct, frozen=True):
    text: str
    source: Annotated[str, Meta(description="The type it was made of: text/plain or text/html; empty without text")]
    truncated: bool


class Lying(msgspec.Struct, frozen=True):
    id: int
    uid: int


class EmailView(msgspec.Struct, frozen=True, omit_defaults=True):
    id: int
    thread: int
    received_at: Time
    size: int
    subject: str
    mailboxes: list[Lying]
    keywords: tuple[str, ...]
    preview: str
    structure: PartView
    text: Annotated[tuple[str, ...], Meta(description="Parts that show it as text")]
    html: Annotated[tuple[str, ...], Meta(description="Parts that show it as HTML")]
    attachments: Annotated[tuple[str, ...], Meta(description="Parts that do not show it")]
    headers: list[HeaderView]
    sent_at: Time | None = None
    message_id: str | None = None
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    from_: list[Person] = msgspec.field(name="from", default_factory=list[Person])
    sender: list[Person] = []
    reply_to: list[Person] = []
    to: list[Person] = []
    cc: list[Person] = []
    bcc: list[Person] = []
    inbound_id: Annotated[str | None, Meta(description="As `GET /v1/inbound/{id}` knows it")] = None
    authentication: Annotated[Authentication | None, Meta(description="What SPF, DKIM, DMARC and ARC said")] = None
    verdict: Annotated[Verdict | None, Meta(description="The filter's score and its reasons")] = None
    trace: Annotated[list[HeaderView], Meta(description="The header fields that we add before it")] = []
    body: BodyView | None = None
    more_headers: Annotated[bool, Meta(description="It has more fields than are shown")] = False


class ChangedEmails(msgspec.Struct, frozen=True):
    modseq: int
    missing: Annotated[tuple[int, ...], Meta(description="Emails that do not exist")]


class ThreadView(msgspec.Struct, frozen=True, omit_defaults=True):
    """`emails`: the oldest first."""

    id: int
    emails: list[EmailLine]
    unread: int
    latest_at: Time
    related: Annotated[int | None, Meta(description="The conversation that it came from, when its subject changed")] = (
        None
    )


class ThreadMade(msgspec.Struct, frozen=True):
    thread: int


class DroppedView(msgspec.Struct, frozen=True):
    text: str
    reason: str


class FoundView(msgspec.Struct, frozen=True, omit_defaults=True):
    """`total` where it was learnt on the way. `dropped`: what was typed and not searched for."""

    data: list[EmailLine]
    dropped: list[DroppedView]
    next: str | None
    total: int | None = None


class ChangeView(msgspec.Struct, frozen=True):
    modseq: int
    kind: Annotated[str, Meta(description="email, mailbox or thread")]
    id: int
    op: Annotated[str, Meta(description="created, updated, counts (of a mailbox only) or destroyed")]


class ChangesView(msgspec.Struct, frozen=True):
    changes: list[ChangeView]
    until: Annotated[int, Meta(description="`since` of the next request")]
    more: bool


class ImportedView(msgspec.Struct, frozen=True, omit_defaults=True):
    """`id` and `thread` are left out where it was stored before."""

    id: int | None = None
    thread: int | None = None


class ImportView(msgspec.Struct, frozen=True):
    stored: int
    emails: Annotated[list[ImportedView], Meta(description="In the order given")]


class MarksView(msgspec.Struct, frozen=True):
    positions: Annotated[dict[str, int], Meta(description="Without the sources that never began")]


class ArrivalRecipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """`reasons`: why it went there, in sentences."""

    address: str
    state: str
    account: str = ""
    aliases: tuple[str, ...] = ()
    forward: str = ""
    email: int | None = None
    thread: int | None = None
    mailboxes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    done_at: Time | None = None


class ArrivalView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that was acknowledged."""

    id: str
    received_at: Time
    size: int
    sender: Annotated[str, Meta(description="The envelope's; empty for a notice")]
    recipients: list[ArrivalRecipient]
    peer: str = ""
    helo: str = ""
    evidence: Evidence | None = None
    verdict: Verdict | None = None


class RefusalView(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    at: Time
    peer: str
    helo: str
    sender: str
    recipient: str
    stage: Annotated[str, Meta(description="connect, hello, mail, rcpt or data")]
    reply: str
    reason: str
    evidence: Evidence | None = None


class FindingView(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    text: str
    account: Annotated[int | None, Meta(description="Its number inside")] = None
    subject: str = ""


class TaskView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Work that goes on by itself; ask again until `state` is done or failed."""

    id: str
    kind: Annotated[str, Meta(description="check or reindex")]
    state: Annotated[str, Meta(description="running, done or failed")]
    started_at: Time
    found: Annotated[int, Meta(description="Findings in all")]
    findings: Annotated[list[FindingView], Meta(description="The first thousand")]
    mended: Annotated[list[str], Meta(description="What was done, in sentences")]
    queued: Annotated[int, Meta(description="Emails that are indexed anew, one after the other")]
    ended_at: Time | None = None
    error: str = ""
