"""Rules, forwards and answers of a person, over the verdict."""

from __future__ import annotations

import msgspec
import pytest

from posthouse.inbound.decide import decide
from posthouse.inbound.model import Verdict, Via
from posthouse.mail.parse import parse
from tests.unit.inbound.arrivals import ANN, GOOD, JUNK, account, arrival, decided, led, letter, proof, rule

FILE = {"do": "file", "mailbox": "Archive/Bills"}
FORWARD = {"do": "forward", "to": ["Carl <carl@else.test>"]}
FOLDERS = {"Archive/Bills": 9}
SPAM = {"test": "spam"}


@pytest.mark.parametrize("verdict", [GOOD, JUNK])
def test_without_wishes_the_verdict_decides(verdict: Verdict) -> None:
    decision = decided(account(), verdict=verdict)
    assert decision.mailboxes == (("junk",) if verdict is JUNK else ("inbox",))
    assert decision.keywords == (("$junk",) if verdict is JUNK else ())
    assert not decision.forwards
    assert not decision.reasons


def test_rules_file_mark_and_say_why() -> None:
    one = account(rule(FILE, {"do": "read"}, {"do": "star"}, {"do": "keyword", "names": ["Bill"]}, name="Bills"))
    decision = decided(one, folders=FOLDERS)
    assert decision.mailboxes == (9,)
    assert set(decision.keywords) == {"$seen", "$flagged", "bill"}
    assert decision.reasons[0] == "The rule “Bills” fits: filed in Archive/Bills."


def test_a_mailbox_that_is_not_there_is_the_inbox_and_said() -> None:
    decision = decided(account(rule(FILE)))
    assert decision.mailboxes == ("inbox",)
    assert decision.reasons[-1] == "There is no mailbox Archive/Bills: it goes to the Inbox."


def test_filing_by_role_and_twice() -> None:
    decision = decided(account(rule({"do": "file", "role": "archive"}), rule(FILE)), folders=FOLDERS)
    assert decision.mailboxes == ("archive", 9)


def test_stop_ends_the_rules() -> None:
    assert decided(account(rule({"do": "stop"}), rule({"do": "discard"}))).mailboxes == ("inbox",)


def test_discarding_cancels_only_what_is_not_filed() -> None:
    assert decided(account(rule({"do": "discard"}))).mailboxes == ()
    assert decided(account(rule({"do": "discard"}), rule(FILE)), folders=FOLDERS).mailboxes == (9,)


@pytest.mark.parametrize(("keep", "kept"), [(True, ("inbox",)), (False, ())])
def test_a_rule_forwards_with_or_without_a_copy_here(keep: bool, kept: object) -> None:
    decision = decided(account(rule({**FORWARD, "keep": keep})))
    assert decision.forwards == ("carl@else.test",)
    assert decision.mailboxes == kept


@pytest.mark.parametrize(("keep", "kept"), [(True, ("inbox",)), (False, ())])
def test_the_account_forwards_everything(keep: bool, kept: object) -> None:
    decision = decided(account(rule(FORWARD), forward=("dora@else.test", "carl@else.test"), keep=keep))
    assert decision.forwards == ("carl@else.test", "dora@else.test")
    assert decision.mailboxes == kept


def test_a_forward_to_oneself_is_none() -> None:
    decision = decided(account(forward=(ANN,), keep=False))
    assert not decision.forwards
    assert decision.mailboxes == ("inbox",)


def test_junk_is_never_forwarded_and_kept() -> None:
    decision = decided(account(rule({**FORWARD, "keep": False}), forward=("d@else.test",), keep=False), verdict=JUNK)
    assert not decision.forwards
    assert decision.mailboxes == ("junk",)
    assert "It is junk, which is not forwarded." in decision.reasons


def test_junk_is_filed_only_by_rules_that_ask_about_it() -> None:
    assert decided(account(rule(FILE)), verdict=JUNK, folders=FOLDERS).mailboxes == ("junk",)
    asks = {"test": "all", "of": [{"test": "not", "of": {"test": "not", "of": SPAM}}]}
    assert decided(account(rule(FILE, when=asks)), verdict=JUNK, folders=FOLDERS).mailboxes == (9,)
    assert decided(account(rule({"do": "discard"}, when=SPAM)), verdict=JUNK).mailboxes == ()


def test_a_rule_asks_for_the_score() -> None:
    over = {"test": "spam", "over": 8}
    assert decided(account(rule({"do": "discard"}, when=over)), verdict=JUNK).mailboxes == ()
    assert decided(account(rule({"do": "discard"}, when=over)), verdict=GOOD).mailboxes == ("inbox",)


def test_a_rule_overrules_the_filter_but_not_a_scanner() -> None:
    one = account(rule({"do": "not_junk"}), forward=("c@else.test",))
    assert decided(one, verdict=JUNK).mailboxes == ("inbox",)
    assert decided(one, verdict=JUNK).forwards == ("c@else.test",)
    infected = msgspec.structs.replace(JUNK, virus="Eicar")
    assert decided(one, verdict=infected).mailboxes == ("junk",)
    assert not decided(one, verdict=infected).forwards
    assert decided(account(rule({"do": "junk"}))).keywords == ("$junk",)


