from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from posthouse import errors
from posthouse.storage.records.base import Row, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations import upgrade as upgrading
from posthouse.storage.records.migrations.run import head, migrate


async def test_migrating_again_changes_nothing(records_url: str) -> None:
    assert await migrate(records_url) == head()
    assert await migrate(records_url) == head()


async def test_several_at_once_agree(postgres_server: str, tmp_path: Path) -> None:
    name = f"several_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres_server)
    await connection.execute(f"CREATE DATABASE {name}")
    urls = [f"sqlite:///{tmp_path / 'new' / 'p.db'}", f"{postgres_server.rsplit('/', 1)[0]}/{name}"]
    try:
        assert set(await asyncio.gather(*(migrate(url) for url in urls * 4))) == {head()}
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()


async def test_a_newer_schema_stops_the_start(records_url: str) -> None:
    records = await open_records(records_url)

    async def work(tx: Tx) -> None:
        await tx.run("UPDATE alembic_version SET version_num = '9999'")
        await tx.run("UPDATE schema_floor SET revision = '9998'")

    await records.write(work)
    await records.close()
    with pytest.raises(errors.Misconfigured, match="9999") as raised:
        await migrate(records_url)
    assert raised.value.code == "schema_too_new"


async def test_a_newer_schema_that_only_has_more_does_not(records_url: str) -> None:
    """As when the next release has migrated, and this one still runs."""
    records = await open_records(records_url)
    await records.write(lambda tx: tx.run("UPDATE alembic_version SET version_num = '9999'"))
    assert await migrate(records_url) == head()
    assert await records.read(lambda tx: tx.rows("SELECT version_num FROM alembic_version")) == [("9999",)]
    await records.close()


async def test_a_newer_schema_without_a_floor_stops_the_start(records_url: str) -> None:
    records = await open_records(records_url)
    await records.write(lambda tx: tx.run("UPDATE alembic_version SET version_num = '9999'"))
    await records.write(lambda tx: tx.run("DROP TABLE schema_floor"))
    await records.close()
    with pytest.raises(errors.Misconfigured, match="9999"):
        await migrate(records_url)


async def test_a_failed_upgrade_leaves_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'p.db'}"
    records = await open_records(url)

    async def obstruct(tx: Tx) -> None:
        await tx.run("CREATE TABLE job_buried (a int)")  # the last table that 0001 makes

    await records.write(obstruct)
    with pytest.raises(errors.StorageUnavailable) as raised:
        await migrate(url)
    assert "job_buried" in raised.value.detail

    async def tables(tx: Tx) -> list[Row]:
        return await tx.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")

    assert await records.read(tables) == [("job_buried",)]
    await records.close()


def test_both_engines_have_the_same_tables_and_columns(sqlite_url: str, postgres_url: str) -> None:
    def shape(connection: sa.Connection) -> dict[str, object]:
        inspector = sa.inspect(connection)
        return {
            table: (
                [
                    (c["name"], str(c["type"].as_generic()).partition(" COLLATE")[0], bool(c["nullable"]))
                    for c in inspector.get_columns(table)
                ],
                inspector.get_pk_constraint(table)["constrained_columns"],
                sorted(u["column_names"] for u in inspector.get_unique_constraints(table)),
                sorted(
                    (str(index["name"]), index["column_names"])
                    for index in inspector.get_indexes(table)
                    if not index.get("duplicates_constraint")
                ),
            )
            for table in sorted(inspector.get_table_names())
            # On SQLite the search's are in a file of their own; parts are as their whole.
            if not table.startswith("search_") and not re.search(r"_(\d{2}|\d{8}|first|default)$", table)
        }

    async def of_postgres() -> object:
        engine = create_async_engine(postgres_url.replace("postgresql:", "postgresql+asyncpg:"))
        async with engine.connect() as connection:
            answer = await connection.run_sync(shape)
        await engine.dispose()
        return answer

    engine = sa.create_engine(sqlite_url)
    with engine.connect() as connection:
        of_sqlite = shape(connection)
    engine.dispose()
    assert len(of_sqlite) == 48
    assert of_sqlite == asyncio.run(of_postgres())


def test_the_files_name_the_revisions_that_alembic_knows() -> None:
    assert head() == upgrading.scripts().get_current_head()


async def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    path.write_text("no database, and long enough to be read as one's header" * 4)
    with pytest.raises(errors.StorageUnavailable) as raised:
        await migrate(f"sqlite:///{path}")
    assert "not a database" in raised.value.detail


async def test_a_server_that_is_away_is_said_to_be() -> None:
    with pytest.raises(errors.StorageUnavailable):
        await migrate("postgresql://nobody@127.0.0.1:9/none")
