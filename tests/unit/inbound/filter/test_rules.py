"""Each rule has a message that meets it and one that does not; a rule without both fails here."""

from __future__ import annotations

import msgspec
import pytest

from posthouse.inbound.filter.facts import Facts
from posthouse.inbound.filter.personal import PERSONAL
from posthouse.inbound.filter.rule import reasons
from posthouse.inbound.filter.rules import FLAW_SCORES, RULES, apply
from posthouse.inbound.filter.weigh import WEIGHED
from posthouse.mail.parse.flaws import FLAWS
from tests.unit.inbound.filter.cases import CASES
from tests.unit.inbound.filter.mails import Mail, fired, proof, score

CODES = [rule.code for rule in RULES]


@pytest.mark.parametrize("code", [code for code in CODES if not code.startswith("flaw_")])
def test_the_rule_meets_what_it_is_for_and_not_what_is_close(code: str) -> None:
    met, close = CASES[code]
    assert code in fired(met)
    assert code not in fired(close)


@pytest.mark.parametrize("flaw", FLAW_SCORES)
def test_a_flaw_of_the_parser_counts(flaw: str) -> None:
    facts = Mail().facts()
    with_it = msgspec.structs.replace(facts, flaws=frozenset({flaw}))
    without = msgspec.structs.replace(facts, flaws=frozenset(FLAWS) - {flaw})
    assert f"flaw_{flaw}" in {reason.rule for reason in reasons(RULES, with_it)}
    assert f"flaw_{flaw}" not in {reason.rule for reason in reasons(RULES, without)}


def test_flaws_with_a_score_are_the_parsers() -> None:
    assert set(FLAW_SCORES) <= set(FLAWS)


def test_codes_are_unique_and_every_case_has_its_rule() -> None:
    codes = [*CODES, *(rule.code for rule in PERSONAL), *WEIGHED]
    assert len(codes) == len(set(codes))
    assert set(CASES) <= set(CODES)


@pytest.mark.parametrize("rule", [*RULES, *PERSONAL], ids=lambda rule: rule.code)
def test_a_sentence_is_a_sentence(rule: object) -> None:
    assert rule.text.endswith(".")  # type: ignore[attr-defined]
    assert rule.text.count("{}") <= 1  # type: ignore[attr-defined]


def test_what_was_found_stands_in_the_sentence_and_links_are_broken() -> None:
    assert "evil[.]example" in fired(CASES["link_mismatch"][0])["link_mismatch"]
    assert "{}" not in "".join(text for met, _ in CASES.values() for text in fired(met).values())


def test_an_ordinary_mail_meets_no_rule_against_it() -> None:
    assert fired(Mail()).keys() == {"dmarc_pass"}
    assert score(Mail()) < 0


def test_a_sentence_holds_a_bounded_printable_piece_of_a_peers_text() -> None:
    nasty = "{0}{x}<b>\x1b[31m\u202e" + "a" * 500 + ".exe"
    sentence = fired(Mail(attach=[(nasty, "application/octet-stream", b"x")]))["program"]
    assert sentence.isprintable()
    assert len(sentence) < 160


def test_seals_alone_excuse_nothing() -> None:
    assert "dmarc_reject" in fired(Mail(auth=proof(dmarc="fail", policy="reject", arc="pass")))


def test_mail_from_a_front_server_is_not_blamed_for_what_was_not_checked() -> None:
    assert not fired(Mail(auth=proof(), host=None, listener="lmtp"))


def test_a_server_that_mails_itself_does_not_lie() -> None:
    assert "helo_ours" in fired(Mail(helo="ours.example", host="pool.isp.example"))
    assert "helo_ours" not in fired(Mail(helo="ours.example", host="ours.example"))
    for peer in ("127.0.0.1", "::1"):
        assert "helo_ours" not in fired(Mail(helo="ours.example", host=None, peer=peer))


def test_facts_have_defaults_that_meet_few_rules() -> None:
    assert {reason.rule for reason in reasons(RULES, Facts())} <= {"unproved", "no_subject"}


def test_dns_that_did_not_answer_for_the_author_is_not_the_authors_fault() -> None:
    assert "unproved" not in fired(Mail(auth=proof("temperror", envelope="partner.example")))
    assert "unproved" not in fired(Mail(auth=proof(dmarc="temperror")))
    spoofed = Mail(from_="boss@ours.example", auth=proof("temperror", envelope="evil.example"))
    assert {"unproved", "from_ours"} <= fired(spoofed).keys()


@pytest.mark.parametrize("code", CASES)
def test_a_group_that_is_left_out_has_nothing_to_say(code: str) -> None:
    for mail in CASES[code]:
        facts = mail.facts()
        assert apply(facts) == reasons(RULES, facts)
