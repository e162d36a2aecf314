"""The stages on real records, both engines, with peers made of a dict: who is sent what, once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from posthouse.clock import DAY, SECOND
from posthouse.egress.model import NoDestination
from posthouse.errors import StorageUnavailable
from posthouse.smtp.reply import Reply
from posthouse.storage.queue.base import Job
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records
from posthouse.suppression.model import Entry, Reason
from tests.contract.outbound_house import House


@pytest.fixture
async def house(records: Records, tmp_path: Path) -> AsyncIterator[House]:
    made = await House(records, tmp_path).open()
    yield made
    await made.close()


# The whole way.


async def test_each_recipient_has_an_outcome_of_its_own(house: House) -> None:
    """Two sites; one refused for good, one for now, one suppressed, two delivered."""
    entry = Entry("listed@b.example", Reason.MANUAL, source="test")

    async def suppress(tx: Tx) -> None:
        await house.suppressions.add_in(tx, house.suppressions.rows_for(house.caller.tenant.id, [entry]))

    await house.records.write(suppress)
    house.peers.answers |= {
        "no@b.example": Reply(550, "5.1.1", ("no such user",)),
        "later@c.example": Reply(450, "4.2.2", ("full",)),
    }
    house.work()
    to = ["yes@b.example", "no@b.example", "listed@b.example", "yes@c.example", "later@c.example"]
    message = await house.message(to=to)
    await house.settled(message, "bounced", "deferred", "delivered", "delivered", "suppressed")
    assert await house.states(message) == {
        "yes@b.example": "delivered",
        "no@b.example": "bounced",
        "listed@b.example": "suppressed",
        "yes@c.example": "delivered",
        "later@c.example": "deferred",
    }
    async with asyncio.timeout(30):
        while house.worker.held:
            await asyncio.sleep(0.01)
    assert (await house.queue.depths())[0].delayed == 1
    del house.peers.answers["later@c.example"]
    house.clock.ahead += 600 * SECOND
    await house.settled(message, "bounced", "delivered", "delivered", "delivered", "suppressed")
    assert house.peers.got == {"yes@b.example": 1, "yes@c.example": 1, "later@c.example": 1}
    assert await house.count("job") == 0
    story = await house.outbound.explain(house.caller, message)
    assert "3 delivered" in story.summary


async def test_what_grew_too_old_ends(house: House) -> None:
    message = await house.message()
    house.clock.ahead += 4 * DAY
    house.work()
    await house.settled(message, "failed")
    assert await house.count("job") == 0
    assert house.peers.got == {}


async def test_a_stop_hands_back_what_waits_and_nothing_is_sent_twice(house: House) -> None:
    house.peers.gate.clear()
    house.work()
    messages = [await house.message(to=[f"u{n}@b.example"]) for n in range(30)]
    async with asyncio.timeout(20):
        while not any(site.connections for site in house.sites.all()):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    stopping = asyncio.ensure_future(house.rest())
    await asyncio.sleep(0.1)
    house.peers.gate.set()
    async with asyncio.timeout(20):
        await stopping
    assert house.worker.held == 0
    open_jobs = [job.id for job in await house.queue.claim("render", 1, 100, lease=60)]
    done = [one for one in messages if (await house.states(one)).popitem()[1] == "delivered"]
    assert sorted([*open_jobs, *done]) == sorted(messages)
    assert set(house.peers.got.values()) <= {1}
    assert sum(house.peers.got.values()) == len(done)


async def test_a_canceled_job_that_is_still_in_the_queue_ends_by_itself(house: House) -> None:
    await house.queue.put([Job("render", 1, house.caller.tenant.id, house.clock(), "msg_gone")])
    house.work()
    async with asyncio.timeout(10):
        while await house.count("job"):
            await asyncio.sleep(0.02)


async def test_large_messages_go_a_few_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds so many octets of them; the others wait in the queue, and all arrive."""
    monkeypatch.setattr("posthouse.outbound.mail_in_hand.LARGE", 1000)
    monkeypatch.setattr("posthouse.outbound.mail_in_hand.LARGE_IN_HAND", 25_000)
    house.peers.gate.clear()
    messages = [await house.message(text="x" * 10_000) for _ in range(6)]
    house.work()
    async with asyncio.timeout(20):
        while house.worker.held != 2:
            await asyncio.sleep(0.01)
    assert (await house.queue.depths())[0].delayed == 4
    house.peers.gate.set()
    house.clock.ahead += 10 * SECOND
    async with asyncio.timeout(20):
        for one in messages:
            while (await house.states(one))["bob@b.example"] != "delivered":
                house.clock.ahead += SECOND
                await asyncio.sleep(0.02)
    assert sum(house.peers.got.values()) == 6


