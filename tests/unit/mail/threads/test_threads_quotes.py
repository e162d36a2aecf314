from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.threads.quotes import MAX_KEPT, name_mark, read_excerpt

SAID = "The furnace in the old harbour needs a new valve.\nWill you order it before the week ends?\n"


@pytest.mark.parametrize(
    "reply",
    [
        "Yes.\n\nOn Monday, Ann Lee <ann@example.com> wrote:\n> The furnace in the old harbour needs a\n> new valve. Will you\n> order it before the week ends?\n",
        "Yes.\n\nAm Montag schrieb Lee, Ann:\n>> The furnace in the old harbour needs a new valve.\n",
        "Ja.\n\n-----Original Message-----\nFrom: Ann Lee <ann@example.com>\nSent: Monday\n\n" + SAID,
        "Oui\n\n-- \nMy name\n\nLe lundi, Ann Lee <ann@example.com> a écrit :\n> " + SAID.replace("\n", "\n> "),
        "Si\n\nOn Monday, 1 January 2024 at 10:00, a person with a long line in front\nAnn Lee <ann@example.com> wrote:\n> "
        + SAID.replace("\n", "\n> "),
        "好\n\nAnn Lee <ann@example.com> 写道：\n> " + SAID.replace("\n", "\n> "),
    ],
)
def test_a_quotation_is_recognised_however_it_is_marked(reply: str) -> None:
    original, answer = read_excerpt(SAID), read_excerpt(reply)
    assert set(original.own) & set(answer.quoted)
    assert not set(original.own) & set(answer.own)
    assert {name_mark("Ann Lee"), name_mark("ann@example.com")} & set(answer.cited)


def test_what_is_not_quoted_cites_nobody() -> None:
    answer = read_excerpt(SAID + "\n-- \nAnn Lee\nA signature that says the same in every single mail of hers.")
    assert answer.quoted == answer.cited == ()
    assert answer.own == read_excerpt(SAID).own


def test_short_phrases_are_not_evidence() -> None:
    assert read_excerpt("Hello Ann,\nthanks!\nBest regards\n").own == ()


def test_a_name_is_the_same_either_way_round() -> None:
    assert name_mark("Lee, Ann") == name_mark("ann lee") != name_mark("Ann Low")
    assert name_mark("") == name_mark(" , ") == 0


@given(st.text(alphabet=st.sampled_from("ab >|-_.:\n@<>写道wrote"), max_size=3000))
def test_any_text_is_read_within_bounds(text: str) -> None:
    excerpt = read_excerpt(text)
    assert max(len(excerpt.own), len(excerpt.quoted)) <= MAX_KEPT
    assert len(excerpt.cited) <= 4
