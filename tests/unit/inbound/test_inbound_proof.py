"""Whom a failure may be told."""

from __future__ import annotations

import pytest

from posthouse.inbound.proof import untold
from posthouse.mail.parse import parse
from posthouse.mailauth.evidence import Authentication
from tests.unit.inbound.arrivals import BOB, arrival, letter, proof


@pytest.mark.parametrize(
    ("auth", "sender"),
    [
        (proof(), BOB),
        (proof(domain="SENDER.test."), BOB),
        (proof("none", "mail.sender.test", dmarc="pass"), BOB),
        (proof("softfail", "sender.test", dmarc="pass"), "bob@news.sender.test"),
    ],
)
def test_a_proved_sender_is_told(auth: Authentication, sender: str) -> None:
    raw = letter()
    assert untold(arrival(raw, auth=auth, sender=sender), parse(raw)) == ""


@pytest.mark.parametrize(
    ("auth", "sender", "field", "why"),
    [
        (proof("softfail"), BOB, "", "nothing proves"),
        (proof("temperror"), BOB, "", "nothing proves"),
        (proof(), "bob@other.test", "", "nothing proves"),
        (proof(), "bob@news.sender.test", "", "nothing proves"),
        (proof("none", "other.test", dmarc="pass"), BOB, "", "nothing proves"),
        (proof("none", "sender.test", dmarc="fail"), BOB, "", "nothing proves"),
        (proof("none", "test", dmarc="pass"), BOB, "", "nothing proves"),
        (proof(), "bob", "", "nothing proves"),
        (proof(), "", "", "null"),
        (proof(), BOB, "List-Id: <a.sender.test>", "list"),
        (proof(), BOB, "List-Unsubscribe: <mailto:u@sender.test>", "list"),
        (proof(), BOB, "List-Post: <mailto:l@sender.test>", "list"),
        (proof(), BOB, "Precedence: bulk", "program"),
        (proof(), BOB, "Auto-Submitted: auto-generated", "program"),
        (proof(), BOB, "Content-Type: multipart/report; boundary=x", "report"),
    ],
)
def test_others_are_not(auth: Authentication, sender: str, field: str, why: str) -> None:
    raw = letter(*[field] * bool(field))
    assert why in untold(arrival(raw, auth=auth, sender=sender), parse(raw))
