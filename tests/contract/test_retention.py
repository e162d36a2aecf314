"""What is old is forgotten, and nothing that is needed yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse.clock import DAY, HOUR, SECOND, now
from posthouse.errors import StorageUnavailable
from posthouse.outbound.retention import Retention
from posthouse.storage.blob_uses import FRESH, NotedBlobs, collect
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.records.base import Records
from posthouse.storage.records.partitions import WEEK, Partitions
from tests.contract.ledger_rows import message, names
from tests.contract.outbound_house import Time

KEPT = 90 * DAY
LATE = 3 * WEEK
"""What lies in weekly parts goes so much later at the latest."""


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[Blobs]:
    opened = await open_blobs(f"file://{tmp_path / 'blobs'}")
    yield opened
    await opened.close()


def retention(records: Records, blobs: Blobs, ahead: int = 0, events: int = KEPT) -> Retention:
    return Retention(records, blobs, lambda: now() + ahead, messages=KEPT, events=events)


async def test_messages_that_are_old_and_final_go(records: Records, blobs: Blobs) -> None:
    old = [await message(records, now() - KEPT - LATE - n * DAY, "delivered", tail=f"7{n:03x}") for n in range(20)]
    young = await message(records, now() - KEPT + DAY, "bounced")
    await retention(records, blobs).forget()
    assert await names(records, "message", "id") == {young}
    assert await names(records, "event", "message_id") == {young}
    assert await names(records, "submission", "id") == {"sub" + young[3:]}
    assert old


async def test_parts_go_whole(records: Records, blobs: Blobs) -> None:
    await message(records, now(), "delivered")
    ahead = KEPT + LATE
    if records.capabilities.engine == "postgresql":
        await Partitions(records, lambda: now() + ahead).make_ahead()
    await retention(records, blobs, ahead).forget()
    for table, key in (("message", "id"), ("event", "message_id"), ("submission", "id")):
        assert await names(records, table, key) == set()


async def test_one_that_is_not_final_is_kept_with_all_that_it_needs(records: Records, blobs: Blobs) -> None:
    waits = await message(records, now() - SECOND, "deferred")
    final = await message(records, now(), "delivered")
    ahead = KEPT + LATE
    keeper = retention(records, blobs, ahead)
    for _ in range(2):
        await keeper.forget()
    assert waits in await names(records, "message", "id")
    assert waits in await names(records, "event", "message_id")
    assert "sub" + waits[3:] in await names(records, "submission", "id")
    await records.write(lambda tx: tx.run("UPDATE message SET state = 'failed' WHERE id = $1", waits))
    await keeper.forget()
    assert await names(records, "message", "id") == set()
    assert await names(records, "submission", "id") <= {"sub" + waits[3:], "sub" + final[3:]}


async def test_events_may_go_before_their_messages(records: Records, blobs: Blobs) -> None:
    id_ = await message(records, now() - 30 * DAY, "delivered")
    waits = await message(records, now() - 31 * DAY, "queued")
    await retention(records, blobs, events=2 * DAY).forget()
    assert await names(records, "message", "id") == {id_, waits}
    assert await names(records, "event", "message_id") == {waits}


async def test_attachments_go_after_the_last_message_that_can_name_them(records: Records, blobs: Blobs) -> None:
    time = Time()
    noted = NotedBlobs(records, blobs, time)
    key = await noted.put(b"an attachment")
    await message(records, now(), "delivered")
    waits = await message(records, now() + SECOND, "queued")

    async def round_at(ahead: int) -> bool:
        await retention(records, blobs, ahead).forget()
        return await blobs.exists(key)

    assert await round_at(KEPT - DAY)
    assert await round_at(KEPT + LATE + 10 * DAY), "a message of that day is still under way"
    await records.write(lambda tx: tx.run("UPDATE message SET state = 'failed' WHERE id = $1", waits))
    for _ in range(2):
        there = await round_at(KEPT + LATE + 10 * DAY)
    assert not there
    assert await names(records, "blob_use", "key") == set()
    assert await noted.put(b"an attachment") == key
    assert await blobs.exists(key) or time.ahead == 0


async def test_one_that_is_used_again_stays(records: Records, blobs: Blobs) -> None:
    time = Time()
    noted = NotedBlobs(records, blobs, time)
    key = await noted.put(b"a logo")
    time.ahead = 80 * DAY
    await noted.put(b"a logo")
    await retention(records, blobs, KEPT + 5 * DAY).forget()
    assert await blobs.exists(key)
    assert await names(records, "blob_use", "key") == {key}


async def test_uses_are_noted_twice_a_day_at_most(records: Records, blobs: Blobs) -> None:
    time = Time()
    noted = NotedBlobs(records, blobs, time)

    async def noted_at(ahead: int) -> int:
        time.ahead = ahead
        await noted.put(b"a logo")
        rows = await records.read(lambda tx: tx.rows("SELECT last_at FROM blob_use"))
        return (rows[0][0] - now()) // HOUR

    assert await noted_at(0) == -1
    assert await noted_at(FRESH - HOUR) == -1
    assert await noted_at(FRESH + HOUR) == FRESH // HOUR


async def test_bytes_that_are_being_removed_are_refused(records: Records, blobs: Blobs) -> None:
    key = await NotedBlobs(records, blobs, now).put(b"old")
    refused: list[bool] = []

    class Slow:
        async def delete(self, key: str) -> None:
            with pytest.raises(StorageUnavailable):
                await NotedBlobs(records, blobs, now).put(b"old")
            refused.append(True)
            await blobs.delete(key)

    assert await collect(records, Slow(), now() + DAY, now=now()) == 1  # type: ignore[arg-type]
    assert refused
    assert not await blobs.exists(key)
    assert await NotedBlobs(records, blobs, now).put(b"old") == key
    assert await blobs.exists(key)


async def test_a_removal_that_was_cut_off_is_ended_by_the_next(records: Records, blobs: Blobs) -> None:
    key = await NotedBlobs(records, blobs, now).put(b"old")
    assert await collect(records, blobs, now() + DAY, now=now(), still=lambda: False) == 0
    assert await blobs.exists(key)
    assert await collect(records, blobs, now() + DAY, now=now()) == 1
    assert not await blobs.exists(key)
