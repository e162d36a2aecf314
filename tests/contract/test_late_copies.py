"""A second record of a job that has ended or waits, as a crash of the pump leaves it on Kafka:
the stages of the sending flow find nothing to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse.egress.destinations import Destinations
from posthouse.events.handover import RELAY
from posthouse.outbound.submit import RENDER
from posthouse.smtp.reply import Reply
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.kafka.queue import KafkaQueue
from posthouse.storage.records.base import Records
from tests.contract.outbound_house import House
from tests.contract.test_relay import give
from tests.kafka_queues import fresh_options


class KafkaHouse(House):
    def __init__(self, records: Records, directory: Path, server: str, blobs: Blobs) -> None:
        super().__init__(records, directory)
        self.kafka = KafkaQueue(records, blobs, fresh_options(server), clock=self.clock, patience=0.1)

    def _wire(self, destinations: Destinations) -> None:
        self.queue = self.kafka  # type: ignore[assignment]
        super()._wire(destinations)

    async def idle(self) -> None:
        """Nothing is due and nothing is held."""
        async with asyncio.timeout(20):
            while any(depth.ready for depth in await self.queue.depths()):
                await asyncio.sleep(0.05)


@pytest.fixture
async def house(
    postgres_records: Records, tmp_path: Path, kafka_server: str, postgres_url: str, local_blobs: Blobs
) -> AsyncIterator[KafkaHouse]:
    made = KafkaHouse(postgres_records, tmp_path, kafka_server, local_blobs)
    await made.open()
    yield made
    await made.close()
    await made.kafka.close()


async def copy(house: KafkaHouse, stage: str, name: str) -> None:
    tenant = house.caller.tenant.id
    await house.kafka.produce([Job(stage, Lane.TRANSACTIONAL, tenant, house.clock(), name)])
    await asyncio.sleep(0.2)
    await house.idle()


@pytest.mark.timeout(60)
async def test_of_a_message_that_has_ended(house: KafkaHouse) -> None:
    name = await house.message()
    house.work()
    await house.settled(name, "delivered")
    events = await house.count("event")
    await copy(house, RENDER, name)
    assert house.peers.got == {"bob@b.example": 1}
    assert await house.count("event") == events


@pytest.mark.timeout(60)
async def test_of_a_message_that_waits_for_its_next_attempt(house: KafkaHouse) -> None:
    house.peers.answers["bob@b.example"] = Reply(451, "4.7.1", ("later",))
    name = await house.message()
    house.work()
    await house.settled(name, "deferred")
    await house.idle()
    before = len(await house.outbound.events(house.caller, name))
    await copy(house, RENDER, name)
    await copy(house, RENDER, name)
    assert len(await house.outbound.events(house.caller, name)) == before, "no attempt before its time"
    assert await house.count("job") == 1, "one job waits, whatever the copies"


@pytest.mark.timeout(60)
async def test_of_mail_that_was_relayed(house: KafkaHouse) -> None:
    house.peers.gate.clear()
    house.work()
    one = await give(house)
    async with asyncio.timeout(20):
        while not await house.count("message"):
            await asyncio.sleep(0.05)
    tenant = house.caller.tenant.id
    await house.kafka.produce([Job(RELAY, Lane.TRANSACTIONAL, tenant, house.clock(), one.id)])
    await asyncio.sleep(0.5)
    house.peers.gate.set()
    await house.settled(one.id, "delivered")
    await copy(house, RELAY, one.id)
    await copy(house, RENDER, one.id)
    assert house.peers.got == {"x@b.example": 1}
    kinds = [event.type for event in await house.outbound.events(house.caller, one.id)]
    assert kinds.count("accepted") == kinds.count("delivered") == 1
    assert await house.count("relayed") == 0


@pytest.mark.timeout(60)
async def test_of_a_message_that_was_canceled_while_it_lay_in_a_topic(house: KafkaHouse) -> None:
    name = await house.message()
    async with asyncio.timeout(20):
        while await house.count("job"):
            await asyncio.sleep(0.02)  # until the pump has moved it
    view = await house.outbound.cancel(house.caller, name)
    assert {one.status for one in view.recipients} == {"canceled"}
    house.work()
    await asyncio.sleep(1)
    await house.idle()
    assert house.peers.got == {}
    assert await house.count("queue_withdrawn") == 0
