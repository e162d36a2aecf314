"""Processes show themselves in the records; a stuck stage is told from an idle one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from posthouse.api.app import build_probes
from posthouse.api.edge import Api, Options
from posthouse.api.endpoints import house
from posthouse.app.presence import Presence, State, living
from posthouse.app.probes import probes
from posthouse.clock import SECOND, now
from posthouse.errors import Misconfigured, StorageUnavailable
from posthouse.storage.records.base import Records, Tx


class Steady:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _presence(records: Records, *roles: str, **options: Any) -> Presence:
    return Presence(records, now, roles=roles, version="1.2", **options)


async def test_each_process_has_a_row_until_it_ends(records: Records) -> None:
    one, two = _presence(records, "api", "send", every=0.05), _presence(records, "send", every=0.05)
    jobs = {"bulk": (3, 7)}
    one.watch("send", "render", lambda: jobs, patience=10, hopeless=30)
    async with one.running():
        async with two.running():
            async with asyncio.timeout(30):
                while one.count("send") != 2 or two.count("api") != 1:
                    await asyncio.sleep(0.01)
            found = {process.id: process for process in await living(records)}
            assert set(found) == {one.id, two.id}
            shown = found[one.id]
            assert (shown.roles, shown.version) == (("api", "send"), "1.2")
            assert abs(shown.seen_at - now()) < 5 * SECOND
            assert shown.pid > 0
        async with asyncio.timeout(30):
            while one.count("send") != 1:
                await asyncio.sleep(0.01)
        one.look()
        await one.beat()
        (shown,) = await living(records)
        assert shown.state.stages["render"]["bulk"].held == 3
        assert abs(shown.state.stages["render"]["bulk"].progressed_at - now()) < 5 * SECOND
    assert await living(records) == []


async def test_a_silent_process_counts_no_more_whatever_its_clock_says(records: Records) -> None:
    behind = Presence(records, lambda: now() - 600 * SECOND, roles=["api"], version="1")
    await behind.beat()
    assert [one.id for one in await living(records)] == [behind.id]
    await asyncio.sleep(0.06)
    assert await living(records, expiry=0.05) == []


async def test_rows_of_another_release_are_shown_without_their_state(records: Records) -> None:
    one = _presence(records, "api")
    await one.beat()

    async def other(tx: Tx) -> None:
        await tx.run("UPDATE process SET state = $1", '{"stages": 5}')

    await records.write(other)
    (shown,) = await living(records)
    assert shown.state == State()


async def test_old_rows_are_forgotten(records: Records) -> None:
    one = _presence(records, "api")
    await one.beat()

    async def age(tx: Tx) -> None:
        await tx.run("UPDATE process SET seen_at = seen_at - $1", 7200 * SECOND)

    await records.write(age)
    async with _presence(records, "send", every=0.05).running():
        async with asyncio.timeout(30):
            while True:
                rows = await records.read(lambda tx: tx.rows("SELECT id FROM process"))
                if [row[0] for row in rows] != [one.id] and len(rows) == 1:
                    break
                await asyncio.sleep(0.01)


async def test_records_that_are_away_stop_nothing(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    one = _presence(records, "api", every=0.02)

    async def away(*args: Any, **options: Any) -> Any:
        raise StorageUnavailable(detail="test")

    with monkeypatch.context() as patch:
        patch.setattr(records, "write", away)
        async with one.running():
            await asyncio.sleep(0.1)
            patch.undo()
            async with asyncio.timeout(30):
                while one.count("api") != 1:
                    await asyncio.sleep(0.01)


async def test_a_stuck_stage_is_told_from_an_idle_and_a_busy_one(records: Records) -> None:
    steady = Steady()
    one = _presence(records, "api", "store", monotonic=steady)
    jobs: dict[str, tuple[int, int]] = {"bulk": (0, 0), "transactional": (0, 0)}
    one.watch("store", "store", lambda: jobs, patience=60, hopeless=180)

    def after(seconds: float) -> tuple[str, bool]:
        steady.now += seconds
        one.look()
        health = one.health()
        assert health.roles["api"].status == "ok"
        return health.roles["store"].status, health.alive

    assert after(0) == ("idle", True)
    assert after(1000) == ("idle", True)
    jobs["bulk"] = (5, 0)
    assert after(1) == ("working", True)
    for finished in range(1, 10):
        jobs["bulk"] = (5, finished)
        assert after(50) == ("working", True)
    jobs["transactional"] = (9, 40)
    assert after(59) == ("working", True)
    jobs["transactional"] = (9, 41)
    assert after(2) == ("stuck", True), "one lane goes on, another does not"
    assert one.health().roles["store"].waited == 61
    assert after(200) == ("stuck", False)
    jobs["bulk"] = (0, 9)
    jobs["transactional"] = (0, 50)
    assert after(1) == ("idle", True)


async def test_a_late_loop_shows_for_a_while(records: Records) -> None:
    steady = Steady()
    one = _presence(records, "api", monotonic=steady)
    one.look(7.5)
    assert not one.health().alive
    steady.now += 9
    one.look(0.001)
    assert one.health().late == 7.5
    steady.now += 2
    one.look(0.001)
    assert one.health().alive


async def test_probes_answer_without_the_api(records: Records) -> None:
    steady = Steady()
    one = _presence(records, "store", monotonic=steady)
    jobs = {"bulk": (2, 0)}
    one.watch("store", "store", lambda: jobs, patience=60, hopeless=180)
    one.look()
    services: Any = SimpleNamespace(
        checks={"records": records.ready},
        health=one.health,
        clock=now,
        limiter=None,
        accounts=SimpleNamespace(authenticate=None),
        records=records,
    )
    application = build_probes(services, Options(max_body=1000, body_seconds=5.0, access_log=False))
    async with probes("127.0.0.1", 0, application) as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
        answer = await client.get("/healthz")
        assert (answer.status_code, answer.json()) == (
            200,
            {"status": "ok", "roles": {"store": {"status": "working", "held": 2, "waited": 0.0}}, "late": 0.0},
        )
        ready = await client.get("/readyz")
        assert ready.json() == {
            "status": "ready",
            "checks": {"records": "ok"},
            "roles": {"store": {"status": "working", "held": 2, "waited": 0.0}},
            "late": 0.0,
        }
        assert (await client.get("/readyz?role=store")).status_code == 200
        assert (await client.get("/readyz?role=api")).json()["roles"] == {"api": {"status": "absent"}}
        assert (await client.get("/readyz?role=api")).status_code == 503
        assert (await client.get("/readyz?rolle=api")).status_code == 422
        assert "posthouse_jobs_held" in (await client.get("/metrics")).text
        assert (await client.get("/v1/messages")).status_code == 404
        steady.now += 61
        one.look()
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["roles"]["store"]["status"]) == (503, "stuck")
        assert (await client.get("/healthz")).status_code == 200
        steady.now += 130
        one.look()
        answer = await client.get("/healthz")
        assert (answer.status_code, answer.json()["status"]) == (503, "failing")
        port = int(url.rpartition(":")[2])
        with pytest.raises(Misconfigured, match="health_port"):
            async with probes("127.0.0.1", port, services):
                pass
    assert Api(services, house.OPERATIONS, Options())