async def test_two_servers_on_one_postgresql_send_each_message_once(postgres_url: str, tmp_path: Path) -> None:
    """Neither knows of the other; one stops in the middle, the other goes on."""
    opened = [await open_records(postgres_url) for _ in range(2)]
    one = await House(opened[0], tmp_path).open()
    two = await House(opened[1], tmp_path).open(tenant="two")
    two.peers = one.peers
    two.sites._open = one.peers.open
    try:
        messages = [await one.message(to=[f"u{n}@b.example", f"u{n}@c.example"]) for n in range(60)]
        one.work()
        two.work()
        await asyncio.sleep(0.3)
        await two.rest()
        more = [await two.message(to=[f"v{n}@b.example"]) for n in range(20)]
        for name in messages:
            await one.settled(name, "delivered", "delivered")
        async with asyncio.timeout(20):
            while await one.count("job"):
                await asyncio.sleep(0.05)
        assert len(one.peers.got) == 2 * len(messages) + len(more)
        assert set(one.peers.got.values()) == {1}
    finally:
        await one.close()
        await two.close()
        for records in opened:
            await records.close()


# Before an attempt.


async def test_suppression_that_cannot_be_checked_sends_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    find = house.suppressions.find_many
    asked = asyncio.Event()

    async def away(keys: Any) -> Any:
        asked.set()
        raise StorageUnavailable(detail="away")

    monkeypatch.setattr(house.suppressions, "find_many", away)
    house.work()
    message = await house.message()
    async with asyncio.timeout(10):
        await asked.wait()
        while house.worker.held:
            await asyncio.sleep(0.01)
    assert house.peers.got == {}
    assert await house.states(message) == {"bob@b.example": "queued"}
    monkeypatch.setattr(house.suppressions, "find_many", find)
    house.clock.ahead += 6 * SECOND
    await house.settled(message, "delivered")


async def test_a_domain_whose_dns_is_slow_waits_by_itself(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.outbound.prepare._LOCATE_SECONDS", 0.05)
    known = house.destinations.known
    answer = asyncio.Event()

    async def locate(domain: str) -> Any:
        await answer.wait()
        return known(domain)

    monkeypatch.setattr(house.destinations, "known", lambda domain: known(domain) if domain != "slow.example" else None)
    monkeypatch.setattr(house.destinations, "locate", locate)
    slow = await house.message(to=["a@slow.example"])
    fast = await house.message(to=["b@fast.example"])
    both = await house.message(to=["c@slow.example", "d@fast.example"])
    house.work()
    await house.settled(fast, "delivered")
    await house.settled(both, "queued", "delivered")
    answer.set()
    house.clock.ahead += 6 * SECOND
    await house.settled(slow, "delivered")
    await house.settled(both, "delivered", "delivered")
    view = await house.outbound.get(house.caller, slow)
    assert view.recipients[0].attempts == 1, "waiting for DNS was no attempt"


async def test_a_domain_without_a_destination_ends_or_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "null.example": NoDestination("null_mx", True, 556, "5.1.10", "takes no mail"),
        "down.example": NoDestination("dns_unavailable", False, 451, "4.4.3", "DNS does not answer"),
    }
    monkeypatch.setattr(house.destinations, "known", found.get)
    house.work()
    message = await house.message(to=["a@null.example", "b@down.example"])
    await house.settled(message, "bounced", "deferred")
    view = await house.outbound.get(house.caller, message)
    assert view.recipients[0].reply == {"code": 556, "enhanced": "5.1.10", "text": "takes no mail"}
    assert view.recipients[1].next_attempt_at is not None
    texts = [one.text for one in (await house.outbound.explain(house.caller, message)).story]
    assert any("null MX" in text for text in texts)
    assert any("dns_unavailable" in text for text in texts)


async def test_a_render_process_that_dies_costs_no_message(house: House) -> None:
    house.work()
    await house.settled(await house.message(), "delivered")
    messages = [await house.message(to=[f"u{n}@b.example"]) for n in range(60)]
    os.kill(house.pool.pids[0], signal.SIGKILL)
    for one in messages:
        await house.settled(one, "delivered")
    assert set(house.peers.got.values()) == {1}


async def test_a_message_whose_request_is_damaged_does_not_hold_up_the_others(house: House) -> None:
    bad = await house.message()
    messages = [await house.message() for _ in range(5)]

    async def damage(tx: Tx) -> None:
        await tx.run(
            "UPDATE submission SET spec = 'no JSON' WHERE id = (SELECT submission_id FROM message WHERE id = $1)", bad
        )

    await house.records.write(damage)
    house.work()
    for one in messages:
        await house.settled(one, "delivered")
    async with asyncio.timeout(10):
        while house.worker.held:
            await asyncio.sleep(0.01)
    assert await house.count("job") == 1
