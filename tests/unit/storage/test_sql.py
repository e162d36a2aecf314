from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.storage.records import sql


def test_parameters_are_numbered_for_sqlite() -> None:
    assert sql.plain("SELECT a FROM t WHERE b = $2 AND c = $1 OR d = $12").text == (
        "SELECT a FROM t WHERE b = ?2 AND c = ?1 OR d = ?12"
    )


def test_literals_are_left_alone() -> None:
    text = "SELECT '$1 {v(a int)} = ANY($1) it''s FOR UPDATE' FROM t"
    assert sql.plain(text).text == text


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("x = ANY($1)", "x IN (SELECT value FROM json_each(?1))"),
        ("x =any ( $1 )", "x IN (SELECT value FROM json_each(?1))"),
        ("x <> ALL($3)", "x NOT IN (SELECT value FROM json_each(?3))"),
        ("SELECT 1 FOR UPDATE SKIP LOCKED", "SELECT 1 "),
        ("SELECT 1 FOR UPDATE", "SELECT 1 "),
        ("SELECT 1 FOR UPDATE OF job SKIP LOCKED", "SELECT 1 "),
        ("SELECT 1 FOR UPDATE) AS t", "SELECT 1 ) AS t"),
    ],
)
def test_what_sqlite_lacks_is_replaced(written: str, taken: str) -> None:
    assert sql.plain(written).text == taken


def test_lists_travel_as_json() -> None:
    statement = sql.plain("a = $1 AND b = ANY($2) AND c <> ALL($3)")
    assert sql.encode_lists(statement.lists, (1, ["x", 'q"'], [3])) == [1, '["x","q\\""]', "[3]"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("SELECT 1", True),
        ("  WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("SELECT 'UPDATE' FROM t FOR UPDATE", True),
        ("WITH a AS (DELETE FROM t RETURNING 1) SELECT * FROM a", False),
        ("UPDATE t SET a = 1 RETURNING a", False),
        ("INSERT INTO t SELECT 1", False),
        ("PRAGMA user_version = 1", False),
    ],
)
def test_reads(text: str, answer: bool) -> None:
    assert sql.reads(text) is answer


@pytest.mark.parametrize(
    "text",
    ["SELECT 1", "SELECT * FROM {v(a int)}, {w(b int)}", "SELECT * FROM {v(a real)}", "SELECT * FROM {v(a)}"],
)
def test_each_needs_one_relation_of_known_types(text: str) -> None:
    with pytest.raises(ValueError, match=r"relation|types"):
        sql.spread(text)


def test_a_relation_needs_each() -> None:
    with pytest.raises(ValueError, match="each"):
        sql.plain("SELECT * FROM {v(a int)}")


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="2 values for 1 columns"):
        sql.values_params(sql.spread("SELECT * FROM {v(a int)}"), 1, [(1, 2)], ())


def test_postgresql_takes_arrays_after_the_other_parameters() -> None:
    assert sql.unnested("UPDATE t SET a = v.a, b = $2 FROM {v(id text, a int, f float, d bytes)} WHERE t.c = $1") == (
        "UPDATE t SET a = v.a, b = $2 FROM unnest($3::text[], $4::bigint[], $5::double precision[], $6::bytea[]) "
        "AS v(id, a, f, d) WHERE t.c = $1",
        4,
    )


@given(columns=st.integers(1, 60), rows=st.integers(1, 1024))
def test_sizes_hold_the_rows_and_waste_little(columns: int, rows: int) -> None:
    most = sql.most_rows(columns)
    assert most * columns <= sql.VALUES_AT_MOST
    rows = min(rows, most)
    size = sql.size_for(rows, columns)
    assert rows <= size <= max(most, 1)
    assert size <= 2 * rows


_cell = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.none() | st.text(max_size=20), st.none() | st.integers(-(2**63), 2**63 - 1)), max_size=70
    ),
    first=_cell,
    second=_cell,
)
def test_the_relation_holds_the_rows_and_nothing_else(rows: list[tuple[Any, Any]], first: Any, second: Any) -> None:
    """With parameters before and after it, used twice, and sorted outside."""
    statement = "SELECT $2, v.a, v.b, $1 FROM {v(a text, b int)} WHERE $2 IS $2 ORDER BY v.b, v.a"
    parts = sql.spread(statement)
    connection = sqlite3.connect(":memory:")
    try:
        found: list[Any] = []
        if rows:
            size = sql.size_for(len(rows), 2)
            text = sql.values(statement, size)
            found = connection.execute(text, sql.values_params(parts, size, rows, (first, second))).fetchall()
    finally:
        connection.close()
    assert sorted(map(repr, found)) == sorted(repr((second, a, b, first)) for a, b in rows)
