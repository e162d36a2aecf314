"""What a sender is told of a message that was taken from it and did not arrive (RFC 3464).

Both flows tell it the same way: a report in the sending flow's hands, with the null
reverse-path. Only ever an address that the envelope proved is told.
"""

from __future__ import annotations

import msgspec

from posthouse import ids
from posthouse.clock import to_datetime
from posthouse.errors import Invalid
from posthouse.events.handover import Handover, Kind
from posthouse.mail import dsn
from posthouse.mail.address import Mailbox, parse_mailbox
from posthouse.mail.parse import parse
from posthouse.storage.blobs.base import key_of
from posthouse.storage.contents import Content

AUTHOR = "Mail Delivery System"


class Undelivered(msgspec.Struct, frozen=True):
    """`source`: the id of what failed, whose report has an id of its own by `about`. `domain`:
    ours. `written_to`: the address that the sender knows. `arrived_at`: µs. `header`: the
    message's own header fields. `status`: RFC 3463. `smtp`: `diagnostic` is a peer's reply."""

    source: str
    about: str
    tenant_id: str
    origin: str
    domain: str
    to: str
    written_to: str
    arrived_at: int
    header: bytes
    status: str
    diagnostic: str
    smtp: bool = False


def report(one: Undelivered, *, host: str, now: int) -> tuple[Content, Handover] | None:
    """To be kept and handed over; None: the sender's address cannot stand in a header.

    :param host: our name, the Reporting-MTA.
    """
    id_ = ids.derived("msg", one.source, f"report\0{one.about}")
    author = Mailbox(AUTHOR, "postmaster", one.domain)
    try:
        message = dsn.report(
            host=host,
            sender=author,
            to=parse_mailbox(one.to),
            message_id=f"<{id_.partition('_')[2]}@{one.domain}>",
            now=to_datetime(now),
            subject=dsn.Subject(to_datetime(one.arrived_at), one.header, _message_id(one.header)),
            fates=[dsn.Fate(one.written_to, "failed", one.status, one.diagnostic, one.smtp)],
        )
    except Invalid:
        return None
    # In the records whatever its size, which is bounded: a blob cannot join the transaction.
    content = Content(key_of(message), len(message), message)
    utf8 = not (one.to.isascii() and one.written_to.isascii())
    handover = Handover(
        id_,
        one.tenant_id,
        Kind.REPORT,
        content.key,
        content.size,
        "",
        author.address,
        (one.to,),
        one.origin,
        sign=True,
        utf8=utf8,
        subject="Undelivered mail",
        domain=one.domain,
    )
    return content, handover


def _message_id(header: bytes) -> str | None:
    found = parse(header.rstrip(b"\r\n") + b"\r\n\r\n").message_id
    return f"<{found}>" if found else None
