"""A message whose job is gone gets it again, and no other."""

from __future__ import annotations

from posthouse.clock import SECOND, now
from posthouse.events import log as event_log
from posthouse.outbound.reconcile import OVERDUE, Reconcile
from posthouse.storage.queue.base import Job
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records
from tests.contract.ledger_rows import message

LONG = 2 * OVERDUE


def reconcile(records: Records, woken: list[int] | None = None) -> Reconcile:
    return Reconcile(records, RecordsQueue(records), (woken if woken is not None else []).append, now)


def job(id_: str, due_at: int) -> Job:
    return Job("render", 1, "ten_1", due_at, id_)


async def test_a_lost_job_is_put_again(records: Records) -> None:
    at = now() - LONG
    lost = await message(records, at, "queued")
    woken: list[int] = []
    assert await reconcile(records, woken).round() == 1
    assert woken == [1]
    queue = RecordsQueue(records)
    (taken,) = await queue.claim("render", 1, 10, lease=60)
    assert taken.id == lost
    events = await records.read(lambda tx: event_log.of_message(tx, lost))
    assert [event.type for event in events] == ["accepted", "recovered"]
    assert await reconcile(records).round() == 0, "it is held now"


async def test_one_that_is_old_is_found_in_laps(records: Records) -> None:
    await message(records, now() - 1000 * LONG, "deferred")
    assert await reconcile(records).round() == 1


async def test_what_has_its_job_is_left(records: Records) -> None:
    queue = RecordsQueue(records)
    at = now() - LONG
    waits, held, moved, buried, soon, final, young = [
        await message(records, at, "queued", tail="7001"),
        await message(records, at, "deferred", tail="7002"),
        await message(records, at, "deferred", tail="7003"),
        await message(records, at, "queued", tail="7004"),
        await message(records, at, "scheduled", tail="7005", due_at=now() + LONG),
        await message(records, at, "delivered", tail="7006"),
        await message(records, now() - SECOND, "queued", tail="7007"),
    ]
    await queue.put([job(held, at), job(buried, at)])
    taken = {one.id: one for one in await queue.claim("render", 1, 10, lease=3600)}
    await queue.bury([(taken[buried], "broken")])
    await queue.put([job(waits, at), job(moved, now() + 5 * SECOND)])
    round_ = reconcile(records)
    assert [await round_.round() for _ in range(3)] == [0, 0, 0]
    assert soon and final and young


async def test_a_ledger_longer_than_a_round_is_walked_to_its_end(records: Records, monkeypatch: object) -> None:
    import posthouse.outbound.reconcile as module

    monkeypatch.setattr(module, "_ROWS", 7)  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "_STEPS", 2)  # type: ignore[attr-defined]
    at = now() - 1000 * LONG
    for n in range(60):
        await message(records, at + n * SECOND, "delivered" if n != 55 else "queued", tail=f"7{n:03x}")
    round_ = reconcile(records)
    counts = [await round_.round() for _ in range(10)]
    assert sum(counts) == 1
    assert counts[0] == 0
