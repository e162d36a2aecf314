"""A backup is made while mail comes in, everything is lost, and the backup is put back: what was in
it is whole and found, what came after is as if it had never come, and mail goes on."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from mail_house import MailHouse, letters, mail_house
from search_engine import listed, searched
from tests.conftest import S3_ACCESS_KEY, S3_BUCKET, S3_SECRET_KEY
from tests.product import wait_until
from tests.receiving import settings_of

from posthouse.app.values import blob_options
from posthouse.storage.blobs.factory import open_blobs

Step = Callable[[], Awaitable[None]]
BEFORE, LATER, AFTER = letters(25, seed=5), letters(15, seed=6), letters(10, seed=7)


async def ordeal(house: MailHouse, save: Step, lose: Step, put_back: Step) -> None:
    server = house.server
    assert set(await house.all_brought(BEFORE)) == {"250"}
    await _idle(house)
    before = listed(server)
    kept = list(house.accepted)
    coming = asyncio.create_task(house.all_brought(LATER[:5]))
    await save()
    assert set(await coming) == {"250"}
    assert set(await house.all_brought(LATER[5:])) == {"250"}
    await _idle(house)
    await house.kill()
    await lose()
    await put_back()
    await house.start()
    await _ended(house, server.post("/v1/tasks/reindex", {}, key=server.operator_key))
    await _idle(house)
    restored = listed(server)
    assert searched(server) == restored
    assert all(emails <= restored[account] for account, emails in before.items())
    # The blobs were copied last, so that some may be of mail that the records do not have; nothing else is wrong.
    assert {finding["code"] for finding in await _checked(house, mend=True)} <= {"blob_orphan"}
    assert await _checked(house) == []
    assert set(await house.all_brought(AFTER)) == {"250"}
    await _idle(house)
    assert searched(server) == listed(server), "also what got the numbers of mail that was lost"
    # What came while the copy was made may be in it or not.
    house.unanswered += [claim for claim in house.accepted if claim.number in {one.number for one in LATER[:5]}]
    house.accepted = kept + house.accepted[-len(AFTER) :]
    assert await house.judged() == []


async def _idle(house: MailHouse) -> None:
    await asyncio.to_thread(wait_until, lambda: house.waiting() == 0, "everything is stored and indexed")


async def _checked(house: MailHouse, *, mend: bool = False) -> list[dict[str, str]]:
    """As `posthouse check --deep` asks, and with `--mend`."""
    body = {"deep": True, "mend": mend}
    begun = house.server.post("/v1/tasks/check", body, key=house.server.operator_key)
    return (await _ended(house, begun))["findings"]


async def _ended(house: MailHouse, begun: httpx.Response) -> dict[str, Any]:
    """The task, when it is done."""
    task: dict[str, Any] = begun.raise_for_status().json()

    def ended() -> bool:
        nonlocal task
        answer = house.server.get(f"/v1/tasks/{task['id']}", key=house.server.operator_key)
        task = answer.raise_for_status().json()
        return task["state"] != "running"

    await asyncio.to_thread(wait_until, ended, "the task ends")
    assert task["state"] == "done"
    return task


@pytest.mark.timeout(120)
async def test_sqlite_and_a_directory(tmp_path: Path) -> None:
    async with mail_house(_made(tmp_path), more="") as house:
        data, copy = house.server.data, tmp_path / "copy"

        async def save() -> None:
            """`sqlite3 posthouse.db ".backup copy.db"`, then the blobs."""
            copy.mkdir()
            await asyncio.to_thread(_backup, data / "posthouse.db", copy / "posthouse.db")
            # What is in tmp/ is of writes under way, and comes and goes.
            ignore = shutil.ignore_patterns("tmp")
            await asyncio.to_thread(shutil.copytree, data / "blobs", copy / "blobs", ignore=ignore)

        async def lose() -> None:
            for path in (*data.glob("posthouse.db*"), *data.glob("search.db*")):
                path.unlink()
            shutil.rmtree(data / "blobs")

        async def put_back() -> None:
            shutil.copy(copy / "posthouse.db", data / "posthouse.db")
            shutil.copytree(copy / "blobs", data / "blobs")

        await ordeal(house, save, lose, put_back)


def _backup(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as from_, closing(sqlite3.connect(target)) as to:
        from_.backup(to)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_postgresql_s3_and_opensearch(
    tmp_path: Path, postgres_url: str, s3_server: str, opensearch_url: str
) -> None:
    prefix = f"p{tmp_path.name}-{postgres_url.rsplit('_', 1)[1]}"
    more = f"""
[worker]
lease = 5  # what was in hand at the copy is due again when its lease is over

[records]
url = "{postgres_url}"

[blobs]
url = "s3://{S3_BUCKET}/{prefix}"
endpoint = "{s3_server}"
access_key = "{S3_ACCESS_KEY}"
secret_key = "{S3_SECRET_KEY}"

[search]
url = "{opensearch_url}"
"""
    dump, copy = tmp_path / "posthouse.dump", tmp_path / "copy"
    async with mail_house(_made(tmp_path), more=more) as house:
        options = blob_options(settings_of(house.server.settings), "mail")

        async def save() -> None:
            """`pg_dump`, then the bucket: every object that the records refer to is there by then."""
            await _run("pg_dump", "--format=custom", f"--file={dump}", postgres_url)
            await _copied(options, {"url": f"file://{copy}"})

        async def lose() -> None:
            await _run("psql", "--quiet", "--command=DROP SCHEMA public CASCADE; CREATE SCHEMA public", postgres_url)
            store = await open_blobs(**options)
            for key in [key async for key in store.keys()]:  # noqa: SIM118
                await store.delete(key)
            await store.close()

        async def put_back() -> None:
            await _run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={postgres_url}", str(dump))
            await _copied({"url": f"file://{copy}"}, options)

        await ordeal(house, save, lose, put_back)


async def _copied(source: dict[str, str], target: dict[str, str]) -> None:
    from_, to = await open_blobs(**source), await open_blobs(**target)
    async for key in from_.keys():
        assert await to.put(await from_.get(key)) == key
    await from_.close()
    await to.close()


async def _run(*command: str) -> None:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def _made(tmp_path: Path) -> Path:
    directory = tmp_path / "house"
    directory.mkdir()
    return directory
