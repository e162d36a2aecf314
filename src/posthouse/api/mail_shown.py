"""The receiving side's things as the JSON bodies of `mail_views`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from posthouse.api.mail_views import (
    AccountView,
    AliasView,
    ArrivalRecipient,
    ArrivalView,
    BodyView,
    EmailLine,
    EmailView,
    FindingView,
    HeaderView,
    Lying,
    MailboxView,
    MailDomainView,
    PartView,
    Person,
    RefusalView,
    TaskView,
)
from posthouse.clock import rfc3339
from posthouse.directory.model import Account, Alias, DomainSettings, MailDomain
from posthouse.inbound.explain import Refusal
from posthouse.inbound.journal import Entry, Recipient
from posthouse.inbound.model import Evidence, Outcome, Verdict, Via
from posthouse.inbound.upkeep import Task
from posthouse.mail.parsed import Addr, Part
from posthouse.mailauth.evidence import Authentication
from posthouse.mailbox.model import Email, Line, Mailbox

T = TypeVar("T")


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


def _read(text: str | None, kind: type[T]) -> T | None:
    """None for what is not there or, from another version, cannot be read."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def mail_domain_view(domain: MailDomain) -> MailDomainView:
    settings = {name: getattr(domain.settings, name) for name in DomainSettings.__struct_fields__}
    return MailDomainView(domain.name, settings, rfc3339(domain.created_at))


def account_view(account: Account) -> AccountView:
    settings = account.settings
    shown: dict[str, Any] = {name: getattr(settings, name) for name in settings.__struct_fields__}
    if not bytes(settings.vacation):
        shown["vacation"] = None
    return AccountView(
        account.id,
        account.address,
        account.name,
        account.state,
        account.quota,
        account.used,
        account.emails,
        shown,
        rfc3339(account.created_at),
    )


def alias_view(alias: Alias) -> AliasView:
    return AliasView(alias.address, str(alias.kind), alias.targets, rfc3339(alias.created_at))


def mailbox_views(boxes: Sequence[Mailbox]) -> list[MailboxView]:
    by_id = {box.id: box for box in boxes}
    return [_mailbox_view(box, _path(box, by_id)) for box in boxes]


def _path(box: Mailbox, by_id: dict[int, Mailbox]) -> str:
    names = [box.name]
    while box.parent in by_id and len(names) <= len(by_id):
        box = by_id[box.parent]
        names.append(box.name)
    return "/".join(reversed(names))


def _mailbox_view(box: Mailbox, path: str) -> MailboxView:
    return MailboxView(
        box.id,
        box.name,
        path,
        box.parent,
        box.role,
        box.sort_order,
        box.subscribed,
        box.total,
        box.unread,
        box.threads,
        box.unread_threads,
        box.uidvalidity,
        box.uidnext,
        box.modseq,
    )


def parties(found: Sequence[Addr]) -> list[Person]:
    return [Person(one.name, one.address, one.group) for one in found]


def line_view(line: Line, *, threads: bool) -> EmailLine:
    return EmailLine(
        line.id,
        line.thread,
        rfc3339(line.received_at),
        line.subject,
        parties(line.sender),
        line.preview,
        line.keywords,
        line.attachments,
        line.size,
        line.uid,
        line.emails if threads else None,
        line.unread if threads else None,
    )


def email_line(email: Email) -> EmailLine:
    return EmailLine(
        email.id,
        email.thread,
        rfc3339(email.received_at),
        email.subject,
        parties(email.sender),
        email.preview,
        email.keywords,
        email.attachments,
        email.size,
        mailboxes=[mailbox for mailbox, _ in email.mailboxes],
    )


def part_view(part: Part) -> PartView:
    """The tree, which the parser bounds in depth and number."""
    return PartView(
        part.id,
        part.type,
        part.size,
        part.encoding,
        part.charset,
        part.disposition,
        part.name,
        part.cid,
        [part_view(child) for child in part.children],
    )


def email_view(
    email: Email,
    headers: tuple[list[HeaderView], bool],
    trace: list[HeaderView],
    authentication: Authentication | None,
    body: BodyView | None,
) -> EmailView:
    """:param headers: and whether there are more."""
    detail = email.detail
    return EmailView(
        email.id,
        email.thread,
        rfc3339(email.received_at),
        email.size,
        email.subject,
        [Lying(mailbox, uid) for mailbox, uid in email.mailboxes],
        email.keywords,
        email.preview,
        part_view(detail.structure),
        detail.text,
        detail.html,
        detail.attachments,
        headers[0],
        _time(email.sent_at),
        email.message_id,
        detail.in_reply_to,
        detail.references,
        *map(parties, (email.sender, detail.sender, detail.reply_to, detail.to, detail.cc, detail.bcc)),
        inbound_id=email.inbound_id,
        authentication=authentication,
        verdict=_read(email.verdict, Verdict),
        trace=trace,
        body=body,
        more_headers=headers[1],
    )


def arrival_view(entry: Entry, *, whole: bool) -> ArrivalView:
    """:param whole: with all that was known about it."""
    evidence = _read(entry.evidence, Evidence)
    return ArrivalView(
        entry.id,
        rfc3339(entry.received_at),
        entry.size,
        entry.reverse_path,
        [_recipient_view(one) for one in entry.recipients],
        evidence.peer if evidence is not None else "",
        evidence.helo if evidence is not None else "",
        evidence if whole else None,
        _read(entry.verdict, Verdict) if whole else None,
    )


def _recipient_view(one: Recipient) -> ArrivalRecipient:
    via = _read(one.via, Via) or Via()
    outcome = _read(one.outcome, Outcome)
    return ArrivalRecipient(
        one.address,
        one.state,
        one.account,
        via.aliases,
        via.forward,
        (outcome.email or None) if outcome is not None else None,
        (outcome.thread or None) if outcome is not None else None,
        outcome.mailboxes if outcome is not None else (),
        outcome.reasons if outcome is not None else (),
        _time(one.done_at),
    )


def refusal_view(one: Refusal, *, whole: bool) -> RefusalView:
    return RefusalView(
        one.id,
        rfc3339(one.at),
        one.peer,
        one.helo,
        one.reverse_path,
        one.recipient,
        one.stage,
        one.reply,
        one.reason,
        _read(one.evidence, Evidence) if whole else None,
    )


def task_view(task: Task) -> TaskView:
    return TaskView(
        task.id,
        task.kind,
        task.state,
        rfc3339(task.started_at),
        task.found,
        [FindingView(one.code, one.text, one.account or None, one.subject) for one in task.findings],
        list(task.mended),
        task.queued,
        _time(task.ended_at),
        task.error,
    )
