"""OpenSearch is not there yet, comes, goes, and comes again: mail does not notice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from mail_house import MailHouse, letters, mail_house
from search_engine import count, listed, own_engine, searched
from tests.product import wait_until
from tests.receiving import DOMAIN


def refused(house: MailHouse) -> bool:
    answer = house.server.get(f"/v1/accounts/ann@{DOMAIN}/search", key=house.server.operator_key, q="word")
    return answer.status_code == 503 and answer.json()["code"] == "search_unavailable"


def lag(house: MailHouse) -> float:
    lines = house.server.get("/metrics", key=house.server.operator_key).text.splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith("posthouse_search_lag_seconds ")]
    return float(value)


def running(house: MailHouse, task: str) -> bool:
    answer = house.server.get(f"/v1/tasks/{task}", key=house.server.operator_key)
    return answer.raise_for_status().json()["state"] == "running"


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_mail_arrives_while_opensearch_is_away(tmp_path: Path, opensearch_server: str) -> None:
    with own_engine() as (engine, url):
        more = f'[search]\nurl = "{url}/mail?shards=2&replicas=0"\n'
        async with mail_house(tmp_path, more=more) as house:
            assert set(await house.all_brought(letters(8))) == {"250"}
            await house.stored(seconds=20)
            assert house.server.get("/readyz").status_code == 200
            assert refused(house)
            await asyncio.to_thread(wait_until, lambda: lag(house) > 1, "the lag grows")
            await asyncio.to_thread(engine.start)
            await _indexed(house)
            await asyncio.to_thread(engine.stop)
            assert set(await house.all_brought(letters(8, seed=2))) == {"250"}
            await house.stored(seconds=20)
            assert refused(house)
            assert house.server.get("/readyz").status_code == 200
            assert count(listed(house.server)) >= 16
            await asyncio.to_thread(engine.start)
            await _indexed(house)
            everything = listed(house.server)
            begun = house.server.post("/v1/tasks/reindex", {}, key=house.server.operator_key)
            task = begun.raise_for_status().json()["id"]
            while running(house, task) or house.waiting():
                assert searched(house.server) == everything, "the old index answers until the new one is whole"
                await asyncio.sleep(0.1)
            assert searched(house.server) == everything
            assert await house.judged() == []


async def _indexed(house: MailHouse) -> None:
    await asyncio.to_thread(wait_until, lambda: house.waiting() == 0, "everything is indexed")
    assert searched(house.server) == listed(house.server)
