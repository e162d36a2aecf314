from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.threads import base_subject, is_forward, is_reply
from posthouse.mail.threads.subject import MAX_SUBJECT, read_subject

REPLIES = [
    "Re: Harbour plan",
    "RE: Harbour plan",
    "re:Harbour plan",
    "Re : Harbour plan",
    "AW: Harbour plan",
    "Antw: Harbour plan",
    "SV: Harbour plan",
    "VS: Harbour plan",
    "Odp: Harbour plan",
    "Odpověď: Harbour plan",
    "YNT: Harbour plan",
    "RES: Harbour plan",
    "RIF: Harbour plan",
    "R: Harbour plan",
    "Rép : Harbour plan",
    "Vá: Harbour plan",
    "Отв: Harbour plan",
    "ΑΠ: Harbour plan",
    "رد: Harbour plan",
    "תגובה: Harbour plan",
    "回复：Harbour plan",
    "回复: Harbour plan",
    "答复: Harbour plan",
    "返信: Harbour plan",
    "답장: Harbour plan",
    "Trả lời: Harbour plan",
    "RE[2]: Harbour plan",
    "Re(3): Harbour plan",
    "Re^4: Harbour plan",
    "Re2: Harbour plan",
    "Re: AW: Re: Harbour plan",
    "Re: [harbour-dev] Harbour plan",
    "[harbour-dev] Re: Harbour plan",
    "[EXTERNAL] Re: Harbour plan",
    "***SPAM*** Re: Harbour plan",
    "EXT: RE: Harbour plan",
    "Re: Harbour plan (was: Garden)",
    "  Re:\t Harbour   plan ",
    "Re: Fwd: Harbour plan",
]
FORWARDS = [
    "Fwd: Harbour plan",
    "FW: Harbour plan",
    "WG: Harbour plan",
    "TR : Harbour plan",
    "VB: Harbour plan",
    "Doorst: Harbour plan",
    "İlt: Harbour plan",
    "I: Harbour plan",
    "转发：Harbour plan",
    "轉寄: Harbour plan",
    "転送: Harbour plan",
    "Пересл: Harbour plan",
    "[Fwd: Harbour plan]",
    "Harbour plan (fwd)",
    "Fwd: Re: Harbour plan",
]
NEITHER = [
    "Harbour plan",
    "Re:Zero begins",
    "Re:CREATORS",
    "Regarding: the plan",
    "Report: numbers",
    "I need a boat",
    "R&D: budget",
    "https://example.com/re:this",
    "",
    "   ",
    ":",
    "[]",
]


@pytest.mark.parametrize("text", REPLIES)
def test_a_reply_is_known_in_every_language(text: str) -> None:
    assert is_reply(text)
    assert not is_forward(text)
    assert base_subject(text) == "Harbour plan"


@pytest.mark.parametrize("text", FORWARDS)
def test_a_forward_is_known_in_every_language(text: str) -> None:
    assert is_forward(text)
    assert not is_reply(text)
    assert base_subject(text) == "Harbour plan"


@pytest.mark.parametrize("text", NEITHER)
def test_a_subject_of_its_own_is_left_as_it_is(text: str) -> None:
    assert not is_reply(text)
    assert not is_forward(text)
    assert base_subject(text) == text.strip()


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("Re: [Ticket#4711] No light", "[Ticket#4711] No light"),
        ("[JIRA] [HAR-12] No light", "[HAR-12] No light"),
        ("Re: [Bug 90210] Crash", "[Bug 90210] Crash"),
        ("[choir] [announce] Concert", "Concert"),
        ("[announce]", "[announce]"),
        ("Re: Re:Zero begins", "Re:Zero begins"),
        ("Re:", ""),
        ("AW: Re: ", ""),
    ],
)
def test_ticket_numbers_stay_and_list_tags_go(text: str, base: str) -> None:
    assert base_subject(text) == base


def test_a_mangled_accent_is_the_same_subject() -> None:
    whole = read_subject("Einladung zum Gespräch am Freitag")
    mangled = read_subject("AW: Einladung zum Gespr?ch am Freitag")
    wrong = read_subject("RE: Einladung zum GesprÃ¤ch am Freitag")
    assert whole.key == mangled.key == wrong.key != 0
    assert read_subject("会议 2024").key != read_subject("报告 2024").key
    assert read_subject("Срок 12345678").key != read_subject("План 12345678").key


def test_composed_and_decomposed_letters_are_one() -> None:
    assert read_subject("Zo\u0308e").key == read_subject("Zöe").key


@given(
    st.text(max_size=80), st.lists(st.sampled_from(["Re: ", "FW: ", "AW: ", "[EXT] ", "Re[3]: ", "回复："]), max_size=6)
)
def test_prefixes_never_change_the_key_once_stripped(text: str, prefixes: list[str]) -> None:
    base = base_subject(text)
    again = read_subject("".join(prefixes) + base)
    if base_subject(base) == base and base:
        assert again.key == read_subject(base).key


@given(st.text(max_size=2000))
def test_any_text_is_accepted_and_bounded(text: str) -> None:
    subject = read_subject(text)
    assert len(subject.base) <= MAX_SUBJECT
    assert not (subject.reply and subject.forward)
    assert 0 <= subject.key < 1 << 128
