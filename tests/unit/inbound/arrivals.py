"""Arrivals, accounts and verdicts as the store stage sees them."""

from __future__ import annotations

from typing import Any

import msgspec

from posthouse import ids
from posthouse.clock import SECOND
from posthouse.directory.model import Account, AccountSettings
from posthouse.inbound.decide import decide, elsewhere
from posthouse.inbound.decision import Decision
from posthouse.inbound.model import Arrival, Evidence, Recipient, Verdict, Via
from posthouse.mail.parse import parse
from posthouse.mailauth.evidence import Arc, Authentication, Dmarc, Spf

ANN = "ann@acme.test"
BOB = "bob@sender.test"
NOW = 1_800_000_000 * SECOND
GOOD, JUNK = Verdict(0.0, False), Verdict(9.0, True)


def letter(*fields: str, subject: str = "Hello", body: str = "Hi.\r\n") -> bytes:
    lines = [*fields, f"From: Bob <{BOB}>", f"To: Ann <{ANN}>", f"Subject: {subject}", "Message-ID: <1@sender.test>"]
    return "\r\n".join([*lines, "", body]).encode()


def proof(spf: str = "pass", domain: str = "sender.test", *, dmarc: str = "none") -> Authentication:
    return Authentication(Spf(spf, domain), Spf("none", "mx", scope="helo"), (), Dmarc(dmarc, domain), Arc("none"))


def arrival(
    raw: bytes, *, sender: str = BOB, auth: Authentication | None = None, to: Recipient | None = None
) -> Arrival:
    evidence = Evidence("192.0.2.9", "mx.sender.test", None, auth or proof())
    trace = f"Return-Path: <{sender}>\r\nReceived: from mx\r\n by mx.acme.test with ESMTP id x;\r\n now\r\n".encode()
    recipients = (to or Recipient(0, "ten_1", ANN, 1, Via()),)
    return Arrival(ids.new("inb"), NOW, "key", len(raw), sender, evidence, trace, recipients, raw)


def account(*rules: object, **settings: Any) -> Account:
    raws = tuple(msgspec.Raw(msgspec.json.encode(one)) for one in rules)
    if "vacation" in settings:
        settings["vacation"] = msgspec.Raw(msgspec.json.encode(settings["vacation"]))
    return Account(1, "acc_1", "ten_1", ANN, "Ann", "active", 0, AccountSettings(rules=raws, **settings), 0)


def rule(*then: object, name: str = "R", when: object = None) -> dict[str, object]:
    """One that always fits, if nothing else is said."""
    return {"name": name, "when": when or {"test": "size", "over": 0}, "then": list(then)}


def decided(
    one: Account,
    raw: bytes = b"",
    verdict: Verdict = GOOD,
    *,
    folders: dict[str, int] | None = None,
    via: Via | None = None,
    **more: Any,
) -> Decision:
    raw = raw or letter()
    recipient = Recipient(0, "ten_1", ANN, 1, via or Via())
    return decide(arrival(raw, to=recipient, **more), parse(raw), recipient, one, verdict, folders or {})


def led(via: Via, raw: bytes = b"", verdict: Verdict = GOOD) -> Decision:
    recipient = Recipient(0, "ten_1", "sales@acme.test", 0, via)
    return elsewhere(arrival(raw or letter(), to=recipient), recipient, verdict)
