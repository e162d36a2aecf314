"""What `storage.records.base` promises, on each engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from posthouse import errors
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.records.factory import open_records

ADD = "INSERT INTO usage (tenant_id, day, messages) VALUES ($1, $2, $3)"
ADD_EACH = """INSERT INTO usage (tenant_id, day, messages)
              SELECT v.tenant, v.day, v.n FROM {v(tenant text, day int, n int)}"""


def add(tenant: str, day: int, messages: int) -> Any:
    async def work(tx: Tx) -> int:
        return await tx.run(ADD, tenant, day, messages)

    return work


def add_each(rows: list[Row]) -> Any:
    async def work(tx: Tx) -> int:
        return await tx.run_each(ADD_EACH, rows)

    return work


async def days(records: Records, tenant: str) -> list[int]:
    async def work(tx: Tx) -> list[Row]:
        return await tx.rows("SELECT day FROM usage WHERE tenant_id = $1 ORDER BY day", tenant)

    return [day for (day,) in await records.read(work)]


async def test_a_write_is_read_back(records: Records) -> None:
    assert await records.write(add("a", 1, 7)) == 1

    async def work(tx: Tx) -> Row | None:
        return await tx.row("SELECT tenant_id, day, messages FROM usage WHERE tenant_id = $1", "a")

    assert await records.read(work) == ("a", 1, 7)
    assert await records.write(work) == ("a", 1, 7)


async def test_no_row_is_none(records: Records) -> None:
    async def work(tx: Tx) -> Row | None:
        return await tx.row("SELECT day FROM usage WHERE tenant_id = $1", "nobody")

    assert await records.read(work) is None


async def test_rows_are_tuples_of_what_was_stored(records: Records) -> None:
    texts = ["", "ünïcödé ✉ 🏤", 'it\'s "quoted"\n\t\\', "x" * 100_000, *(f"t{i}" for i in range(40))]
    rows: list[Row] = [(text, i - 20, -(2**63) + i) for i, text in enumerate(texts)]
    await records.write(add_each(rows))

    async def work(tx: Tx) -> list[Row]:
        return await tx.rows("SELECT tenant_id, day, messages FROM usage ORDER BY day")

    for _ in range(3):  # an engine may read another way once it knows that there are many
        found = await records.read(work)
        assert found == rows
        assert all(type(row) is tuple for row in found)


async def test_null_bytes_and_floats_come_back(records: Records) -> None:
    rows: list[Row] = [(f"k{i:03}", bytes([i, 0, 255]), None if i % 2 else f"r{i}") for i in range(50)]

    async def fill(tx: Tx) -> None:
        await tx.each(
            """INSERT INTO dkim_key (id, domain_id, selector, algorithm, private_key, public_key, active, created_at)
               SELECT v.id, v.id, v.id, 'rsa', v.key, '', 1, 1 FROM {v(id text, key bytes)}""",
            [row[:2] for row in rows],
        )
        await tx.each(
            """INSERT INTO suppression (tenant_id, address, stream_id, reason, source, evidence, created_at)
               SELECT 't', v.id, '', 'manual', 'test', v.evidence, 1 FROM {v(id text, evidence text)}""",
            [(row[0], row[2]) for row in rows],
        )

    async def read(tx: Tx) -> list[Row]:
        return await tx.rows(
            """SELECT k.id, k.private_key, s.evidence FROM dkim_key k
               JOIN suppression s ON s.address = k.id WHERE s.tenant_id = $1 ORDER BY k.id""",
            "t",
        )

    async def halves(tx: Tx) -> list[Row]:
        return await tx.each(
            "SELECT v.n, CAST(v.n AS double precision) / 7 FROM {v(n int)} ORDER BY v.n", [(n,) for n in range(30)]
        )

    await records.write(fill)
    for _ in range(3):
        assert await records.read(read) == rows
        assert await records.read(halves) == [(n, n / 7) for n in range(30)]


async def test_a_list_param_is_any_and_all(records: Records) -> None:
    await records.write(add_each([("a", day, 0) for day in range(10)]))

    async def work(tx: Tx) -> tuple[list[Row], list[Row], list[Row]]:
        return (
            await tx.rows("SELECT day FROM usage WHERE day = ANY($1) AND tenant_id = ANY($2)", [3, 5, 99], ["a", "b"]),
            await tx.rows("SELECT day FROM usage WHERE day <> ALL($1) ORDER BY day", [0, 1, 2, 3, 4, 5, 6]),
            await tx.rows("SELECT day FROM usage WHERE tenant_id = ANY($1)", []),
        )

    assert await records.read(work) == ([(3,), (5,)], [(7,), (8,), (9,)], [])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100, 1023, 1024, 1025, 5000, 12_345])
async def test_each_takes_any_number_of_rows(records: Records, count: int) -> None:
    rows: list[Row] = [("a", day, day * 2) for day in range(count)]
    assert await records.write(add_each(rows)) == count

    async def work(tx: Tx) -> list[Row]:
        return await tx.each(
            """SELECT usage.day, usage.messages + $1 FROM {v(tenant text, day int)}
               JOIN usage ON usage.tenant_id = v.tenant AND usage.day = v.day AND usage.messages >= $2""",
            [row[:2] for row in rows],
            1,
            0,
        )

    assert sorted(await records.read(work)) == [(day, day * 2 + 1) for day in range(count)]


async def test_each_updates_returns_and_deletes(records: Records) -> None:
    await records.write(add_each([("a", day, 0) for day in range(50)]))

    async def work(tx: Tx) -> tuple[list[Row], int]:
        changed = await tx.each(
            """UPDATE usage SET messages = v.n FROM {v(day int, n int)}
               WHERE usage.tenant_id = $1 AND usage.day = v.day RETURNING usage.day, usage.messages""",
            [(day, day + 1) for day in range(40, 60)],
            "a",
        )
        gone = await tx.run_each(
            "DELETE FROM usage WHERE (tenant_id, day) IN (SELECT v.tenant, v.day FROM {v(tenant text, day int)})",
            [("a", day) for day in range(30, 70)],
        )
        return changed, gone

    changed, gone = await records.write(work)
    assert sorted(changed) == [(day, day + 1) for day in range(40, 50)]
    assert gone == 20
    assert await days(records, "a") == list(range(30))


async def test_run_counts_what_it_touched(records: Records) -> None:
    await records.write(add_each([("a", day, 0) for day in range(5)]))

    async def work(tx: Tx) -> tuple[int, int, int]:
        return (
            await tx.run("UPDATE usage SET messages = 1 WHERE day < $1", 3),
            await tx.run("DELETE FROM usage WHERE day = $1", 99),
            await tx.run(ADD + " ON CONFLICT (tenant_id, day) DO NOTHING", "a", 1, 1),
        )

    assert await records.write(work) == (3, 0, 0)


async def test_a_work_that_raises_leaves_nothing(records: Records) -> None:
    async def work(tx: Tx) -> None:
        await tx.run(ADD, "a", 1, 1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await records.write(work)
    assert await days(records, "a") == []
    await records.write(add("a", 1, 1))


async def test_a_duplicate_key_is_a_conflict(records: Records) -> None:
    await records.write(add("a", 1, 1))
    with pytest.raises(errors.Conflict) as raised:
        await records.write(add("a", 1, 1))
    assert "usage" in raised.value.detail


async def test_wrong_sql_is_our_own_mistake(records: Records) -> None:
    async def work(tx: Tx) -> None:
        await tx.run("UPDATE nowhere SET x = 1")

    with pytest.raises(Exception, match="nowhere") as raised:
        await records.write(work)
    assert not isinstance(raised.value, errors.Error)
    await records.write(add("a", 1, 1))


async def test_a_failing_work_does_not_hurt_its_group(records: Records) -> None:
    async def fail(tx: Tx) -> None:
        await tx.run(ADD, "a", 1000, 1)
        raise KeyError

    works = [fail if i % 10 == 3 else add("a", i, 1) for i in range(100)]
    for start in (0, 100):  # together, then again while failures are expected
        answers = await asyncio.gather(
            *(records.write(work if work is fail else add("a", start + i, 1)) for i, work in enumerate(works)),
            return_exceptions=True,
        )
        assert [isinstance(answer, KeyError) for answer in answers] == [i % 10 == 3 for i in range(100)]
        assert all(answer == 1 for i, answer in enumerate(answers) if i % 10 != 3)
    assert await days(records, "a") == [day for day in range(200) if day % 10 != 3]


async def test_a_read_cannot_write(records: Records) -> None:
    with pytest.raises(errors.StorageUnavailable):
        await records.read(add("a", 1, 1))
    assert await days(records, "a") == []


async def test_concurrent_increments_are_all_counted(records: Records) -> None:
    await records.write(add("a", 1, 0))

    async def work(tx: Tx) -> None:
        row = await tx.row("SELECT messages FROM usage WHERE tenant_id = $1 AND day = 1 FOR UPDATE", "a")
        assert row is not None
        await tx.run("UPDATE usage SET messages = $2 WHERE tenant_id = $1 AND day = 1", "a", row[0] + 1)

    await asyncio.gather(*(records.write(work) for _ in range(200)))

    async def total(tx: Tx) -> Row | None:
        return await tx.row("SELECT messages FROM usage WHERE tenant_id = $1", "a")

    assert await records.read(total) == (200,)


async def test_a_deadlock_is_run_again(records: Records) -> None:
    await records.write(add_each([("a", 1, 0), ("b", 1, 0)]))

    def both(first: str, second: str) -> Any:
        async def work(tx: Tx) -> None:
            for tenant in (first, second):
                await tx.run("UPDATE usage SET messages = messages + 1 WHERE tenant_id = $1", tenant)

        return work

    await asyncio.gather(*(records.write(both(*pair)) for _ in range(2) for pair in (("a", "b"), ("b", "a"))))

    async def work(tx: Tx) -> list[Row]:
        return await tx.rows("SELECT messages FROM usage")

    assert await records.read(work) == [(4,), (4,)]


async def test_a_canceled_write_leaves_the_records_usable(records: Records) -> None:
    tasks = [asyncio.ensure_future(records.write(add("a", day, 1))) for day in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert set(days_kept := await days(records, "a")) >= set(range(1, 50, 2))
    assert len(days_kept) <= 50
    await records.ready()


async def test_not_durable_writes_are_seen_as_well(records: Records) -> None:
    for day in range(6):
        await records.write(add("a", day, 1), durable=day % 3 == 0)
    assert await days(records, "a") == list(range(6))


async def test_closed_records_are_unavailable(records_url: str) -> None:
    records = await open_records(records_url)
    await records.ready()
    await records.close()
    await records.close()
    with pytest.raises(errors.StorageUnavailable):
        await records.write(add("a", 1, 1))


async def test_read_only_records_read(records_url: str) -> None:
    writer = await open_records(records_url)
    reader = await open_records(records_url, read_only=True)
    await writer.write(add("a", 1, 1))
    assert await days(reader, "a") == [1]
    with pytest.raises(errors.StorageUnavailable):
        await reader.write(add("a", 2, 1))
    await reader.close()
    await writer.close()
