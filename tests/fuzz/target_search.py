"""The search box: nothing typed is an error, and no engine gets syntax that was typed in."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from functools import cache

from posthouse.storage.search import fts5, postgres
from posthouse.storage.search.opensearch import dsl
from posthouse.storage.search.query import (
    DEPTH_AT_MOST,
    TERMS_AT_MOST,
    WORDS_AT_MOST,
    All,
    Node,
    Not,
    Some,
    Term,
    parse,
)
from posthouse.storage.search.words import fold, phrase, words

CORPUS: tuple[bytes, ...] = (
    b"",
    b'from:ann@example.com "exact words" -draft report*',
    b"subject:(a OR b) NOT c AND d",
    b"to:cc:bcc:filename:attachment:x body:'y' -(-z)",
    b"((((((((((deep))))))))))",
    b'"unclosed',
    "“typographic” „quotes” Straße ＦＵＬＬ 日本語の件名 שלום ﬁ".encode(),
    b"NEAR(a b) ^x {head}: y + z - * \" ' \\ :* & | ! <-> %",
    b"a' OR 1=1 --",
    b"OR OR AND - -- NOT () (",
    b"x*y* a* * **",
    b"from:(ann OR bob) " * 20,
)
_LEXEME = re.compile(r"'(?:[^'\\]|''|\\.)*'(?::\*)?", re.DOTALL)


def check(data: bytes) -> None:
    """Parsed within its bounds, and taken by each engine's own parser."""
    text = data.decode("utf-8", "replace")
    query = parse(text)
    assert len(query.dropped) <= TERMS_AT_MOST
    assert all(0 < len(one.text) <= 100 for one in query.dropped)
    for word in words(text):
        assert word
        assert not any(character.isspace() for character in word)
    assert fold(fold(text)) == fold(text)
    assert all(phrase(text)[0])
    if query.root is None:
        return
    terms = list(_terms(query.root, 0))
    assert 1 <= len(terms) <= TERMS_AT_MOST
    for term in terms:
        assert 1 <= len(term.words) <= WORDS_AT_MOST
        assert all(term.words)
    _check_sqlite(query.root)
    _check_postgres(query.root)
    json.dumps(dsl.within("acc_1", query.root), ensure_ascii=False).encode()


def _terms(node: Node, depth: int) -> Iterator[Term]:
    assert depth <= 4 * DEPTH_AT_MOST
    match node:
        case Term():
            yield node
        case Not(part):
            yield from _terms(part, depth + 1)
        case All(parts) | Some(parts):
            assert len(parts) > 1
            for part in parts:
                yield from _terms(part, depth + 1)


@cache
def _sqlite() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute(
        "CREATE VIRTUAL TABLE t USING fts5(body, head, scope, tokenize = 'unicode61 remove_diacritics 0')"
    )
    return connection


def _check_sqlite(root: Node) -> None:
    said = fts5.expression(root, "@1")
    assert "\0" not in said
    _sqlite().execute("SELECT count(*) FROM t WHERE t MATCH ?", (said,)).fetchone()


def _check_postgres(root: Node) -> None:
    condition, values = postgres.exact(root)
    assert condition.count("$") == len(values)
    assert condition.isascii()
    assert not any("\0" in value for value in values)
    loose = postgres.loose(root)
    if loose is not None:
        assert "\0" not in loose
        assert set(_LEXEME.sub("", loose)) <= set("()&|! ")
