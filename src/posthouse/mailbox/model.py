"""Types of the mailboxes. Numbers count within an account; times are µs."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from posthouse.mail.parsed import Addr, Part


class Role(StrEnum):
    """RFC 8621 §2, RFC 6154: made with each account, in this order."""

    INBOX = "inbox"
    DRAFTS = "drafts"
    SENT = "sent"
    ARCHIVE = "archive"
    JUNK = "junk"
    TRASH = "trash"


class Mailbox(msgspec.Struct, frozen=True):
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
    """An email as a list shows it. `uid` is of the mailbox that was listed."""

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


class Change(msgspec.Struct, frozen=True, gc=False):
    modseq: int
    kind: str
    id: int
    op: str
