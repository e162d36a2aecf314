"""Automatic answers: whether one may be sent, and what it says (RFC 3834, RFC 5230 §4.6).

The setting in JSON: `{"subject": "Away", "text": "Back on Monday.", "from": "2025-07-01T00:00:00Z",
"until": "2025-07-14T00:00:00Z", "every_days": 7}`. An answer goes to the envelope's reverse-path,
never to a header's address, and leaves with the null reverse-path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated

import msgspec

from posthouse.errors import Fault, Invalid
from posthouse.mail.address import Mailbox, parse_mailbox
from posthouse.mail.build import Content, Headers, build
from posthouse.mail.headers import one_line
from posthouse.mail.parsed import Parsed

MAX_REFERENCES = 10
_MAX_SUBJECT = 200
_DAY = 86_400_000_000

# RFC 3834 §2, RFC 5230 §4.6, and the names that programs write under.
_PROGRAM = re.compile(
    r"(?:mailer[-_.]?daemon|postmaster|owner-.*|.*-(?:request|owner|bounces?|relay|errors?)"
    r"|(?:no|donot|do-not|dont)[-_.]?reply(?:[-_.+].*)?|.*[-_.+](?:no|donot)-?reply|bounces?(?:[-_.+].*)?|listserv|majordomo"
    r"|mailman|root|daemon|nobody|news|uucp|www-data|cron|notifications?|alerts?|srs[01][=+-].*|prvs=.*)"
)
_LIST_FIELDS = ("list-id", "list-help", "list-unsubscribe", "list-subscribe", "list-post", "list-owner", "list-archive")
_OTHER_FIELDS = ("x-auto-response-suppress", "x-autoreply", "x-autorespond", "x-loop", "feedback-id")
_SUPPRESS = re.compile(r"\b(?:all|oof|autoreply)\b", re.IGNORECASE)


class Vacation(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """`subject`: empty for “Auto: ” and the mail's own. `begin` and `end` (`from`, `until` in JSON)
    bound it; `every_days`: how long one sender gets no second answer."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]
    subject: Annotated[str, msgspec.Meta(max_length=_MAX_SUBJECT)] = ""
    begin: datetime | None = msgspec.field(name="from", default=None)
    end: datetime | None = msgspec.field(name="until", default=None)
    every_days: Annotated[int, msgspec.Meta(ge=1, le=60)] = 7
    enabled: bool = True


_decoder = msgspec.json.Decoder(Vacation)


def read_vacation(raw: bytes | msgspec.Raw) -> Vacation:
    """The setting from JSON.

    :raises Invalid: `invalid_vacation`.
    """
    try:
        vacation = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _wrong("", str(error).partition(" - at")[0]) from None
    for name, at in (("from", vacation.begin), ("until", vacation.end)):
        if at is not None and at.tzinfo is None:
            raise _wrong(f"/{name}", "A time needs its zone.")
    if vacation.begin and vacation.end and vacation.end <= vacation.begin:
        raise _wrong("/until", "It ends before it begins.")
    return vacation


def refusal(
    vacation: Vacation,
    parsed: Parsed,
    *,
    reverse_path: str,
    own: Collection[str],
    now: int,
    header: Callable[[str], Sequence[str]],
    junk: bool = False,
    answered_at: int | None = None,
) -> str | None:
    """Why no answer may be sent; None when one may.

    :param reverse_path: of the envelope, without angle brackets; empty is null.
    :param own: the account's addresses, aliases included, and the one that this mail came to.
    :param now: µs since 1970. `answered_at`: when this sender last got an answer.
    :param header: the values of a field by its lower-case name.
    """
    why = _off(vacation, now) or ("The mail is junk." if junk else None)
    why = why or _sender_refusal(reverse_path, parsed, own) or _automatic(parsed) or _marked(header)
    if why is not None:
        return why
    named = {one.address.casefold() for one in (*parsed.to, *parsed.cc)}
    if not any(one.casefold() in named for one in own):
        return "None of the account's addresses is in To or Cc."
    if answered_at is not None and now - answered_at < vacation.every_days * _DAY:
        return f"This sender had an answer within the last {vacation.every_days} days."
    return None