@pytest.mark.parametrize(
    "fields",
    [[f"Delivered-To: {ANN}"], ["delivered-to:   <Ann@ACME.test> "], ["Received: by x"] * 100],
    ids=["ours", "ours, written otherwise", "hops"],
)
def test_what_goes_in_circles_stays_here(fields: list[str]) -> None:
    decision = decided(account(forward=("c@else.test",), keep=False), letter(*fields))
    assert not decision.forwards
    assert decision.mailboxes == ("inbox",)
    assert "goes no further" in decision.reasons[-1]


def test_another_address_of_delivered_to_is_no_circle() -> None:
    raw = letter("Delivered-To: c@else.test", *["Received: by x"] * 99)
    assert decided(account(forward=("c@else.test",)), raw).forwards == ("c@else.test",)


def test_body_and_header_are_looked_at() -> None:
    body = {"test": "text", "field": "body", "op": "contains", "values": ["invoice"]}
    header = {"test": "header", "name": "X-Tag", "op": "is", "values": ["Grüße"]}
    one = account(rule(FILE, when={"test": "all", "of": [body, header]}))
    raw = letter("X-Tag: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", body="Your Invoice.\r\n")
    assert decided(one, raw, folders=FOLDERS).mailboxes == (9,)
    assert decided(one, letter(), folders=FOLDERS).mailboxes == ("inbox",)


def test_rules_that_cannot_be_read_hold_no_mail() -> None:
    decision = decided(account({"name": "new", "when": {"test": "mood"}, "then": []}))
    assert decision.mailboxes == ("inbox",)
    assert "cannot be read" in decision.reasons[0]


VACATION = {"text": "Back on Monday."}


def test_an_answer_is_due() -> None:
    decision = decided(account(vacation=VACATION))
    assert decision.answer
    assert decision.mailboxes == ("inbox",)


@pytest.mark.parametrize(
    ("raw", "verdict", "sender", "why"),
    [
        (letter("Auto-Submitted: auto-replied"), GOOD, "bob@sender.test", "Auto-Submitted"),
        (letter("Precedence: bulk"), GOOD, "bob@sender.test", "Precedence"),
        (letter("List-Id: <l.test>"), GOOD, "bob@sender.test", "list"),
        (letter("X-Auto-Response-Suppress: All"), GOOD, "bob@sender.test", "x-auto-response-suppress"),
        (letter(), JUNK, "bob@sender.test", "junk"),
        (letter(), GOOD, "", "null"),
        (letter(), GOOD, "SRS0=a=b=c.test=d@e.test", "program"),
    ],
)
def test_what_is_not_answered(raw: bytes, verdict: Verdict, sender: str, why: str) -> None:
    decision = decided(account(vacation=VACATION), raw, verdict, sender=sender)
    assert not decision.answer
    assert why in decision.reasons[-1]


@pytest.mark.parametrize("spf", ["none", "neutral", "softfail", "fail", "temperror"])
def test_only_who_is_proved_is_answered(spf: str) -> None:
    """An answer to a borrowed name is backscatter."""
    decision = decided(account(vacation=VACATION), auth=proof(spf))
    assert not decision.answer
    assert "Nothing proves" in decision.reasons[-1]
    assert decided(account(vacation=VACATION), auth=proof(spf, dmarc="pass")).answer


def test_behind_a_front_server_that_is_its_own_to_see_to() -> None:
    mail = arrival(letter(), auth=proof("none"))
    mail = msgspec.structs.replace(mail, evidence=msgspec.structs.replace(mail.evidence, listener="lmtp"))
    one = account(vacation=VACATION)
    assert decide(mail, parse(letter()), mail.recipients[0], one, GOOD, {}).answer


def test_a_discarded_mail_is_not_answered_and_a_switched_off_answer_says_nothing() -> None:
    assert not decided(account(rule({"do": "discard"}), vacation=VACATION)).answer
    off = decided(account(vacation={**VACATION, "enabled": False}))
    assert not off.answer
    assert not off.reasons


def test_automatic_mail_is_forwarded_though_not_answered() -> None:
    decision = decided(account(forward=("c@else.test",), vacation=VACATION), letter("Auto-Submitted: auto-generated"))
    assert decision.forwards
    assert not decision.answer


def test_an_alias_leads_elsewhere_but_for_junk_and_circles() -> None:
    via = Via(("sales@acme.test",), forward="x@else.test")
    assert led(via).forwards == ("x@else.test",)
    assert led(via, verdict=JUNK).forwards == ()
    looped = led(via, letter("Delivered-To: sales@acme.test"))
    assert looped.forwards == ()
    assert looped.mailboxes == ()
    assert "come back" in looped.reasons[0]
