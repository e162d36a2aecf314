"""The worker and the recorder when something fails, on both engines: nobody is stuck, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from posthouse.clock import SECOND, now
from posthouse.errors import Conflict, StorageUnavailable
from posthouse.events import log as event_log
from posthouse.events.types import Type
from posthouse.outbound import ledger
from posthouse.outbound.ledger import Due
from posthouse.outbound.model import State
from posthouse.outbound.settle import Entry, Outcome
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx, Work
from tests.contract.pipeline import TENANT, Away, Setting, delivered, states, submit, until, worker_of


async def test_a_full_lane_claims_again_as_soon_as_there_is_room(records: Records) -> None:
    """Not only when it looks again by itself: here that would be in a minute."""
    queue = RecordsQueue(records)
    await submit(records, queue, 300)
    held: list[Job] = []

    async def run(jobs: Sequence[Job]) -> None:
        held.extend(jobs)

    worker = worker_of(queue, run, room=100, poll=60)
    task = asyncio.create_task(worker.run())
    await until(lambda: len(held) == 100)
    await asyncio.sleep(0.1)
    for job in list(held):  # one at a time, as outcomes come
        worker.release(job)
        await asyncio.sleep(0)
    await until(lambda: len(held) >= 188)
    worker.stop()
    await task


async def test_one_that_raises_does_not_hold_up_its_batch_and_is_buried_in_the_end(records: Records) -> None:
    queue = RecordsQueue(records)
    names = await submit(records, queue, 20)
    bad, done = names[7], set[str]()

    async def run(jobs: Sequence[Job]) -> None:
        if any(job.id == bad for job in jobs):
            raise KeyError("what this one needs is not there")
        done.update(job.id for job in jobs)
        await queue.done(jobs)
        for job in jobs:
            worker.release(job)

    worker = worker_of(queue, run, lease=0.05)
    task = asyncio.create_task(worker.run())
    await until(lambda: len(done) == 19 and worker.held == 0)
    async with asyncio.timeout(20):
        while not (buried := await queue.buried()):
            await asyncio.sleep(0.02)
    assert [one.id for one in buried] == [bad]
    await until(lambda: worker.held == 0)
    worker.stop()
    await task


class UnburyingQueue(RecordsQueue):
    refused = 0

    async def bury(self, jobs, *, tx=None) -> int:
        if self.refused < 2:
            self.refused += 1
            raise StorageUnavailable(detail="away")
        return await super().bury(jobs, tx=tx)


async def test_storage_that_is_away_at_a_burial_does_not_end_the_worker(records: Records) -> None:
    queue = UnburyingQueue(records)
    await queue.put([Job("render", 1, TENANT, now(), "msg_poison", attempts=20)])

    async def run(jobs: Sequence[Job]) -> None: ...

    worker = worker_of(queue, run, lease=0.1)
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(10):
        while not await queue.buried():
            await asyncio.sleep(0.02)
    assert queue.refused == 2
    assert not task.done()
    await until(lambda: worker.held == 0)
    worker.stop()
    await task


async def test_a_stop_gives_up_what_is_being_prepared_and_hands_it_back(records: Records) -> None:
    queue = RecordsQueue(records)
    await submit(records, queue, 10)
    began, went_on = asyncio.Event(), False

    async def run(jobs: Sequence[Job]) -> None:
        nonlocal went_on
        began.set()
        await asyncio.sleep(0.2)
        went_on = True

    worker = worker_of(queue, run)
    task = asyncio.create_task(worker.run())
    await began.wait()
    worker.stop()
    await task
    await worker.hand_back_all()
    await asyncio.sleep(0.3)
    assert not went_on
    assert worker.held == 0
    assert len(await queue.claim("render", Lane.TRANSACTIONAL, 100, lease=60)) == 10


class Refusing:
    """Records that refuse every transaction of the recorder which brings a certain text."""

    def __init__(self, setting_records: Records) -> None:
        self._records = setting_records
        self.capabilities = setting_records.capabilities
        self.away_after = 10**9
        self.written = 0

    async def write(self, work: Work[None], *, durable: bool = True) -> None:
        if self.written >= self.away_after:
            raise StorageUnavailable(detail="away")
        await self._records.write(work, durable=durable)
        self.written += 1


async def claimed(records: Records, queue: RecordsQueue, count: int) -> tuple[list[Job], dict[str, Due]]:
    names = await submit(records, queue, count)
    jobs = await queue.claim("render", Lane.TRANSACTIONAL, count, lease=60)

    async def load(tx: Tx) -> list[Due]:
        return await ledger.load(tx, names)

    return jobs, {due.id: due for due in await records.read(load)}


async def nothing(jobs: Sequence[Job]) -> None: ...


async def test_an_outcome_that_storage_refuses_costs_its_words_and_nobody_else(records: Records) -> None:
    """A recorder that stops would leave every connection waiting for ever."""
    queue = RecordsQueue(records)
    jobs, dues = await claimed(records, queue, 3)
    setting = Setting(records, queue, nothing)

    async def refuse(tx: Tx, outcomes: Sequence[Outcome]) -> None:
        raise Conflict("this address cannot be suppressed")

    setting.recorder._suppress = refuse
    outcomes = [delivered(dues[job.id]) for job in jobs]
    due = dues[jobs[1].id]
    outcomes[1] = Outcome(due, State.BOUNCED, now(), 1, 0, event=Type.BOUNCED, data="{}", suppress="550 no such user")
    async with asyncio.timeout(10):
        written = await asyncio.gather(
            *(setting.recorder.record(Entry(job, [outcome])) for job, outcome in zip(jobs, outcomes, strict=True))
        )
    assert written == [True, True, True]
    assert await states(records) == ["delivered", "bounced", "delivered"]
    assert await queue.depths() == []


async def test_an_outcome_that_cannot_be_recorded_at_all_sets_its_job_aside(records: Records) -> None:
    """Left to its lease it would be sent again and again."""
    queue = RecordsQueue(records)
    jobs, dues = await claimed(records, queue, 3)
    setting = Setting(records, queue, nothing)
    bad = jobs[0]
    taken = (bad.stage, bad.lane, bad.tenant, now() + 9 * SECOND, bad.id)
    await queue.put([Job(*taken)])  # a second job where the first one is to be put
    again = Outcome(dues[bad.id], State.DEFERRED, now(), 1, taken[3], event=Type.DEFERRED, data="{}")
    async with asyncio.timeout(10):
        first = setting.recorder.record(Entry(bad, [again], again_at=taken[3]))
        others = [setting.recorder.record(Entry(job, [delivered(dues[job.id])])) for job in jobs[1:]]
        assert await asyncio.gather(first, *others) == [False, True, True]
    [buried] = await queue.buried()
    assert buried.id == bad.id
    assert "could not be recorded" in buried.reason
    assert setting.worker.held == 0


async def test_what_is_written_before_storage_goes_away_is_not_written_again(records: Records) -> None:
    """Entries go one by one after a lost lease; storage goes away in the middle."""
    queue = RecordsQueue(records)
    jobs, dues = await claimed(records, queue, 4)
    await queue.extend([jobs[3]], lease=600)  # stolen
    flaky = Refusing(records)
    flaky.away_after = 2
    setting = Setting(flaky, queue, nothing)  # type: ignore[arg-type]
    waiting = [
        setting.recorder.record(Entry(job, [delivered(dues[job.id])], open=place < 2)) for place, job in enumerate(jobs)
    ]
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting[:2]) == [True, True]
        flaky.away_after = 10**9
        assert await asyncio.gather(*waiting[2:]) == [True, False]

    async def count(tx: Tx) -> list[int]:
        return [len(await event_log.of_message(tx, job.id)) for job in jobs]

    assert await records.read(count) == [1, 1, 1, 0]


class LosingAnswers:
    """Records whose writes happen, and of which some are then said to be unknown."""

    def __init__(self, records: Records, losses: int) -> None:
        self._records = records
        self.capabilities = records.capabilities
        self.losses = losses

    async def write(self, work: Work[None], *, durable: bool = True) -> None:
        await self._records.write(work, durable=durable)
        if self.losses:
            self.losses -= 1
            raise StorageUnavailable(detail="the connection was lost during COMMIT")


async def test_what_may_have_been_written_is_written_once(records: Records) -> None:
    """A message with several destinations: its job is still held, so only its rows can tell."""
    queue = RecordsQueue(records)
    jobs, dues = await claimed(records, queue, 2)
    setting = Setting(LosingAnswers(records, losses=2), queue, nothing)  # type: ignore[arg-type]
    first = setting.recorder.record(Entry(jobs[0], [delivered(dues[jobs[0].id])], open=True))
    second = setting.recorder.record(Entry(jobs[1], [delivered(dues[jobs[1].id])], open=True))
    async with asyncio.timeout(10):
        assert await asyncio.gather(first, second) == [True, True]

    async def events(tx: Tx) -> list[str]:
        return [event.type for job in jobs for event in await event_log.of_message(tx, job.id)]

    assert await records.read(events) == ["delivered", "delivered"]
    assert await states(records) == ["delivered", "delivered"]


async def test_a_drain_has_an_end(records: Records) -> None:
    queue = RecordsQueue(records)
    jobs, dues = await claimed(records, queue, 1)
    away = Away(records)
    setting = Setting(away, queue, nothing)  # type: ignore[arg-type]
    waiting = setting.recorder.record(Entry(jobs[0], [delivered(dues[jobs[0].id])]))
    async with asyncio.timeout(30):
        await setting.recorder.drain(0.2)
    assert not waiting.done()
    away.away = False
    async with asyncio.timeout(10):
        await setting.recorder.drain(10)
    assert await waiting
