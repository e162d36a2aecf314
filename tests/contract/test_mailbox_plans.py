"""The statements of the mailboxes look rows up by an index, however many there are: by plan."""

from __future__ import annotations

import re

import pytest

from posthouse.inbound import index, intake, store
from posthouse.mailbox import quota, reading, sql, verbs
from posthouse.mailbox.invariants import EVERY, Invariant
from posthouse.storage.records import sql as text
from posthouse.storage.records.base import Tx
from posthouse.storage.records.factory import open_records

STATEMENTS = {
    f"{module.__name__.rsplit('.', 1)[1]}.{name}": value
    for module in (sql, reading, verbs, quota, intake, store, index)
    for name, value in vars(module).items()
    if isinstance(value, str) and re.search(r"\b(SELECT|UPDATE|DELETE|INSERT)\b", value) and name.isupper()
}
SPREAD = {name: value for name, value in STATEMENTS.items() if "{v(" in value}


def test_all_are_looked_at() -> None:
    assert len(STATEMENTS) > 40
    assert {"sql.NEW_EMAILS", "reading._THREADS", "store._OUTCOMES"} <= STATEMENTS.keys()


@pytest.mark.parametrize("name", STATEMENTS)
async def test_sqlite_walks_no_table(sqlite_url: str, name: str) -> None:
    statement = STATEMENTS[name]
    sizes = [text.values(statement, size) for size in (1, 96)] if "{v(" in statement else [text.plain(statement).text]
    for statement_text in sizes:
        plan = await _sqlite_plan(sqlite_url, statement_text)
        made = {step.split()[1] for step in plan if step.startswith(("CO-ROUTINE", "MATERIALIZE"))}
        for step in plan:
            walked = re.match(r"SCAN (\S+)", step)
            assert not walked or walked[1] in made or re.match(r"v$|\(|\d|json_each|CONSTANT", walked[1]), step
            # Below an account a look-up names more than the account, but for walks in order.
            if "(account=?)" in step:
                assert name in {"sql.BOXES_BY_ROLE", "sql.OVERRIDES", "intake._MAILBOXES"}, step


@pytest.mark.parametrize("one", [one for one in EVERY if one.over], ids=lambda one: one.code)
async def test_what_is_asked_of_each_thread_or_email_walks_no_mailbox(sqlite_url: str, one: Invariant) -> None:
    for step in await _sqlite_plan(sqlite_url, text.plain(one.sql).text):
        assert not re.search(r"\((account=\?|account=\? AND mailbox=\?)\)", step), step


async def _sqlite_plan(url: str, statement: str) -> list[str]:
    bare = re.sub(r"\?\d+", "?", statement)

    async def work(tx: Tx) -> list[str]:
        return [row[3] for row in await tx.rows(f"EXPLAIN QUERY PLAN {bare}", *[None] * bare.count("?"))]

    records = await open_records(url)
    try:
        return await records.read(work)
    finally:
        await records.close()


@pytest.mark.parametrize("name", SPREAD)
async def test_postgresql_walks_no_table(postgres_url: str, name: str) -> None:
    statement, width = text.unnested(SPREAD[name])
    parameters = max(int(n) for n in re.findall(r"\$(\d+)", statement))

    async def work(tx: Tx) -> list[str]:
        # As many rows as make a plan matter, of one account, and statistics that say so.
        await tx.run(
            "INSERT INTO email (account, id, thread, content, size, received_at, subject, sender, preview, attachments,"
            " detail, threading, modseq, created_modseq) SELECT 1, i, i, 'k' || i, 1, i, '', '', '', 0, '', '', 1, 1"
            " FROM generate_series(1, 3000) AS i"
        )
        await tx.run(
            "INSERT INTO membership (account, mailbox, uid, email, thread, received_at, modseq, seen)"
            " SELECT 1, 1, i, i, i, i, 1, 0 FROM generate_series(1, 3000) AS i"
        )
        await tx.run("SET LOCAL plan_cache_mode = force_generic_plan")
        await tx.run(f"PREPARE asked AS {statement}")
        nulls = ", ".join(["NULL"] * parameters)
        return [row[0] for row in await tx.rows(f"EXPLAIN EXECUTE asked({nulls})")]

    assert width
    records = await open_records(postgres_url)
    try:
        plan = await records.write(work)
    finally:
        await records.close()
    for n, line in enumerate(plan):
        assert not re.search(r"Seq Scan on (?!v\b)", line), plan
        if "Index" in line and " Scan using " in line:
            assert "Index Cond" in plan[n + 1] or "Backward" in line, plan
