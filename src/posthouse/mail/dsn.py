"""Delivery status notifications: what became of a message, for its sender and for programs.

    multipart/report; report-type=delivery-status     RFC 6522
    ├── text/plain                                    in words
    ├── message/delivery-status                       RFC 3464
    └── text/rfc822-headers                           of the message in question

With an address beyond ASCII the last two are their `message/global…` kin (RFC 6533). A report leaves
with the null reverse-path, and nothing is ever reported about one.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Literal

from posthouse.errors import Invalid
from posthouse.mail import headers as field
from posthouse.mail.address import Mailbox
from posthouse.mail.build import boundary_of
from posthouse.mail.headers import one_line
from posthouse.mail.transfer import encode_text, has_short_lines

MAX_RECIPIENTS = 1000
MAX_HEADERS = 16_384
"""Octets of the original's header block that go along."""
_MAX_TEXT = 900  # characters of a peer's words
_STATUS = re.compile(r"[245]\.(?:0|[1-9][0-9]{0,2})\.(?:0|[1-9][0-9]{0,2})")
_HOST = re.compile(r"[A-Za-z0-9.\[\]:_-]{1,255}")
_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_ENVELOPE_ID = re.compile(r"[!-~]{1,100}")
_NOT_ASCII = re.compile(r"[^ -~]")

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one recipient (RFC 3464 §2.3). `status`: an RFC 3463 code. `diagnostic`: the
    peer's reply, code first, in one line or many; `smtp` says that a peer said it."""

    recipient: str
    action: Action
    status: str
    diagnostic: str = ""
    smtp: bool = True
    remote_host: str | None = None
    original: str | None = None
    """What the sender wrote (RFC 3461 ORCPT), when that is another address."""
    last_attempt: datetime | None = None
    retry_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The message in question. `headers`: its header block; cut at a line when it is long."""

    arrived: datetime
    headers: bytes
    message_id: str | None = None
    """With its angle brackets."""
    envelope_id: str | None = None
    received_from: str | None = None


def report(
    *, host: str, sender: Mailbox, to: Mailbox, message_id: str, now: datetime, subject: Subject, fates: Sequence[Fate]
) -> bytes:
    """One report, CRLF line ends, the last one included.

    :param host: our name, the Reporting-MTA.
    :param sender: `Mail Delivery System <mailer-daemon@…>`.
    :param message_id: of the report, with its angle brackets.
    :raises Invalid: no recipients or more than 1,000, a bad status or host name.
    """
    if not 1 <= len(fates) <= MAX_RECIPIENTS:
        raise Invalid(f"A report is about 1 to {MAX_RECIPIENTS} recipients.", code="invalid_report")
    words = encode_text(_in_words(host, subject, fates))
    utf8 = any(not one.recipient.isascii() or not (one.original or "").isascii() for one in fates)
    status = _delivery_status(host, subject, fates).encode()
    original = _encoded(_cut(subject.headers))
    boundary = boundary_of(message_id, [words[1], status, original[1]])
    head = [
        field.addresses("From", (sender,)),
        field.addresses("To", (to,)),
        field.unstructured("Subject", _title(fates)),
        field.date(now),
        field.message_id(message_id),
        field.customs([("Auto-Submitted", "auto-replied"), *_threading(subject)]),  # RFC 3834 §3.1.7
        b"MIME-Version: 1.0\r\n",
        b'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="%s"\r\n' % boundary,
        b"Content-Transfer-Encoding: 8bit\r\n" if utf8 else b"",
    ]
    parts = [
        (b"text/plain; charset=utf-8", words[0], words[1]),
        (b"message/global-delivery-status", "8bit", status) if utf8 else (b"message/delivery-status", "7bit", status),
        (b"message/global-headers" if utf8 else b"text/rfc822-headers", *original),
    ]
    for content_type, encoding, body in parts:
        head.append(
            b"\r\n--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n%s"
            % (boundary, content_type, encoding.encode(), body)
        )
    head.append(b"\r\n--%s--\r\n" % boundary)
    return b"".join(head)


def _title(fates: Sequence[Fate]) -> str:
    actions = {one.action for one in fates}
    if "failed" in actions:
        return "Undelivered mail: your message could not be delivered"
    return "Delayed mail: your message is still waiting" if "delayed" in actions else "Your message was delivered"


def _threading(subject: Subject) -> list[tuple[str, str]]:
    one = subject.message_id
    if one is None or len(one) > 250 or _ID.fullmatch(one) is None:
        return []
    return [("In-Reply-To", one), ("References", one)]


def _in_words(host: str, subject: Subject, fates: Sequence[Fate]) -> str:
    lines = [
        f"This is the mail system at {_host(host)}.",
        "",
        f"Your message of {format_datetime(subject.arrived)}:",
        "",
    ]
    for one in fates:
        lines.append(f"  {_plain(one.recipient)}")
        lines.append(f"    {_SAID[one.action]}")
        if one.diagnostic:
            by = f" {_plain(one.remote_host)}" if one.remote_host else ""
            said = f"The server{by} said" if one.smtp else "The reason"
            lines.append(f"    {said}: {_plain(one.diagnostic)}")
        if one.retry_until is not None:
            lines.append(f"    It will be tried until {format_datetime(one.retry_until)}.")
        lines.append("")
    lines.append("The technical details and the headers of your message follow.")
    return "\n".join(lines) + "\n"


_SAID: dict[str, str] = {
    "failed": "It could not be delivered, and will not be tried again.",
    "delayed": "It could not be delivered yet. You need not send it again.",
    "delivered": "It was delivered.",
    "relayed": "It was handed to a server that gives no further notice.",
    "expanded": "It was handed to a list, which gives no further notice.",
}


def _delivery_status(host: str, subject: Subject, fates: Sequence[Fate]) -> str:
    """message/delivery-status: fields of the message, then a block for each recipient."""
    lines: list[str] = []
    if subject.envelope_id is not None and _ENVELOPE_ID.fullmatch(subject.envelope_id) is not None:
        lines.append(f"Original-Envelope-Id: {subject.envelope_id}")
    lines.append(f"Reporting-MTA: dns; {_host(host)}")
    if subject.received_from is not None and _HOST.fullmatch(subject.received_from) is not None:
        lines.append(f"Received-From-MTA: dns; {subject.received_from}")
    lines.append(f"Arrival-Date: {format_datetime(subject.arrived)}")
    for one in fates:
        lines.append("")
        lines += _of_recipient(one)
    return "\r\n".join(lines) + "\r\n"


def _of_recipient(one: Fate) -> list[str]:
    if _STATUS.fullmatch(one.status) is None:
        raise Invalid("The status is not an RFC 3463 code.", code="invalid_report")
    lines: list[str] = []
    if one.original is not None:
        lines.append(f"Original-Recipient: {_typed(one.original)}")
    lines += [f"Final-Recipient: {_typed(one.recipient)}", f"Action: {one.action}", f"Status: {one.status}"]
    if one.remote_host is not None and _HOST.fullmatch(one.remote_host) is not None:
        lines.append(f"Remote-MTA: dns; {one.remote_host}")
    if one.diagnostic:
        kind = "smtp" if one.smtp else "X-Posthouse"
        lines.append(_folded(f"Diagnostic-Code: {kind}; {_NOT_ASCII.sub('?', _plain(one.diagnostic))}"))
    if one.last_attempt is not None:
        lines.append(f"Last-Attempt-Date: {format_datetime(one.last_attempt)}")
    if one.retry_until is not None and one.action == "delayed":
        lines.append(f"Will-Retry-Until: {format_datetime(one.retry_until)}")
    return lines


def _typed(address: str) -> str:
    """An address with its type (RFC 3464 §2.3.2, RFC 6533 §3)."""
    plain = one_line(address)[:320]
    return f"{'rfc822' if plain.isascii() else 'utf-8'}; {plain}"


def _plain(text: str) -> str:
    """A peer's words in one bounded line."""
    return one_line(text)[:_MAX_TEXT]


def _host(host: str) -> str:
    if _HOST.fullmatch(host) is None:
        raise Invalid("The host's name is not valid.", code="invalid_report")
    return host


def _folded(line: str) -> str:
    """Folds at blanks (RFC 5322 §2.2.3); a piece without any is cut at 900 characters."""
    lines = [""]
    for word in line.split(" "):
        piece = word[:_MAX_TEXT]
        if lines[-1] and len(lines[-1]) + len(piece) >= field.FOLD_AT:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] or len(lines) > 1 else ''}{piece}"
    return "\r\n".join(lines)


def _cut(headers: bytes) -> bytes:
    """Whole lines of the header block, at most `MAX_HEADERS`, ending in CRLF."""
    block = headers.replace(b"\r\n", b"\n").replace(b"\r", b"\n").partition(b"\n\n")[0].strip(b"\n") + b"\n"
    if len(block) > MAX_HEADERS:
        block = block[: block.rfind(b"\n", 0, MAX_HEADERS) + 1]
    return block.replace(b"\n", b"\r\n")


def _encoded(block: bytes) -> tuple[str, bytes]:
    if block.isascii() and b"\0" not in block and has_short_lines(block):
        return "7bit", block
    return "quoted-printable", b2a_qp(block, istext=True)
