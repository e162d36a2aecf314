"""What the cluster's overview calls stuck, and what not, on real records."""

from __future__ import annotations

import msgspec
import pytest

from posthouse.api.ports import Cluster
from posthouse.app.cluster import Overview
from posthouse.app.presence import LaneState, State
from posthouse.clock import SECOND, now
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.address import Holder
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations.run import migrate


class House:
    def __init__(self, records: Records) -> None:
        self.records = records
        self.queue = RecordsQueue(records)
        self.overview = Overview(records, self.queue)

    async def process(
        self,
        name: str,
        roles: str,
        *,
        seen: float = 0,
        version: str = "0.1.0",
        held: int = 0,
        since: float = 0,
        late: float = 0,
    ) -> None:
        at = now()
        lane = LaneState(held, 5, at - int(since * SECOND), 60)
        state = msgspec.json.encode(State({"store": {"transactional": lane}}, late)).decode()

        async def work(tx: Tx) -> None:
            await tx.run(
                """INSERT INTO process (id, host, pid, roles, version, started_at, seen_at, state)
                   VALUES ($1, 'here', 7, $2, $3, $4, $5, $6)""",
                name, roles, version, at, at - int(seen * SECOND), state,
            )  # fmt: skip

        await self.records.write(work)

    async def lease(self, name: str, *, left: float) -> None:
        async def work(tx: Tx) -> None:
            await tx.run("DELETE FROM lease WHERE name = $1", name)
            await tx.run(
                "INSERT INTO lease (name, holder, fence, until) VALUES ($1, 'here/7', 3, $2)",
                name,
                now() + int(left * SECOND),
            )

        await self.records.write(work)

    async def job(self, stage: str, due: float = 0) -> None:
        at = now() - int(due * SECOND)
        await self.queue.put([Job(stage, Lane.TRANSACTIONAL, "ten_1", at, f"{stage}{at}", 0, None)])

    async def see(self) -> Cluster:
        return await self.overview()


@pytest.fixture
async def town(tmp_path):  # type: ignore[no-untyped-def]
    url = f"sqlite:///{tmp_path / 'posthouse.db'}"
    await migrate(url)
    records = await open_records(url, exclusive=Holder.SERVER)
    try:
        yield House(records)
    finally:
        await records.close()


async def test_a_cluster_that_works_is_not_stuck(town: House) -> None:
    await town.process("prc_1", "store,index,schedule", held=3, since=1)
    await town.lease("schedule", left=10)
    await town.job("store")
    found = await town.see()
    assert found.stuck == ()
    (one,) = found.processes
    assert (one.id, one.roles, one.here) == ("prc_1", ("store", "index", "schedule"), True)
    assert [(lane.stage, lane.lane, lane.held, lane.finished) for lane in one.lanes] == [
        ("store", "transactional", 3, 5)
    ]
    assert [(lease.name, lease.fence, lease.held) for lease in found.leases] == [("schedule", 3, True)]
    assert [(depth.stage, depth.ready) for depth in found.depths] == [("store", 1)]


async def test_jobs_that_nobody_serves(town: House) -> None:
    await town.process("prc_1", "api")
    await town.job("store")
    await town.job("render")
    assert sorted((await town.see()).stuck) == [
        "1 job waits before render, and no process has the role render or send.",
        "1 job waits before store, and no process has the role store.",
    ]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"held": 4, "since": 90}, "holds 4 jobs of store (transactional) and finished none for 90 s."),
        ({"seen": 60}, "has not been seen for 60 s and did not say that it ends."),
        ({"late": 7.5}, "was late by 7.5 s: its processor or its loop is held."),
    ],
)
async def test_a_process_that_hangs(town: House, how: dict[str, float], says: str) -> None:
    await town.process("prc_1", "store", **how)  # type: ignore[arg-type]
    assert (await town.see()).stuck == (f"prc_1 (here, 7) {says}",)


async def test_one_that_holds_nothing_is_idle(town: House) -> None:
    await town.process("prc_1", "store", held=0, since=4000)
    assert (await town.see()).stuck == ()


async def test_a_lease_that_nobody_holds_an_old_job_and_two_releases(town: House) -> None:
    await town.process("prc_1", "store,schedule")
    await town.process("prc_2", "store", version="0.2.0")
    await town.lease("schedule", left=-5)
    await town.job("store", due=1200)
    assert (await town.see()).stuck == (
        "Nobody holds the lease schedule, though a process with the role schedule runs.",
        "The oldest transactional job before store has been due for 20 min; 1 job waits.",
        "Processes of different releases run: 0.1.0, 0.2.0.",
    )


async def test_what_was_set_aside_is_told(town: House) -> None:
    await town.process("prc_1", "store")
    await town.job("store")
    (job,) = await town.queue.claim("store", Lane.TRANSACTIONAL, 1, lease=60)
    await town.queue.bury([(job, "poisoned")])
    assert (await town.see()).stuck == ("1 job of store (transactional) was set aside: posthouse queue list",)
