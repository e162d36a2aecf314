"""No statement of the pipeline may walk a table that grows with the messages that wait."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from posthouse.events import log
from posthouse.outbound import ledger
from posthouse.storage.queue import records as queue
from posthouse.storage.records import sql
from posthouse.storage.records.migrations.run import migrate
from posthouse.suppression import store as suppressions

_MODULES = (ledger, queue, log, suppressions)
_WALK = re.compile(r"SCAN (m|s|message|job|suppression|event)\b")
_SIZES = (1, 300, 2000)


def _spreads(module: ModuleType) -> list[tuple[str, str]]:
    return [
        (f"{module.__name__}.{name}", value)
        for name, value in vars(module).items()
        if isinstance(value, str) and name.startswith("_") and not name.startswith("__") and "{v(" in value
    ]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Generator[sqlite3.Connection, None, None]:
    path: Path = tmp_path_factory.mktemp("plans") / "records.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    with closing(sqlite3.connect(path)) as found:
        yield found


@pytest.mark.parametrize(("name", "statement"), [pair for module in _MODULES for pair in _spreads(module)])
def test_rows_are_looked_up_by_key(connection: sqlite3.Connection, name: str, statement: str) -> None:
    spread = sql.spread(statement)
    for rows in _SIZES:
        size = sql.size_for(min(rows, sql.most_rows(len(spread.columns))), len(spread.columns))
        text = sql.values(statement, size)
        texts = [text]
        if spread.reads:
            columns = connection.execute(text, _blanks(connection, text)).description
            texts.append(sql.aggregated(text, len(columns)))
        for each in texts:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {each}", _blanks(connection, each))]
            assert not [step for step in plan if _WALK.match(step)], (name, plan)


def _blanks(connection: sqlite3.Connection, text: str) -> list[int]:
    """As many parameters as the statement has."""
    try:
        connection.execute(f"EXPLAIN {text}", [])
    except sqlite3.ProgrammingError as error:
        needed = re.search(r"uses (\d+)", str(error))
        assert needed is not None
        return [1] * int(needed[1])
    return []


def test_a_walk_would_be_seen(connection: sqlite3.Connection) -> None:
    walking = "SELECT m.id FROM {v(id text)} JOIN message m ON m.id = v.id ORDER BY m.id, m.rcpt"
    text = sql.values(walking, sql.size_for(300, 1))
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", _blanks(connection, text))]
    assert [step for step in plan if _WALK.match(step)]
