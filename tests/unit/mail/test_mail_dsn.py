from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage, Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.errors import Invalid
from posthouse.mail.address import mailbox
from posthouse.mail.dsn import MAX_HEADERS, Fate, Subject, report

NOW = datetime(2025, 7, 4, 12, tzinfo=UTC)
SYSTEM = mailbox("mailer-daemon@mx.example.com", "Mail Delivery System")
ANN = mailbox("ann@example.com")
SUBJECT = Subject(
    NOW,
    b"From: ann@example.com\r\nSubject: Lunch\r\n\r\nbody is left out",
    "<m1@example.com>",
    "QQ314",
    "client.example",
)
FAILED = Fate(
    "bob@other.example", "failed", "5.1.1", "550 5.1.1 No such user", remote_host="mx.other.example", last_attempt=NOW
)


def built(*fates: Fate, subject: Subject = SUBJECT) -> EmailMessage:
    raw = report(
        host="mx.example.com",
        sender=SYSTEM,
        to=ANN,
        message_id="<r@mx.example.com>",
        now=NOW,
        subject=subject,
        fates=fates,
    )
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def status_of(message: EmailMessage) -> list[Message]:
    """The blocks of its message/delivery-status."""
    blocks = list(message.iter_parts())[1].get_payload()
    assert isinstance(blocks, list)
    return blocks  # type: ignore[return-value]


def test_a_failure_is_told_to_people_and_to_programs() -> None:
    message = built(FAILED)
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<m1@example.com>"
    assert message["Subject"].startswith("Undelivered mail")
    words, status, original = message.iter_parts()
    assert "550 5.1.1 No such user" in words.get_content()
    assert [part.get_content_type() for part in (words, status, original)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    whole, one = status_of(message)
    assert dict(whole.items()) == {
        "Original-Envelope-Id": "QQ314",
        "Reporting-MTA": "dns; mx.example.com",
        "Received-From-MTA": "dns; client.example",
        "Arrival-Date": "Fri, 04 Jul 2025 12:00:00 +0000",
    }
    assert dict(one.items()) == {
        "Final-Recipient": "rfc822; bob@other.example",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.other.example",
        "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
        "Last-Attempt-Date": "Fri, 04 Jul 2025 12:00:00 +0000",
    }
    assert original.get_content().replace("\r\n", "\n") == "From: ann@example.com\nSubject: Lunch\n"


def test_a_delay_says_until_when() -> None:
    message = built(
        Fate("bob@other.example", "delayed", "4.4.1", "no answer", smtp=False, original="b@x.example", retry_until=NOW)
    )
    assert message["Subject"].startswith("Delayed mail")
    _, one = status_of(message)
    assert one["Will-Retry-Until"] == "Fri, 04 Jul 2025 12:00:00 +0000"
    assert one["Original-Recipient"] == "rfc822; b@x.example"
    assert one["Diagnostic-Code"] == "X-Posthouse; no answer"


def test_several_recipients_have_a_block_each() -> None:
    message = built(FAILED, Fate("eve@x.example", "relayed", "2.0.0"), Fate("list@x.example", "expanded", "2.0.0"))
    assert [one["Action"] for one in status_of(message)[1:]] == ["failed", "relayed", "expanded"]
    assert built(Fate("eve@x.example", "delivered", "2.0.0"))["Subject"] == "Your message was delivered"


def test_addresses_beyond_ascii_are_reported_as_they_are() -> None:
    message = built(Fate("用户@例え.example", "failed", "5.1.1"))
    parts = list(message.iter_parts())
    assert parts[1].get_content_type() == "message/global-delivery-status"
    assert parts[2].get_content_type() == "message/global-headers"
    assert "utf-8; 用户@例え.example".encode() in message.as_bytes()


def test_the_originals_headers_are_bounded_and_carried_whatever_they_hold() -> None:
    long = b"".join(b"X-%d: \xff\x00 %s\n" % (n, b"a" * 2000) for n in range(40))
    part = list(built(FAILED, subject=Subject(NOW, long)).iter_parts())[2]
    carried = part.get_payload(decode=True)
    assert isinstance(carried, bytes)
    assert b"X-0: \xff\x00" in carried
    assert len(carried) <= MAX_HEADERS + 100


def test_a_boundary_in_the_headers_does_no_harm() -> None:
    raw = report(
        host="mx.example.com",
        sender=SYSTEM,
        to=ANN,
        message_id="<r@x.example>",
        now=NOW,
        subject=SUBJECT,
        fates=[FAILED],
    )
    boundary = raw.partition(b'boundary="')[2].partition(b'"')[0]
    message = built(FAILED, subject=Subject(NOW, b"X-Evil: --" + boundary + b"--\r\n"))
    assert len(list(message.iter_parts())) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"fates": []},
        {"fates": [Fate("a@b.example", "failed", "9.1.1")]},
        {"fates": [Fate("a@b.example", "failed", "5.1.1\r\nX: y")]},
        {"host": "a b"},
        {"fates": [FAILED] * 1001},
    ],
)
def test_what_is_no_report_is_refused(change: dict[str, object]) -> None:
    given: dict[str, object] = {"host": "mx.example.com", "fates": [FAILED], **change}
    with pytest.raises(Invalid):
        report(sender=SYSTEM, to=ANN, message_id="<r@x.example>", now=NOW, subject=SUBJECT, **given)  # type: ignore[arg-type]


@given(
    st.text(max_size=300),
    st.text(max_size=3000),
    st.none() | st.text(max_size=60),
    st.binary(max_size=500),
    st.text(max_size=40),
)
def test_no_peer_gets_a_field_into_a_report(
    recipient: str, said: str, host: str | None, headers: bytes, envelope: str
) -> None:
    fate = Fate(recipient, "failed", "5.0.0", said, remote_host=host, original=recipient)
    message = built(fate, subject=Subject(NOW, headers, envelope, envelope, host))
    assert len(list(message.iter_parts())) == 3
    if recipient.isascii():
        whole, one = status_of(message)
        assert set(whole.keys()) <= {"Original-Envelope-Id", "Reporting-MTA", "Received-From-MTA", "Arrival-Date"}
        known = ["Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"]
        assert [name for name in set(one.keys()) if name not in known] == []
