"""Types of the mailboxes. Numbers count within an account; times are µs."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from posthouse.mail.parsed import Addr, Part
from posthouse.mail.threads import Keys

SEEN = "$seen"
DRAFT = "$draft"


class Role(StrEnum):
    """RFC 8621 §2, RFC 6154: made with each account, in this order."""

    INBOX = "inbox"
    DRAFTS = "drafts"
    SENT = "sent"
    ARCHIVE = "archive"
    JUNK = "junk"
    TRASH = "trash"


class Mailbox(msgspec.Struct, frozen=True):
    """`unread`: emails with neither `$seen` nor `$draft` (RFC 8621 §2). `unread_threads`: threads
    with an email here and an unread one anywhere."""

    id: int
    parent: int
    name: str
    role: str | None
    sort_order: int
    subscribed: bool
    uidvalidity: int
    uidnext: int
    modseq: int
    total: int
    unread: int
    threads: int
    unread_threads: int


class Detail(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """What listings do not need: msgpack in `email.detail`."""

    structure: Part
    header_length: int
    to: tuple[Addr, ...] = ()
    cc: tuple[Addr, ...] = ()
    bcc: tuple[Addr, ...] = ()
    reply_to: tuple[Addr, ...] = ()
    sender: tuple[Addr, ...] = ()
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    date_offset: int = 0
    text: tuple[str, ...] = ()
    html: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()


class Line(msgspec.Struct, frozen=True, gc=False):
    """An email as a list shows it. `uid` is of the mailbox that was listed. In a list of
    threads it is the newest email here of its thread, which has so many `emails` and `unread`
    ones in all mailboxes; else they are 0."""

    id: int
    thread: int
    uid: int
    received_at: int
    subject: str
    sender: tuple[Addr, ...]
    preview: str
    keywords: tuple[str, ...]
    attachments: int
    size: int
    emails: int = 0
    unread: int = 0


class Anchor(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A place in a list, newest first: what follows is older than this email."""

    received_at: int
    email: int


class Page(msgspec.Struct, frozen=True, gc=False):
    """`total`: emails, or threads, of the whole list. `next`: where the page after begins."""

    lines: tuple[Line, ...]
    total: int
    next: Anchor | None


class Email(msgspec.Struct, frozen=True, gc=False):
    """One email with all that is kept of it. `mailboxes`: (mailbox, uid) of each. `content`:
    the key of its raw octets; `trace`: the header fields to put before them. `verdict`: JSON,
    as the filter gave it."""

    id: int
    thread: int
    content: str
    size: int
    received_at: int
    sent_at: int | None
    message_id: str | None
    subject: str
    sender: tuple[Addr, ...]
    preview: str
    keywords: tuple[str, ...]
    attachments: int
    detail: Detail
    inbound_id: str | None
    trace: bytes
    verdict: str | None
    modseq: int
    created_modseq: int
    mailboxes: tuple[tuple[int, int], ...]


class Thread(msgspec.Struct, frozen=True, gc=False):
    """`members`: email ids, the oldest first. `related`: the thread that its ids point to, 0 for none."""

    id: int
    members: tuple[int, ...]
    unread: int
    latest_at: int
    related: int
    modseq: int


class Change(msgspec.Struct, frozen=True, gc=False):
    modseq: int
    kind: str
    id: int
    op: str


class Changes(msgspec.Struct, frozen=True, gc=False):
    """`until`: the modseq that these lead to. `more`: there are others after it."""

    changes: tuple[Change, ...]
    until: int
    more: bool


class Record(msgspec.Struct, frozen=True, gc=False):
    """What a parsed message leaves in its row: `mailbox.record.record` makes it."""

    size: int
    sent_at: int | None
    message_id: str | None
    subject: str
    sender: str
    preview: str
    attachments: int
    detail: bytes


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One email for one account, with the `keys` that place it there. `mailboxes`: numbers or
    roles; one that is gone is the inbox instead. `trace`: header fields that we add before the
    message; `verdict`: JSON."""

    account: int
    content: str
    received_at: int
    record: Record
    keys: Keys
    mailboxes: tuple[int | str, ...] = (Role.INBOX.value,)
    keywords: tuple[str, ...] = ()
    inbound_id: str | None = None
    trace: bytes = b""
    verdict: str | None = None


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """Where one delivery went. `account` has its number; `why`: of the thread."""

    account: int
    email: int
    thread: int
    mailboxes: tuple[int, ...]
    names: tuple[str, ...]
    why: str


class Touched(msgspec.Struct, frozen=True, gc=False):
    """What a transaction changed in an account, for those who listen."""

    account: int
    modseq: int
    kinds: tuple[str, ...]
    mailboxes: tuple[int, ...]
