"""The release before works on this schema: migrations only expand.

`statements_0003.txt` holds the statements that its code ran, through every contract and flow
test on PostgreSQL, one in a line; it was recorded, and is not kept up. Each is planned on the
schema as it is now, which fails when a table, a column, a type or the constraint of an ON
CONFLICT is not there any more. Then the schema is changed under a connection that has them all prepared.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy.ext.asyncio import create_async_engine

from posthouse.clock import SECOND, now
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations import upgrade as upgrading
from posthouse.storage.records.migrations.run import head, migrate
from tests.contract.ledger_rows import message, names

STATEMENTS = (Path(__file__).parent / "statements_0003.txt").read_text().splitlines()
BEFORE = "0003"


async def migrate_to(url: str, revision: str) -> None:
    """As the release whose newest revision this was."""
    scripts = upgrading.scripts()

    def upgrade(connection: sa.Connection) -> None:
        with EnvironmentContext(Config(), scripts, fn=lambda at, _: scripts._upgrade_revs(revision, at)) as environment:
            environment.configure(connection=connection, transactional_ddl=True)
            environment.run_migrations()

    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    await engine.dispose()


async def planned(connection: asyncpg.Connection) -> list[str]:
    """What cannot be planned any more."""
    failed: list[str] = []
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    for statement in STATEMENTS:
        nulls = ", ".join(["NULL"] * max((int(n) for n in re.findall(r"\$(\d+)", statement)), default=0))
        try:
            await connection.execute(f"PREPARE asked AS {statement}")
            await connection.execute(f"EXPLAIN EXECUTE asked{f'({nulls})' if nulls else ''}")
            await connection.execute("DEALLOCATE asked")
        except asyncpg.PostgresError as error:
            failed.append(f"{error}: {statement[:200]}")
            await connection.execute("DEALLOCATE ALL")
    return failed


@pytest.fixture
async def old_url(postgres_server: str):
    name = f"before_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres_server)
    await connection.execute(f"CREATE DATABASE {name}")
    url = f"{postgres_server.rsplit('/', 1)[0]}/{name}"
    await migrate_to(url, BEFORE)
    yield url
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


async def test_every_statement_of_the_release_before_is_planned(postgres_url: str, old_url: str) -> None:
    assert len(STATEMENTS) > 200
    assert {"message", "event", "job", "inbound", "email", "membership", "suppression"} <= set(
        re.findall(r"(?:FROM|INTO|UPDATE) (\w+)", "\n".join(STATEMENTS))
    )
    for url in (old_url, postgres_url):
        connection = await asyncpg.connect(url)
        assert await planned(connection) == []
        await connection.close()


async def test_what_is_there_is_kept_while_the_release_before_works_on(old_url: str) -> None:
    """Rows of long ago, of now and of several accounts, and open connections with plans made before."""
    records = await open_records(old_url)
    queue = RecordsQueue(records)

    async def mailboxes(tx: Tx) -> int:
        return await tx.run(
            "INSERT INTO mailbox (account, id, name, uidvalidity, modseq) SELECT i, 1, 'Inbox', 1, 1"
            " FROM generate_series(1, 500) AS i"
        )

    assert await records.write(mailboxes) == 500
    ids = [await message(records, at, "queued") for at in (now() - 9_000_000 * SECOND, now())]
    held = Job("render", Lane.BULK, "t", now() + 60 * SECOND, ids[0], 1)
    waits = Job("render", Lane.BULK, "t", now() - SECOND, ids[1])

    async def jobs(tx: Tx) -> None:
        # As the release before wrote them.
        put = "INSERT INTO job (stage, lane, tenant, due_at, id, leased) VALUES ($1, $2, $3, $4, $5, $6)"
        for leased, job in enumerate((waits, held)):
            await tx.run(put, job.stage, job.lane, job.tenant, job.due_at, job.id, leased)

    await records.write(jobs)

    assert await migrate(old_url) == head()

    later = await message(records, now() + SECOND, "queued")
    assert await names(records, "message", "id") == {*ids, later}
    assert await names(records, "event", "message_id") == {*ids, later}
    assert len(await names(records, "mailbox", "account")) == 500
    assert await queue.done([held]) == 1
    assert [job.id for job in await queue.claim("render", Lane.BULK, 5, lease=60)] == [waits.id]
    rows = await records.read(
        lambda tx: tx.rows("SELECT id, tableoid::regclass::text FROM message ORDER BY id"),
    )
    assert [part for _, part in rows] == ["message_first"] * 3, "moved without being copied"
    await records.close()
