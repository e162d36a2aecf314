"""The queue against a model: any order of verbs, by holders living and dead, with time moving."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from posthouse.clock import SECOND
from posthouse.storage.queue.base import Job
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.factory import open_records
from tests.conftest import ManualClock

T = TypeVar("T")

TENANTS = ("a", "b", "c")
LEASES = (1, 5, 30)


@dataclass(frozen=True)
class Waiting:
    job: Job
    leased: bool = False


class QueueModel(RuleBasedStateMachine):
    """`jobs` by id is what the queue should hold; `handles` is every claim ever made."""

    template: Path

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="posthouse-"))
        shutil.copy(self.template, self.directory / "p.db")
        self.runner = asyncio.Runner()
        self.records = self.run(open_records(f"sqlite:///{self.directory / 'p.db'}"))
        self.clock = ManualClock()
        self.queue = RecordsQueue(self.records, clock=self.clock)
        self.jobs: dict[str, Waiting] = {}
        self.buried: dict[str, Job] = {}
        self.handles: list[Job] = []
        self.ids = iter(f"{n:05}" for n in range(10**5))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        if hasattr(self, "records"):
            self.run(self.records.close())
            self.runner.close()
            shutil.rmtree(self.directory)

    @rule(tenant=st.sampled_from(TENANTS), offsets=st.lists(st.integers(-20, 20), min_size=1, max_size=12))
    def put(self, tenant: str, offsets: list[int]) -> None:
        jobs = [Job("s", 1, tenant, self.clock() + at * SECOND, next(self.ids), 0, "p") for at in offsets]
        self.run(self.queue.put(jobs))
        self.jobs |= {job.id: Waiting(job) for job in jobs}

    @rule(seconds=st.sampled_from((0.5, 1, 4, 31)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(n=st.integers(1, 20), lease=st.sampled_from(LEASES))
    def claim(self, n: int, lease: int) -> None:
        claimed = self.run(self.queue.claim("s", 1, n, lease=lease))
        due = [waiting.job for waiting in self.jobs.values() if waiting.job.due_at <= self.clock()]
        assert len(claimed) == min(n, len(due))
        self._check_shares(Counter(j.tenant for j in claimed), Counter(j.tenant for j in due))
        for tenant in TENANTS:
            oldest = sorted((j.due_at, j.id) for j in due if j.tenant == tenant)
            own = [j.id for j in claimed if j.tenant == tenant]
            assert own == [id_ for _, id_ in oldest[: len(own)]]
        for job in claimed:
            before = self.jobs[job.id].job
            assert job == replace(before, due_at=self.clock() + lease * SECOND, attempts=before.attempts + 1)
            self.jobs[job.id] = Waiting(job, leased=True)
        self.handles += claimed

    @staticmethod
    def _check_shares(got: Counter[str], had: Counter[str]) -> None:
        """Nobody has less than another unless nothing of theirs is left; by one at most."""
        for poor in had:
            if got[poor] < had[poor]:
                assert all(got[rich] <= got[poor] + 1 for rich in had)

    def _held(self, jobs: list[Job]) -> list[Job]:
        return [j for j in jobs if (w := self.jobs.get(j.id)) is not None and w.leased and w.job.due_at == j.due_at]

    def _pick(self, data: st.DataObject) -> list[Job]:
        return data.draw(st.lists(st.sampled_from(self.handles), min_size=1, max_size=10, unique_by=lambda j: j.id))

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        jobs = self._pick(data)
        held = self._held(jobs)
        assert self.run(self.queue.done(jobs)) == len(held)
        for job in held:
            del self.jobs[job.id]

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), seconds=st.integers(-5, 20))
    def later(self, data: st.DataObject, seconds: int) -> None:
        jobs = self._pick(data)
        held = self._held(jobs)
        at = self.clock() + seconds * SECOND
        assert self.run(self.queue.later([(job, at) for job in jobs])) == len(held)
        for job in held:
            self.jobs[job.id] = Waiting(replace(job, due_at=at, attempts=0))

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), lease=st.sampled_from(LEASES))
    def extend(self, data: st.DataObject, lease: int) -> None:
        jobs = self._pick(data)
        held = [replace(job, due_at=self.clock() + lease * SECOND) for job in self._held(jobs)]
        kept = self.run(self.queue.extend(jobs, lease=lease))
        assert sorted(kept, key=lambda j: j.id) == sorted(held, key=lambda j: j.id)
        self.jobs |= {job.id: Waiting(job, leased=True) for job in kept}
        self.handles += kept

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        jobs = self._pick(data)
        held = self._held(jobs)
        assert self.run(self.queue.bury([(job, "why") for job in jobs])) == len(held)
        for job in held:
            self.buried[job.id] = self.jobs.pop(job.id).job

    @precondition(lambda self: self.buried)
    @rule(everything=st.booleans(), data=st.data())
    def put_back(self, everything: bool, data: st.DataObject) -> None:
        ids = list(self.buried) if everything else [data.draw(st.sampled_from(sorted(self.buried)))]
        assert self.run(self.queue.put_back([] if everything else ids)) == len(ids)
        for id_ in ids:
            self.jobs[id_] = Waiting(replace(self.buried.pop(id_), due_at=self.clock(), attempts=0))

    @rule()
    def free_leases(self) -> None:
        leased = [w.job for w in self.jobs.values() if w.leased]
        assert self.run(self.queue.free_leases()) == len(leased)
        self.jobs |= {job.id: Waiting(replace(job, due_at=self.clock())) for job in leased}

    @invariant()
    def depths_agree(self) -> None:
        if not hasattr(self, "records"):
            return
        depths = self.run(self.queue.depths())
        ready = sum(w.leased or w.job.due_at <= self.clock() for w in self.jobs.values())
        found = [(d.ready, d.delayed, d.buried, d.oldest_due_at) for d in depths]
        if not self.jobs and not self.buried:
            assert found == []
        else:
            oldest = min((w.job.due_at for w in self.jobs.values()), default=None)
            assert found == [(ready, len(self.jobs) - ready, len(self.buried), oldest)]


def test_the_queue_behaves_as_its_model(sqlite_template: Path) -> None:
    QueueModel.template = sqlite_template
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        QueueModel,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
