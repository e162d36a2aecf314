from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.errors import Invalid
from posthouse.mail.parse import parse
from posthouse.mail.threads import thread_keys
from posthouse.mailbox import threading
from posthouse.mailbox.entries import is_seen, stored_keywords
from posthouse.mailbox.folders import check_name
from posthouse.mailbox.model import Change
from posthouse.mailbox.reading import _folded
from posthouse.mailbox.record import detail, record, senders
from posthouse.mailbox.verbs import check_keywords
from tests.mailboxes import letter

WORDS = st.text("abcdefghijklmnopqrstuvwxyz$-_.0123456789", min_size=1, max_size=12)


@given(st.binary(max_size=600))
def test_whatever_was_parsed_comes_back(raw: bytes) -> None:
    parsed = parse(raw)
    row = record(parsed)
    kept = detail(row.detail)
    assert senders(row.sender) == parsed.from_
    assert (kept.structure, kept.to, kept.cc, kept.references) == (
        parsed.structure,
        parsed.to,
        parsed.cc,
        parsed.references,
    )
    assert (row.size, row.subject, row.preview) == (parsed.size, parsed.subject, parsed.preview)
    assert msgspec.json.encode(row)


@given(st.sets(WORDS, max_size=8))
def test_keywords_stand_between_blanks(words: set[str]) -> None:
    stored = stored_keywords(words)
    assert set(stored.split()) == words
    assert all(f" {word} " in stored for word in words)
    assert is_seen(words) == bool(words & {"$seen", "$draft"})


@given(st.text(max_size=20))
def test_a_keyword_is_printable_and_small(text: str) -> None:
    try:
        (word,) = check_keywords([text])
    except Invalid:
        return
    assert word == text.lower()
    assert word.isascii()
    assert not set(word) & set('(){]%*"\\ ')


@given(st.text(max_size=40))
def test_a_mailbox_name_stays_what_it_is(text: str) -> None:
    try:
        name = check_name(text)
    except Invalid:
        return
    assert check_name(name) == name
    assert "/" not in name
    assert name == name.strip() != ""
    assert "\0" not in name


def test_what_places_an_email_comes_back() -> None:
    keys = thread_keys(parse(letter(2, answers=1)), received_at=10**15)
    kept = threading.decode(threading.encode(keys))
    assert (kept.facts, kept.keys) == (keys.facts, keys.index)
    with pytest.raises(msgspec.MsgspecError):
        threading.decode(b"\x01")


@given(st.integers(0, 2**50), st.integers(0, 2**50))
def test_names_of_threads_sort_as_their_numbers(one: int, other: int) -> None:
    assert (threading.name(one) < threading.name(other)) == (one < other)
    assert threading.number(threading.name(one)) == one


@pytest.mark.parametrize(
    ("ops", "told"),
    [
        (["created", "updated"], "created"),
        (["created", "destroyed"], None),
        (["updated", "counts"], "updated"),
        (["counts", "counts"], "counts"),
        (["counts", "updated"], "updated"),
        (["updated", "destroyed"], "destroyed"),
        (["created", "counts", "destroyed"], None),
    ],
)
def test_changes_fold_into_what_a_client_needs(ops: list[str], told: str | None) -> None:
    rows = [(modseq, "mailbox", 7, op) for modseq, op in enumerate(ops, 1)]
    expected = () if told is None else (Change(len(ops), "mailbox", 7, told),)
    assert _folded(rows) == expected
