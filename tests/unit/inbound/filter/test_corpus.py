"""The scores, held against kinds of mail: no honest kind above 3, most spam above the bound."""

from __future__ import annotations

import pytest

from tests.unit.inbound.filter.corpus import HAM, SPAM, variants
from tests.unit.inbound.filter.mails import fired, score

EACH = 12
BOUND = 5.0

MUST_MEET = {
    "phish_brand": {"name_brand", "link_mismatch"},
    "phish_lookalike": {"lookalike"},
    "phish_form": {"html_password", "link_address"},
    "spoofed_ours": {"from_ours", "helo_ours", "spf_fail"},
    "spoofed_dmarc": {"dmarc_reject", "link_shortener"},
    "advance_fee": {"advance_fee_plain", "reply_to_freemail"},
    "sextortion": {"extortion", "extortion_coin", "from_ours"},
    "ceo_fraud": {"errand", "rank_freemail"},
    "malware": set(),
    "locked_malware": {"locked_archive", "locked_password"},
    "pills": {"pills", "hidden_characters"},
    "image_spam": {"image_only", "html_hidden"},
    "casino": {"gain_plain"},
    "hidden_words": {"name_address", "mixed_scripts", "split_words", "link_userinfo"},
}


@pytest.mark.parametrize("kind", HAM)
def test_no_honest_kind_comes_near_the_bound(kind: str) -> None:
    for mail in variants(HAM[kind], EACH):
        assert score(mail) <= 3.0, fired(mail)


@pytest.mark.parametrize("kind", SPAM)
def test_each_kind_of_spam_has_its_reasons(kind: str) -> None:
    for mail in variants(SPAM[kind], EACH):
        assert fired(mail).keys() >= MUST_MEET[kind]
        assert score(mail) > 3.0, fired(mail)


def test_precision_and_recall() -> None:
    ham = [score(mail) for kind in HAM.values() for mail in variants(kind, EACH)]
    spam = [score(mail) for kind in SPAM.values() for mail in variants(kind, EACH)]
    caught = sum(one >= BOUND for one in spam)
    wrong = sum(one >= BOUND for one in ham)
    assert wrong == 0
    assert caught / len(spam) >= 0.95
