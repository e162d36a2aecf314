"""How text becomes words, and what is typed a query."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.storage.search import words
from posthouse.storage.search.base import Doc
from posthouse.storage.search.query import (
    DEPTH_AT_MOST,
    TERMS_AT_MOST,
    WORDS_AT_MOST,
    All,
    Dropped,
    Node,
    Not,
    Some,
    Term,
    parse,
)
from posthouse.storage.search.tokens import BOUNDARY, tokens

TEXT = st.text(max_size=80) | st.text(alphabet="aßÅé東京カﾞก่हि \u0301_-.@'\"()*:OR", max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("naïve Straße ÅNGSTRÖM", "naive strasse angstrom"),
        ("e\u0301 é İstanbul ΣΊΣΥΦΟΣ", "e e istanbul σισυφοσ"),
        ("ﬁne Ⅷ ㎒ ½", "fine viii mhz 1 2"),
        ("ann.lee@mail.example.com", "ann lee mail example com"),
        ("foo_bar __init__ 1,234.56", "foo bar init 1 234 56"),
        ("東京都 iPhone15ケース", "東京 京都 都 iphone15 ケー ース ス"),
        ("서울에서", "서울 울에 에서 서"),
        ("ｶﾞｷﾞ", "ガギ ギ"),
        ("ภาษาไทย", "ภา าษ ษา าไ ไท ทย ย"),
        ("हिन्दी में", "हिन्दी में"),
        ("שָׁלוֹם مَرْحَبًا", "שלום مرحبا"),
        ("soft\u00adhyphen zero\u200dwidth", "softhyphen zerowidth"),
        ("", ""),
        ("!?\0\ud800", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words.words(text) == expected.split()


def test_a_long_run_is_cut_and_all_is_bounded() -> None:
    assert words.words("x" * 100) == ["x" * 40, "x" * 40, "x" * 20]
    assert len(words.words("a " * 100_000)) == words.MOST
    assert words.words("a b c", 2) == ["a", "b"]


@given(TEXT)
def test_words_hold_nothing_that_divides_or_changes_again(text: str) -> None:
    for word in words.words(text):
        assert 0 < len(word) <= words.LONGEST
        assert not re.search(r"[\s\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f\ud800-\udfff]", word)
        assert words.fold(word) == word


@given(TEXT, TEXT, TEXT)
@settings(max_examples=200)
def test_a_phrase_is_in_a_row_wherever_its_text_stands(before: str, text: str, after: str) -> None:
    row, open_end = words.phrase(text)
    whole = words.words(f"{before} {text} {after}")
    size = len(row)
    assert size == 0 or any(
        whole[at : at + size - 1] == list(row[:-1])
        and (whole[at + size - 1].startswith(row[-1]) if open_end else whole[at + size - 1] == row[-1])
        for at in range(len(whole) - size + 1)
    )


@pytest.mark.parametrize("part", ["東京", "京都", "都渋谷区", "東", "谷", "区"])
def test_any_piece_of_a_text_without_spaces_is_a_phrase_of_it(part: str) -> None:
    row, open_end = words.phrase(part)
    whole = words.words("東京都渋谷区")
    starts = [at for at in range(len(whole)) if whole[at : at + len(row) - 1] == list(row[:-1])]
    ends = [whole[at + len(row) - 1] for at in starts if at + len(row) <= len(whole)]
    assert any(end.startswith(row[-1]) if open_end else end == row[-1] for end in ends)


def test_header_words_stand_plain_and_marked() -> None:
    found = tokens(Doc("a", "e", 0, "Hi Bob", ("Ann <ann@x.org>",), ("b@y.org",), "text", ("plan.pdf",)))
    assert found.body == ["text"]
    assert found.head == (
        "hi bob = ann ann x org = b y org = plan pdf ="
        " #hi #bob = <ann <ann <x <org = <ann@x.org >b >y >org = >b@y.org %plan %pdf ="
    ).split(" ")
    assert tokens(Doc("a", "e", 0)).head == []


def test_headers_are_bounded() -> None:
    found = tokens(Doc("a", "e", 0, "word " * 10_000, to=("a b c d",) * 100_000, attachments=("x" * 10_000,)))
    assert len(found.head) < 12_000
    assert BOUNDARY in found.head


# Queries.


def t(text: str, field: str | None = None, *, prefix: bool = False) -> Term:
    return Term(tuple(text.split()), field, prefix)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("word", t("word")),
        ("two words", All((t("two"), t("words")))),
        ('"two words"', t("two words")),
        ("“two words”", t("two words")),
        ('"never closed', t("never closed")),
        ('"two wor"*', t("two wor", prefix=True)),
        ("rep*", t("rep", prefix=True)),
        ("a OR b c", All((Some((t("a"), t("b"))), t("c")))),
        ("a or b", All((t("a"), t("or"), t("b")))),
        ("a AND b && c", All((t("a"), t("b"), t("c")))),
        ("a || b", Some((t("a"), t("b")))),
        ("OR a OR", t("a")),
        ("-draft", Not(t("draft"))),
        ("NOT draft", Not(t("draft"))),
        ("--draft", t("draft")),
        ("well-known", t("well known")),
        ("from:ann", t("ann", "from")),
        ("FROM: ann", t("ann", "from")),
        ("-from:ann", Not(t("ann", "from"))),
        ("from:-ann", Not(t("ann", "from"))),
        ('subject:"two words"', t("two words", "subject")),
        ("cc:bob bcc:bob", All((t("bob", "to"), t("bob", "to")))),
        ("from:(a OR b) c", All((Some((t("a", "from"), t("b", "from"))), t("c")))),
        ("-(a b)", Not(All((t("a"), t("b"))))),
        ("((a)) ) b", All((t("a"), t("b")))),
        ("(a OR (b c)", Some((t("a"), All((t("b"), t("c")))))),
        ("re: hello", All((t("re"), t("hello")))),
        ("from:a@b.org", Term(("a", "b", "org"), "from", False, "a@b.org")),
        ("from:a@bo*", t("a bo", "from", prefix=True)),
        ("a@b.org", t("a b org")),
        ("京", t("京", prefix=True)),
        ("", None),
        ("() OR ( )", None),
    ],
)
def test_what_is_typed(text: str, root: Node | None) -> None:
    query = parse(text)
    assert query.root == root
    assert query.dropped == ()


@pytest.mark.parametrize(
    ("text", "root", "dropped"),
    [
        ("!!! word", t("word"), [Dropped("!!!", "no_words")]),
        ("from: ", None, [Dropped("from:", "nothing_follows")]),
        ("(a -from:)", t("a"), [Dropped("-from:", "nothing_follows")]),
        ("a*", t("a"), [Dropped("a*", "short_prefix")]),
        ("x" * 10 + " " + "y" * 2000, All((t("x" * 10), t(("y" * 40 + " ") * 24))), [Dropped("y" * 11, "too_long")]),
    ],
)
def test_what_is_left_out_is_said(text: str, root: Node | None, dropped: list[Dropped]) -> None:
    query = parse(text)
    assert query.root == root
    assert list(query.dropped) == dropped


def test_too_many_and_too_deep() -> None:
    query = parse(" ".join(f"w{n}" for n in range(TERMS_AT_MOST + 3)))
    assert isinstance(query.root, All)
    assert len(query.root.parts) == TERMS_AT_MOST
    assert [each.reason for each in query.dropped] == ["too_many"] * 3
    query = parse("(" * (DEPTH_AT_MOST + 2) + "a")
    assert query.root == t("a")
    assert [each.reason for each in query.dropped] == ["too_deep"] * 2


def _terms(node: Node | None, depth: int = 0) -> list[Term]:
    assert depth < 3 * DEPTH_AT_MOST
    match node:
        case None:
            return []
        case Term():
            return [node]
        case Not(part):
            return _terms(part, depth + 1)
        case All(parts) | Some(parts):
            assert len(parts) > 1
            return [term for part in parts for term in _terms(part, depth + 1)]


@given(
    TEXT | st.lists(st.sampled_from([*'()"*-:', " ", "OR ", "from:", "a", "NOT ", "é", "東"]), max_size=60).map("".join)
)
@settings(max_examples=300)
def test_anything_typed_is_a_bounded_query(text: str) -> None:
    query = parse(text)
    found = _terms(query.root)
    assert len(found) <= TERMS_AT_MOST
    assert len(query.dropped) <= TERMS_AT_MOST
    for term in found:
        assert 0 < len(term.words) <= WORDS_AT_MOST
        assert all(words.fold(word) == word and words.words(word) for word in term.words)
    if words.words(text.replace("OR", "").replace("NOT", "").replace("from:", "")) and not query.dropped:
        assert found
