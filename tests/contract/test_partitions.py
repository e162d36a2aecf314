"""Weekly parts: made ahead, emptied into, dropped, while others read and write."""

from __future__ import annotations

import asyncio

import pytest

from posthouse.clock import DAY, SECOND, now
from posthouse.errors import StorageUnavailable
from posthouse.outbound import ledger
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.partitions import AHEAD, MESSAGE, TABLES, WEEK, Partitions
from tests.contract.ledger_rows import message, name, names

pytestmark = pytest.mark.parametrize("records_url", ["postgres_url"], indirect=True)


async def part_of(records: Records, id_: str) -> str:
    row = await records.read(lambda tx: tx.row("SELECT tableoid::regclass::text FROM message WHERE id = $1", id_))
    assert row is not None
    return row[0]


async def test_the_coming_weeks_are_there_from_the_start(records: Records) -> None:
    partitions = Partitions(records, now)
    for table in TABLES:
        parts = await partitions.parts(table)
        week = now() // WEEK * WEEK
        assert [part.lower for part in parts] == [week + n * WEEK for n in range(AHEAD + 1)]
        assert [part.upper - part.lower for part in parts] == [WEEK] * (AHEAD + 1)
    assert await partitions.make_ahead() == 0


async def test_as_time_goes_on_parts_are_made(records: Records) -> None:
    ahead = 3 * WEEK
    assert await Partitions(records, lambda: now() + ahead).make_ahead() == 3 * len(TABLES)
    id_ = await message(records, now() + ahead, "queued")
    parts = await Partitions(records, now).parts(MESSAGE)
    assert await part_of(records, id_) == parts[3].name


async def test_what_strayed_is_moved_into_parts_of_its_own(records: Records) -> None:
    old, older = now() - 5 * WEEK, now() - 30 * WEEK
    ids = [await message(records, at, "deferred") for at in (old, older)]
    assert {await part_of(records, id_) for id_ in ids} == {"message_default"}
    assert await Partitions(records, now).make_ahead() == 2 * 3  # of message, submission and event
    assert "message_default" not in {await part_of(records, id_) for id_ in ids}
    assert await names(records, "message", "id") == set(ids)


async def test_ids_without_a_sensible_time_stay_where_they_are(records: Records) -> None:
    for odd in ("msg_ffffffffffff7000", "msg_0000000000017000", "msg_zz", "x"):
        row = (odd, 0, "ten_1", "sub_1", "str_1", 1, "x@b.example", None, "queued", 1, 1, 1, 1, None, None, 1)
        await records.write(lambda tx, row=row: ledger.insert(tx, [], [row]))
    assert await Partitions(records, now).make_ahead() == 0
    assert len(await names(records, "message_default", "id")) == 4


async def test_a_part_that_is_dropped_takes_its_rows(records: Records) -> None:
    partitions = Partitions(records, now)
    at = now() - 10 * WEEK
    gone, stays = await message(records, at, "delivered"), await message(records, now(), "queued")
    await partitions.make_ahead()
    await partitions.drop((await partitions.parts(MESSAGE))[0])
    assert await names(records, "message", "id") == {stays}
    assert gone != stays


async def test_a_busy_table_is_not_waited_for(records: Records, records_url: str) -> None:
    partitions = Partitions(records, now)
    begun, go = asyncio.Event(), asyncio.Event()

    async def read(tx: Tx) -> None:
        await tx.row("SELECT count(*) FROM message")
        begun.set()
        await go.wait()

    reading = asyncio.ensure_future(records.read(read))
    await begun.wait()
    part = (await partitions.parts(MESSAGE))[-1]
    with pytest.raises(StorageUnavailable):
        await asyncio.wait_for(partitions.drop(part), 10)
    go.set()
    await reading
    await partitions.drop(part)


async def test_messages_settle_while_their_part_is_made(records: Records) -> None:
    """No outcome is lost between where a row was and where it is."""
    old = now() - 5 * WEEK
    ids = [await message(records, old, "queued", tail=f"7{n:03x}") for n in range(40)]

    async def settle(id_: str) -> int:
        row = (id_, 0, "delivered", 1, old, None, old)
        return await records.write(lambda tx: ledger.settle(tx, [row]))

    making = asyncio.ensure_future(Partitions(records, now).make_ahead())
    counts = await asyncio.gather(*(settle(id_) for id_ in ids))
    assert await making == 3
    assert counts == [1] * 40
    assert {row[0] for row in await records.read(lambda tx: tx.rows("SELECT state FROM message"))} == {"delivered"}


async def test_a_look_up_by_id_reads_one_part(records: Records) -> None:
    """Of many parts the others are not even opened."""
    id_ = await message(records, now(), "queued")
    statements = {
        "SELECT * FROM message WHERE id = $1": (id_,),
        "SELECT * FROM event WHERE message_id = $1 ORDER BY id LIMIT $2": (id_, 10),
        "SELECT m.id FROM unnest($1::text[]) AS v(id) CROSS JOIN message m WHERE m.id = v.id": ([id_],),
        "UPDATE message SET state = v.s FROM unnest($1::text[], $2::bigint[], $3::text[]) AS v(id, r, s)"
        " WHERE message.id = v.id AND message.rcpt = v.r": ([id_], [0], ["sending"]),
    }

    async def work(tx: Tx) -> list[list[str]]:
        await tx.run("SET LOCAL plan_cache_mode = force_generic_plan")
        return [
            [row[0] for row in await tx.rows(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}", *params)]
            for sql, params in statements.items()
        ]

    for plan in await records.write(work):
        scans = [line for line in plan if " Scan" in line and ("message_" in line or "event_" in line)]
        ran = [line for line in scans if "never executed" not in line]
        assert len(ran) == 1, plan
        assert "Index" in ran[0], plan


async def test_a_tenants_messages_are_read_newest_first_through_an_index(records: Records) -> None:
    for n in range(5):
        await message(records, now() - n * SECOND, "queued", tail=f"7{n:03x}")

    async def work(tx: Tx) -> list[str]:
        await tx.run("SET LOCAL plan_cache_mode = force_generic_plan")
        sql = "SELECT DISTINCT m.id FROM message m WHERE m.tenant_id = $1 AND m.id < $2 ORDER BY m.id DESC LIMIT $3"
        return [row[0] for row in await tx.rows(f"EXPLAIN {sql}", "ten_1", name("msg", now() + DAY), 50)]

    plan = await records.write(work)
    assert not [
        line for line in plan if "-> Sort" in line or "->  Sort" in line or "Seq Scan" in line or "Hash" in line
    ], plan
    assert [line for line in plan if "Append" in line], plan
