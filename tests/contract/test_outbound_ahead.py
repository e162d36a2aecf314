"""Submit ahead of the ledger: keys, crashes in between, quotas, readers that come too early.

The queue here is the records' own: what these prove does not depend on which queue it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from posthouse import ids
from posthouse.accounts import idempotency, limits
from posthouse.accounts.reserve import Reserve
from posthouse.clock import DAY, SECOND
from posthouse.egress.destinations import Destinations
from posthouse.errors import Conflict, Limited, NotFound, StorageUnavailable, Unavailable
from posthouse.outbound.ahead import MOST_IN_PART, SUBMIT, Record, Recorded, SubmitAhead
from posthouse.outbound.model import FanOutDraft, Idempotency, ManyDraft, MessageView, RecipientDraft
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx
from posthouse.worker import Worker
from tests.contract.outbound_house import DOMAIN, House, draft


class Flaky(RecordsQueue):
    """Puts of the submit stage fail `failures` times: after (`kept`) or before they are durable."""

    failures = 0
    kept = False

    async def put(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> None:
        fails = self.failures > 0 and any(job.stage == SUBMIT for job in jobs)
        if not fails or self.kept:
            await super().put(jobs, tx=tx)
        if fails:
            self.failures -= 1
            raise StorageUnavailable(detail="the broker is away")


class AheadHouse(House):
    """`House` whose requests are answered before the ledger has them."""

    def _wire(self, destinations: Destinations) -> None:
        self.queue = self.flaky = Flaky(self.records, clock=self.clock)
        super()._wire(destinations)

        async def run(jobs: Sequence[Job]) -> None:
            await self.stage(jobs)

        self.recording = Worker(
            SUBMIT, self.queue, run, room=dict.fromkeys(Lane, 100), batch=50, lease=60, poll=0.02, clock=self.clock
        )
        self.stage = Record(
            self.records,
            self.queue,
            wake=self.worker.wake,
            current=self.recording.current,
            release=self.recording.release,
            leases=self.recording.leases,
            clock=self.clock,
        )
        self.outbound._submit = SubmitAhead(self.records, self.queue, self.recording.wake, self.clock)
        self.outbound._recorded = Recorded(self.queue, self.clock, patience=0.3)
        self.outbound._works_on = None

    def record(self) -> None:
        self.tasks.append(asyncio.create_task(self.recording.run()))

    async def rest(self) -> None:
        self.recording.stop()
        await super().rest()

    async def recorded(self, count: int) -> None:
        async with asyncio.timeout(10):
            while await self.count("message") < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def house(records: Records, tmp_path: Path) -> AsyncIterator[AheadHouse]:
    made = AheadHouse(records, tmp_path)
    await made.open()
    yield made
    await made.close()


def decoded(body: bytes) -> Any:
    return msgspec.json.decode(body)


async def test_what_was_accepted_is_recorded_and_sent(house: AheadHouse) -> None:
    name = await house.message(to=["a@b.example", "c@b.example"])
    assert await house.count("message") == 0
    house.record()
    house.work()
    await house.settled(name, "delivered", "delivered")
    kinds = [event.type for event in await house.outbound.events(house.caller, name)]
    assert kinds.count("accepted") == 2
    assert house.peers.got == {"a@b.example": 1, "c@b.example": 1}


async def test_a_large_request_goes_in_parts(house: AheadHouse) -> None:
    house.outbound._bounds = replace(house.outbound._bounds, fan_out=2000)
    recipients = [RecipientDraft(to=f"u{n}@b.example") for n in range(MOST_IN_PART * 2 + 10)]
    answer = await house.outbound.send_each(
        house.caller, FanOutDraft(from_=f"a@{DOMAIN}", subject="s", text="t", recipients=recipients), idempotency=None
    )
    jobs = await house.queue.claim(SUBMIT, Lane.TRANSACTIONAL, 10, lease=60)
    assert len(jobs) == 3
    await house.stage(jobs)
    names = [one["id"] for one in decoded(answer.body)["results"]]
    assert await house.count("message") == len(set(names)) == len(recipients)
    assert await house.count("submission") == 1


async def test_a_job_that_comes_twice_changes_nothing(house: AheadHouse) -> None:
    name = await house.message(to=["a@b.example", "c@b.example"])
    jobs = await house.queue.claim(SUBMIT, Lane.TRANSACTIONAL, 10, lease=60)
    await house.stage(jobs)
    house.work()
    await house.settled(name, "delivered", "delivered")
    events = await house.count("event")
    await house.stage(jobs)  # long after its end
    await asyncio.sleep(0.3)
    assert await house.count("event") == events
    assert await house.count("message") == 2
    assert house.peers.got == {"a@b.example": 1, "c@b.example": 1}
    assert [depth for depth in await house.queue.depths() if depth.ready or depth.delayed] == []


async def test_a_key_gives_one_answer_before_and_after_the_ledger(house: AheadHouse) -> None:
    key = Idempotency("k", "hash")
    first = await house.outbound.send(house.caller, draft(), idempotency=key)
    again = await house.outbound.send(house.caller, draft(), idempotency=key)
    with pytest.raises(Conflict) as conflict:
        await house.outbound.send(house.caller, draft(text="x"), idempotency=Idempotency("k", "other"))
    assert conflict.value.code == "idempotency_key_reused"
    house.record()
    await house.recorded(1)
    later = await house.outbound.send(house.caller, draft(), idempotency=key)
    assert again.body == later.body == first.body
    assert (first.replayed, again.replayed, later.replayed) == (False, True, True)
    await asyncio.sleep(0.1)
    assert await house.count("message") == 1


async def test_a_key_is_one_process_s(house: AheadHouse) -> None:
    """Two at once: one accepts, the other is told to come again and gets the same ids."""
    other = SubmitAhead(house.records, house.queue, lambda lane: None, house.clock)
    mine, key = house.outbound._submit, Idempotency("k", "hash")
    results = await asyncio.gather(
        *(_send_through(house, submit, key) for submit in (mine, other)), return_exceptions=True
    )
    conflicts = [result for result in results if isinstance(result, Conflict)]
    answers = [result for result in results if isinstance(result, bytes)]
    assert len(conflicts) + len(set(answers)) in (1, 2)
    house.record()
    again = await house.outbound.send(house.caller, draft(), idempotency=key)
    assert set(answers) == {again.body}
    await house.recorded(1)
    await asyncio.sleep(0.1)
    assert await house.count("message") == 1


async def _send_through(house: AheadHouse, submit: Any, key: Idempotency) -> bytes:
    """As another process would: without our knowledge of the keys that are under way."""
    house.outbound._submit = submit
    house.outbound._in_flight = idempotency.InFlight()
    return (await house.outbound.send(house.caller, draft(), idempotency=key)).body


@pytest.mark.parametrize("kept", [False, True], ids=["nothing was put", "all was put"])
@pytest.mark.parametrize("form", ["single", "many"])
async def test_a_put_that_failed_is_made_good_under_the_same_ids(house: AheadHouse, *, kept: bool, form: str) -> None:
    key = Idempotency("k", "hash")

    async def send() -> bytes:
        if form == "single":
            return (await house.outbound.send(house.caller, draft(), idempotency=key)).body
        item = msgspec.Raw(
            msgspec.json.encode({"from": f"a@{DOMAIN}", "to": ["b@b.example"], "subject": "s", "text": "t"})
        )
        bad = msgspec.Raw(b"{}")
        return (
            await house.outbound.send_many(house.caller, ManyDraft(messages=[item, bad, item]), idempotency=key)
        ).body

    house.flaky.failures, house.flaky.kept = 1, kept
    with pytest.raises(StorageUnavailable):
        await send()
    with pytest.raises(Conflict) as conflict:  # another request under the key of one that was never answered
        await house.outbound.send(house.caller, draft(text="x"), idempotency=Idempotency("k", "other"))
    assert conflict.value.code == "idempotency_key_reused"
    answer = await send()
    assert await send() == answer
    house.record()
    count = 1 if form == "single" else 2
    await house.recorded(count)
    await asyncio.sleep(0.2)
    assert await house.count("message") == count
    said = decoded(answer)
    names = [one["id"] for one in said.get("results", [said]) if "id" in one]
    for name in names:
        assert len(await house.outbound.events(house.caller, name)) == 1


async def test_a_claim_that_a_process_died_with_is_taken_over(house: AheadHouse) -> None:
    key = Idempotency("k", "hash")
    house.flaky.failures = 1
    abandon, idempotency.abandon = idempotency.abandon, _never  # the process died before it could say so
    try:
        with pytest.raises(StorageUnavailable):
            await house.outbound.send(house.caller, draft(), idempotency=key)
    finally:
        idempotency.abandon = abandon
    with pytest.raises(Conflict) as conflict:
        await house.outbound.send(house.caller, draft(), idempotency=key)
    assert conflict.value.code == "idempotency_in_flight"
    house.clock.ahead = idempotency.ABANDONED + SECOND
    assert (await house.outbound.send(house.caller, draft(), idempotency=key)).replayed


async def _never(tx: Tx, rows: Sequence[idempotency.First]) -> None: ...


async def test_readers_wait_for_the_ledger(house: AheadHouse) -> None:
    name = await house.message()
    with pytest.raises(Unavailable) as early:
        await house.outbound.get(house.caller, name)
    assert (early.value.code, early.value.retry_after) == ("message_being_recorded", 2)
    other = await house.tenant("two")
    reading = asyncio.create_task(house.outbound.get(house.caller, name))
    house.record()
    assert (await reading).id == name
    with pytest.raises(NotFound):
        await house.outbound.get(other, name)
    for old in ("msg_" + "0" * 32, "msg_x", "nothing"):
        with pytest.raises(NotFound):
            await house.outbound.get(house.caller, old)
    with pytest.raises(NotFound):  # fresh, and nothing is on its way
        await house.outbound.get(house.caller, ids.new("msg"))


async def _canceled(house: AheadHouse, name: str) -> MessageView:
    """Between its row and its job it cannot be taken out yet, and the answer says to look again."""
    for _ in range(200):
        try:
            return await house.outbound.cancel(house.caller, name)
        except Conflict as error:
            assert error.code == "message_in_flight"
            await asyncio.sleep(0.01)
    raise AssertionError("it was never canceled")


async def test_a_message_is_canceled_as_soon_as_it_is_accepted(house: AheadHouse) -> None:
    name = await house.message()
    canceling = asyncio.create_task(_canceled(house, name))
    house.record()
    assert {one.status for one in (await canceling).recipients} == {"canceled"}
    house.work()
    await asyncio.sleep(0.2)
    assert house.peers.got == {}


async def test_a_quota_is_never_overdrawn(records: Records, house: AheadHouse) -> None:
    caller = await house.tenant("small", quota=1000)
    processes = [Reserve(records, house.clock) for _ in range(3)]
    granted = 0
    for n in range(1100):
        try:
            await processes[n % 3].charge(caller.tenant.id, 1, 1000)
        except Limited as error:
            assert error.code == "quota_exhausted"
        else:
            granted += 1
    assert 1000 - 3 * 5 <= granted <= 1000
    with pytest.raises(Limited):
        await processes[0].charge(caller.tenant.id, 6, 1000)
    house.clock.ahead = DAY
    await processes[0].charge(caller.tenant.id, 6, 1000)
    assert await records.read(lambda tx: limits.used(tx, caller.tenant.id, now=house.clock())) == 6


async def test_a_spent_quota_refuses_the_request(house: AheadHouse) -> None:
    house.caller = await house.tenant("small", quota=3)
    for _ in range(3):
        await house.message()
    with pytest.raises(Limited):
        await house.message()
    house.record()
    await house.recorded(3)
