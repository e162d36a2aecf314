"""Mail that answers mail: failure notices, vacation answers, rules. None carries a stranger's text out of its place."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from functools import partial

import msgspec

from posthouse.errors import Invalid, TooLarge
from posthouse.inbound.fields import Fields
from posthouse.mail import dsn
from posthouse.mail.address import mailbox
from posthouse.mail.parse import parse, text
from posthouse.mail.rules import Incoming, apply, read_rules
from posthouse.mail.threads.keys import decode, encode, thread_keys
from posthouse.mail.vacation import Vacation, answer, read_vacation, refusal, sender_key, threading
from posthouse.smtp.body import only_crlf

_AT = datetime(2023, 1, 2, 10, 0, tzinfo=UTC)
_US = mailbox("mailer-daemon@house.example", "Mail Delivery System")
_HEADER = (
    b"From: Ann <ann@example.com>\r\nTo: bob@house.example\r\nSubject: =?utf-8?q?W=C3=B6rld?=\r\nMessage-ID: <1@x>\r\n"
    b"References: <a@b> <c@d>\r\nX-Spam: yes\r\n"
)
_RULE = (
    b'{"name":"r","when":{"test":"all","of":[{"test":"text","field":"subject","op":"contains","values":["w"]},'
    b'{"test":"not","of":{"test":"header","name":"X-Spam","op":"matches","values":["*y?s*"]}},{"test":"size","over":1},'
    b'{"test":"spam","over":1.5},{"test":"has_attachment"}]},"then":[{"do":"file","mailbox":"A/B"},{"do":"stop"}]}'
)
_ANY = b'{"name":"s","when":{"test":"any","of":[{"test":"header","name":"subject","op":"exists"}]},"then":[%s]}'
CORPUS: tuple[bytes, ...] = (
    b"",
    _HEADER + b"\r\nbody\r\n",
    _HEADER + b"Auto-Submitted: auto-replied\r\nPrecedence: list\r\nList-Id: <l.example>\r\n\r\nx\r\n",
    b"Subject: " + b"*?a" * 600 + b"\r\n\r\n" + b"a" * 2000,
    _RULE,
    _ANY % b'{"do":"keyword","names":["$x"]},{"do":"forward","to":["c@d.example"],"keep":false}',
    _RULE.replace(b"*y?s*", b"*a" * 40 + b"b"),
    b'{"text":"Away\\n\\u2028.","subject":"Auto","from":"2023-01-01T00:00:00Z","until":"2024-01-01T00:00:00+02:00","every_days":3}',
    b"550-5.1.1 no such user\r\n550 5.1.1 <b\xc3\xb6b@x.example> \x1b[31m unknown",
    b'{"name":"deep","when":'
    + b'{"test":"not","of":' * 60
    + b'{"test":"spam"}'
    + b"}" * 60
    + b',"then":[{"do":"read"}]}',
)
_RULES = read_rules(
    [
        _RULE.replace(b'{"test":"spam","over":1.5},{"test":"has_attachment"}', b'{"test":"not","of":{"test":"spam"}}'),
        _ANY % b'{"do":"star"},{"do":"keyword","names":["a","b"]}',
        _ANY.replace(b'"subject","op":"exists"', b'"subject","op":"matches","values":["*a*a*a*a*a*a*b"]')
        % b'{"do":"junk"}',
    ]
)


def check(data: bytes) -> None:
    """The octets as a message, as a peer's reply, as settings."""
    _check_notice(data)
    _check_vacation(data)
    _check_rules(data)
    _check_threads(data)


def _check_notice(data: bytes) -> None:
    shown = data.decode("utf-8", "replace")
    fates = [
        dsn.Fate("bob@far.example", "failed", "5.1.1", diagnostic=shown[:3000], remote_host="mx.far.example"),
        dsn.Fate("dö@far.example", "delayed", "4.4.1", diagnostic=shown[-500:], smtp=False, original="x@y.example"),
    ]
    head = data[: parse(data).header_length]
    for count in (1, 2):
        made = dsn.report(
            host="mx.house.example",
            sender=_US,
            to=mailbox("ann@example.com"),
            message_id="<n@house.example>",
            now=_AT,
            subject=dsn.Subject(_AT, head, parse(data).message_id, "env", shown[:80]),
            fates=fates[:count],
        )
        _check_made(made, "multipart/report")
        read = email.message_from_bytes(made, policy=email.policy.compat32)
        parts = read.get_payload()
        assert isinstance(parts, list)
        assert len(parts) == 3
        assert parts[1].get_content_type() in {"message/delivery-status", "message/global-delivery-status"}
        assert made.count(b"\r\nFinal-Recipient:") >= count


def _check_made(made: bytes, kind: str) -> None:
    assert only_crlf(made)
    assert made.endswith(b"\r\n")
    parsed = parse(made)
    assert parsed.structure.type == kind
    assert parsed.auto_submitted == "auto-replied"
    assert all(len(line) <= 998 for line in made.split(b"\r\n"))
    assert len(parsed.from_) == len(parsed.to) == 1


def _check_vacation(data: bytes) -> None:
    try:
        vacation = read_vacation(data)
    except Invalid as error:
        assert error.code == "invalid_vacation"
        vacation = Vacation(
            text=data.decode("utf-8", "replace")[:5000] or "x", subject=data.decode("utf-8", "replace")[:100]
        )
    else:
        assert read_vacation(msgspec.json.encode(vacation)) == vacation
    parsed = parse(data)
    refusal(
        vacation,
        parsed,
        reverse_path="ann@example.com",
        own={"bob@house.example"},
        now=1_672_653_600_000_000,
        header=lambda _: [],
    )
    assert len(sender_key("ann@example.com", vacation)) == 32
    made = answer(vacation, parsed, sender=_US, reverse_path="ann@example.com", message_id="<v@house.example>", now=_AT)
    _check_made(made, "text/plain")
    for _, value in threading(parsed):
        assert value.isascii()
        assert value.isprintable()


def _check_rules(data: bytes) -> None:
    try:
        rules = read_rules([data])
    except (Invalid, TooLarge) as error:
        assert all(len(fault.pointer) < 3000 for fault in error.faults)
        rules = ()
    else:
        assert read_rules([msgspec.json.encode(rule) for rule in rules]) == rules
    for raw in (data, CORPUS[1]):
        parsed = parse(raw)
        for step in apply((*_RULES, *rules), Incoming(parsed, Fields(raw), partial(text, raw, parsed.structure))):
            assert step.reason


def _check_threads(data: bytes) -> None:
    keys = thread_keys(parse(data), received_at=1_672_653_600_000_000, text=data.decode("utf-8", "replace"))
    assert decode(encode(keys.facts)) == keys.facts
