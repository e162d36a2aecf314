"""Keys keep their order, values their form, and chunks their place."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse import errors
from posthouse.moving.chunks import (
    Chunk,
    Chunks,
    check_types,
    decode_key,
    digest,
    encode_key,
    without_nul,
)
from posthouse.moving.tables import Column, Table
from posthouse.storage.records.base import Row

TABLE = Table("t", (Column("k", "int"), Column("x", "text")), (0,))
numbers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
rows = st.lists(
    st.tuples(numbers, texts, st.none() | st.binary(max_size=8), st.none() | texts),
    max_size=12,
    unique_by=lambda r: r[:2],
)


@given(rows)
@settings(max_examples=60, deadline=None)
def test_rows_keep_their_form_and_order_through_sqlite(given_rows: list[Row]) -> None:
    with closing(sqlite3.connect(":memory:")) as engine:
        engine.execute("CREATE TABLE t (a BIGINT, b TEXT, c BLOB, d TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID")
        engine.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", given_rows)
        stored = engine.execute("SELECT * FROM t ORDER BY a, b").fetchall()
    ordered = sorted(given_rows, key=lambda row: row[:2])
    assert stored == ordered
    assert digest(stored) == digest(ordered)


@given(rows, st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_value_changes_the_hash(given_rows: list[Row], data: st.DataObject) -> None:
    if not given_rows:
        assert digest([]) != digest([(None,)])
        return
    n = data.draw(st.integers(0, len(given_rows) - 1))
    position = data.draw(st.integers(0, 3))
    value = data.draw(st.sampled_from([None, 0, 1, "", "0", b"", b"0", "é", "e\u0301"]))
    changed = [
        tuple(value if (i, j) == (n, position) else v for j, v in enumerate(r)) for i, r in enumerate(given_rows)
    ]
    same = type(value) is type(given_rows[n][position]) and value == given_rows[n][position]
    assert (digest(changed) == digest(given_rows)) == same


@given(st.lists(st.tuples(numbers, texts, st.binary(max_size=5)), unique=True, min_size=1))
@settings(max_examples=60, deadline=None)
def test_chunks_are_found_by_the_keys_in_them(keys: list[Row]) -> None:
    chunks = Chunks(TABLE)
    for n, key in enumerate(keys):
        assert decode_key(encode_key(key)) == key
        chunks.put(Chunk(key, b"h", n))
        chunks.put(Chunk(key, b"h", n + 1))
    ordered = sorted(keys)
    assert [chunk.upper for chunk in chunks.chunks] == ordered
    assert chunks.last == ordered[-1]
    assert chunks.rows == sum(range(1, len(keys) + 1))
    for key in keys:
        holding = chunks.holding(key)
        assert holding is not None
        assert holding.upper == key
    assert chunks.holding((2**64,)) is None


def test_nul_is_replaced_in_texts_and_refused_in_keys() -> None:
    assert without_nul(TABLE, [(1, "a"), (2, None)]) == ([(1, "a"), (2, None)], 0)
    assert without_nul(TABLE, [(1, "\0a\0"), (2, "b")]) == ([(1, "\ufffda\ufffd"), (2, "b")], 1)
    with pytest.raises(errors.Misconfigured, match=r"t\.x .* NUL") as refused:
        without_nul(Table("t", TABLE.columns, (1,)), [(1, "\0")])
    assert refused.value.code == "move_value"


def test_values_of_another_type_are_told_by_row_and_column() -> None:
    check_types(TABLE, [(1, None), (2, "")])
    for row, column in (((1.5, ""), "k"), ((1, b""), "x"), (("1", ""), "k")):
        with pytest.raises(errors.Misconfigured, match=rf"t\.{column} ") as refused:
            check_types(TABLE, [row])
        assert refused.value.code == "move_value"


def test_bytes_that_follow_from_the_key_are_compared_by_length() -> None:
    table = Table("content", (Column("key", "text"), Column("data", "bytes"), Column("refs", "int")), (0,))
    assert table.signature(("k", b"12345", 1)) == ("k", 5, 1)
    assert table.signature(("k", None, 1)) == ("k", None, 1)
    assert table.select(lower=True, upper=True, full=False) == (
        'SELECT "key", length("data"), "refs" FROM "content" WHERE ("key") > ($1) AND ("key") <= ($2)'
        ' ORDER BY "key" LIMIT $3'
    )