def sender_key(reverse_path: str, vacation: Vacation) -> str:
    """Under what it is remembered that a sender was answered: another text may be sent again."""
    local, _, domain = reverse_path.rpartition("@")
    said = f"{local.casefold()}@{domain.casefold()}\0{vacation.subject}\0{vacation.text}"
    return blake2b(said.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def answer(
    vacation: Vacation, parsed: Parsed, *, sender: Mailbox, reverse_path: str, message_id: str, now: datetime
) -> bytes:
    """The answer's message, to be sent with the null reverse-path.

    :param sender: the account; `reverse_path`: whom it goes to.
    :param message_id: with its angle brackets.
    :raises Invalid: the reverse-path cannot stand in a header; then there is no answer.
    """
    subject = one_line(vacation.subject) or f"Auto: {one_line(parsed.subject)[:_MAX_SUBJECT]}".strip()
    extra = [("Auto-Submitted", "auto-replied"), ("Precedence", "bulk"), ("X-Auto-Response-Suppress", "All")]
    extra += threading(parsed)
    headers = Headers(
        from_=sender,
        to=(parse_mailbox(reverse_path),),
        subject=subject,
        date=now,
        message_id=message_id,
        extra=tuple(extra),
    )
    return build(headers, Content(text=vacation.text))


_ID = re.compile(r"[!-;=?-~]+@[!-;=?-~]+")


def threading(parsed: Parsed) -> list[tuple[str, str]]:
    """In-Reply-To and References of an answer (RFC 5322 §3.6.4); ids that are none are left out."""
    if parsed.message_id is None or not _fits(parsed.message_id):
        return []
    chain = [one for one in (parsed.references or parsed.in_reply_to[:1]) if _fits(one)]
    if len(chain) >= MAX_REFERENCES:
        chain = [chain[0], *chain[-(MAX_REFERENCES - 2) :]]
    chain.append(parsed.message_id)
    return [
        ("In-Reply-To", f"<{parsed.message_id}>"),
        ("References", " ".join(f"<{one}>" for one in dict.fromkeys(chain))),
    ]


def _fits(message_id: str) -> bool:
    return len(message_id) <= 250 and _ID.fullmatch(message_id) is not None


def _off(vacation: Vacation, now: int) -> str | None:
    if not vacation.enabled:
        return "The answer is switched off."
    at = datetime.fromtimestamp(now / 1_000_000, UTC)
    if (vacation.begin and at < vacation.begin) or (vacation.end and at >= vacation.end):
        return "It is outside the time of the answer."
    return None


def _sender_refusal(reverse_path: str, parsed: Parsed, own: Collection[str]) -> str | None:
    if not reverse_path:
        return "The reverse-path is null: it is a notice (RFC 3834 §2)."
    local = reverse_path.rpartition("@")[0].casefold()
    if not local or _PROGRAM.fullmatch(local) is not None:
        return "The sender is a program or a list's address."
    ours = {one.casefold() for one in own}
    if reverse_path.casefold() in ours:
        return "The account wrote it itself."
    for one in (*parsed.from_, *parsed.sender):
        if one.address.casefold() in ours:
            return "The account wrote it itself."
        if _PROGRAM.fullmatch(one.address.rpartition("@")[0].casefold()) is not None:
            return "The author is a program or a list's address."
    return None


def _automatic(parsed: Parsed) -> str | None:
    if parsed.auto_submitted is not None and parsed.auto_submitted != "no":
        return "Auto-Submitted says that a program sent it (RFC 3834 §5)."
    if parsed.precedence in {"bulk", "junk", "list"}:
        return f"Precedence is {parsed.precedence}."
    if parsed.list_id is not None or parsed.list_unsubscribe or parsed.list_post:
        return "It came by a list (RFC 3834 §2)."
    if parsed.structure.type in {"multipart/report", "message/delivery-status"}:
        return "It is a report."
    return None


def _marked(header: Callable[[str], Sequence[str]]) -> str | None:
    for name in _LIST_FIELDS:
        if header(name):
            return "It came by a list (RFC 3834 §2)."
    for name in _OTHER_FIELDS:
        values = header(name)
        if values and (name != "x-auto-response-suppress" or any(_SUPPRESS.search(one) for one in values)):
            return f"It has the field {name}."
    return None


def _wrong(pointer: str, message: str) -> Invalid:
    return Invalid("The vacation answer is not valid.", code="invalid_vacation", faults=(Fault(pointer, message),))
