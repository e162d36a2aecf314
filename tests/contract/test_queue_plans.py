"""The queue's statements look jobs up by their key, however many there are: by plan, since
time would tell only with a million jobs."""

from __future__ import annotations

import re

import pytest

from posthouse.storage.queue import records as queue_sql
from posthouse.storage.records import sql
from posthouse.storage.records.base import Tx
from posthouse.storage.records.factory import open_records

BY_KEY = ["_LEASE", "_DONE", "_LATER", "_HELD", "_EXTEND", "_BURY"]
WHOLE_KEY = "job USING PRIMARY KEY (stage=? AND lane=? AND tenant=? AND due_at=? AND id=?)"


async def sqlite_plan(url: str, text: str) -> list[str]:
    async def work(tx: Tx) -> list[str]:
        return [row[3] for row in await tx.rows(f"EXPLAIN QUERY PLAN {text}", *[None] * text.count("?"))]

    records = await open_records(url)
    try:
        return await records.read(work)
    finally:
        await records.close()


@pytest.mark.parametrize("size", [1, 8, 128, 512])
@pytest.mark.parametrize("statement", BY_KEY)
async def test_sqlite_finds_each_job_by_its_whole_key(sqlite_url: str, statement: str, size: int) -> None:
    plan = await sqlite_plan(sqlite_url, sql.values(getattr(queue_sql, statement), size))
    on_job = [step for step in plan if " job" in step]
    assert on_job == [f"SEARCH {WHOLE_KEY}"]


@pytest.mark.parametrize("tenants", [1, 64])
async def test_sqlite_takes_jobs_in_the_order_of_the_key(sqlite_url: str, tenants: int) -> None:
    # Numbered parameters may repeat: the text is explained with bare ones.
    text = queue_sql._take(tenants).replace(" FOR UPDATE SKIP LOCKED", "")
    plan = await sqlite_plan(sqlite_url, "".join("?" if part.isdigit() else part for part in _parameters(text)))
    on_job = [step for step in plan if " job" in step]
    assert set(on_job) == {"SEARCH job USING PRIMARY KEY (stage=? AND lane=? AND tenant=? AND due_at>? AND due_at<?)"}
    assert len(on_job) == tenants
    assert not [step for step in plan if "TEMP B-TREE" in step]


def _parameters(text: str) -> list[str]:
    """The text in pieces, the numbers of its parameters apart."""
    pieces: list[str] = []
    for i, piece in enumerate(text.split("$")):
        digits = len(piece) - len(piece.lstrip("0123456789")) if i else 0
        pieces += [piece[:digits], piece[digits:]] if digits else [piece]
    return pieces


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_postgresql_skips_from_tenant_to_tenant(postgres_url: str, mode: str) -> None:
    async def work(tx: Tx) -> list[str]:
        await tx.run(f"SET LOCAL plan_cache_mode = {mode}")
        await tx.run(
            "INSERT INTO job (stage, lane, tenant, due_at, id)"
            " SELECT 'send', 2, 't' || i % 3, i, 'j' || i FROM generate_series(1, 20000) AS i"
        )
        scan = await tx.rows(f"EXPLAIN (ANALYZE, FORMAT TEXT) {queue_sql._SCAN}", "send", 2, "", 10**9, 64)
        take = await tx.rows(f"EXPLAIN (ANALYZE, FORMAT TEXT) {queue_sql._take(1)}", "send", 2, 10**9, "t1", 0, "", 50)
        return [row[0] for row in (*scan, *take)]

    records = await open_records(postgres_url)
    plan = await records.write(work)
    await records.close()
    scans = [line for line in plan if " on job" in line]
    assert all("Index" in line and "Scan using job_pkey" in line for line in scans)
    # The most rows that any step gave: what was asked for, not what waits.
    given = [float(match[1]) for line in plan if (match := re.search(r"actual time=.* rows=([\d.]+)", line))]
    assert 1 <= max(given) <= 50
