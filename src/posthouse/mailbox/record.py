"""From a parsed message to its row, and back."""

from __future__ import annotations

import msgspec

from posthouse.mail.parsed import Addr, Parsed
from posthouse.mailbox.model import Detail, Email, Record

_json = msgspec.json.Encoder()
_pack = msgspec.msgpack.Encoder()
_senders = msgspec.json.Decoder(tuple[Addr, ...])
_detail = msgspec.msgpack.Decoder(Detail)

ID_AT_MOST = 998
"""Octets of a Message-ID that are kept: a line's (RFC 5322 §2.1.1)."""


def record(parsed: Parsed) -> Record:
    """Encoded once, before the transaction, for all recipients of a message."""
    return Record(
        parsed.size,
        parsed.date,
        parsed.message_id[:ID_AT_MOST] if parsed.message_id else None,
        parsed.subject,
        _json.encode(parsed.from_).decode(),
        parsed.preview,
        len(parsed.attachments),
        _pack.encode(
            Detail(
                parsed.structure,
                parsed.header_length,
                parsed.to,
                parsed.cc,
                parsed.bcc,
                parsed.reply_to,
                parsed.sender,
                parsed.in_reply_to,
                parsed.references,
                parsed.date_offset,
                parsed.text,
                parsed.html,
                parsed.attachments,
            )
        ),
    )


def senders(stored: str) -> tuple[Addr, ...]:
    """`email.sender`."""
    return _senders.decode(stored)


def detail(stored: bytes) -> Detail:
    """`email.detail`."""
    return _detail.decode(stored)


def email(row: tuple[object, ...], mailboxes: tuple[tuple[int, int], ...]) -> Email:
    """From the columns in `COLUMNS`."""
    values = dict(zip(_NAMES, row, strict=True))
    values["sender"] = senders(str(values["sender"]))
    values["keywords"] = tuple(str(values["keywords"]).split())
    values["trace"] = values["trace"] or b""
    values["detail"] = _detail.decode(values["detail"])  # type: ignore[arg-type]
    return Email(**values, mailboxes=mailboxes)  # type: ignore[arg-type]


_NAMES = tuple(name for name in Email.__struct_fields__ if name != "mailboxes")
COLUMNS = ", ".join(_NAMES)
"""Of `email`, in the order of `Email`'s fields."""
