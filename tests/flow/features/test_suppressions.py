"""Suppressions on real records, both engines."""

from __future__ import annotations

import pytest
from tests.conftest import ManualClock

from posthouse.clock import DAY
from posthouse.errors import Conflict, Invalid, NotFound, StorageUnavailable, TooLarge
from posthouse.storage.records.base import Records, Tx
from posthouse.suppression.model import ALL_STREAMS, Entry, Reason
from posthouse.suppression.service import Suppressions


@pytest.fixture
def suppressions(records: Records, clock: ManualClock) -> Suppressions:
    return Suppressions(records, clock)


async def test_a_batch_is_looked_up_exactly(suppressions: Suppressions) -> None:
    await suppressions.add(
        "t1",
        [
            Entry("Ann@Example.com", "bounce", evidence="550 5.1.1 unknown"),
            Entry("bob@example.com", "unsubscribe", stream_id="news"),
            Entry("ann@example.com", "unsubscribe", stream_id="news"),
        ],
    )
    pairs = [
        ("ann@EXAMPLE.com", "news"),
        ("ann@example.com", "other"),
        ("bob@example.com", "news"),
        ("bob@example.com", "other"),
        ("cleo@example.com", "news"),
    ]
    found = await suppressions.find("t1", pairs)
    assert {pair: (one.reason, one.stream_id) for pair, one in found.items()} == {
        ("ann@EXAMPLE.com", "news"): ("unsubscribe", "news"),
        ("ann@example.com", "other"): ("bounce", ALL_STREAMS),
        ("bob@example.com", "news"): ("unsubscribe", "news"),
    }
    assert found["ann@example.com", "other"].evidence == "550 5.1.1 unknown"
    assert await suppressions.find("t2", pairs) == {}
    assert await suppressions.find("t1", []) == {}


async def test_a_batch_of_many_tenants_and_strange_addresses(suppressions: Suppressions) -> None:
    await suppressions.add("t1", [Entry("ann@bücher.example")])
    keys = [("t1", f"n{n}@example.com", "s") for n in range(3000)]
    keys += [
        ("t1", "ann@xn--bcher-kva.example", "s"),
        ("t2", "ann@xn--bcher-kva.example", "s"),
        ("t1", "no address", "s"),
    ]
    assert list(await suppressions.find_many(keys)) == [("t1", "ann@xn--bcher-kva.example", "s")]


async def test_an_expired_one_holds_no_longer(suppressions: Suppressions, clock: ManualClock) -> None:
    await suppressions.add("t1", [Entry("ann@example.com", expires_at=clock() + DAY)])
    pair = ("ann@example.com", "s")
    assert pair in await suppressions.find("t1", [pair])
    clock.advance(86_400)
    assert await suppressions.find("t1", [pair]) == {}
    assert (await suppressions.get("t1", "ann@example.com")).reason == "manual"
    assert await suppressions.sweep() == 1
    with pytest.raises(NotFound):
        await suppressions.get("t1", "ann@example.com")


async def test_a_complaint_stays(suppressions: Suppressions, clock: ManualClock) -> None:
    stored = await suppressions.add(
        "t1",
        [Entry("ann@example.com", "complaint"), Entry("ANN@example.com", "manual"), Entry("bob@example.com", "bounce")],
    )
    assert [one.reason for one in stored] == ["complaint", "complaint", "bounce"]
    clock.advance(1)
    assert (await suppressions.add("t1", [Entry("ann@example.com", "manual")]))[0].reason == "complaint"
    assert (await suppressions.add("t1", [Entry("bob@example.com", "complaint")]))[0].reason == "complaint"
    with pytest.raises(Conflict) as refused:
        await suppressions.remove("t1", "ann@example.com")
    assert refused.value.code == "complaint_stays"
    assert (await suppressions.remove("t1", "ann@example.com", complaints_too=True)).reason == "complaint"
    with pytest.raises(NotFound):
        await suppressions.remove("t1", "ann@example.com")


async def test_lists_go_by_cursor_and_filter(suppressions: Suppressions) -> None:
    await suppressions.add(
        "t1", [Entry(f"n{n:03}@example.com", "bounce", stream_id="s" if n % 2 else "") for n in range(50)]
    )
    await suppressions.add("t1", [Entry("n000@example.com", "unsubscribe", stream_id="s")])
    await suppressions.add("t2", [Entry("other@example.com")])
    seen: list[tuple[str, str]] = []
    cursor: str | None = None
    for _ in range(9):
        page, cursor = await suppressions.list("t1", cursor=cursor, limit=7)
        seen += [(one.address, one.stream_id) for one in page]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 51
    assert seen == sorted(seen)
    assert len((await suppressions.list("t1", stream_id="s"))[0]) == 26
    assert len((await suppressions.list("t1", stream_id=""))[0]) == 25
    assert len((await suppressions.list("t1", reason="unsubscribe"))[0]) == 1
    assert len((await suppressions.list("t1", address="N000@example.com"))[0]) == 2


async def test_what_is_wrong_is_said_for_each(suppressions: Suppressions, clock: ManualClock) -> None:
    entries = [
        Entry("ann@example.com"),
        Entry("no address"),
        Entry("a@example.com", "whim"),
        Entry("a@example.com", expires_at=clock()),
        Entry("a@example.com", evidence="a\0b"),
        Entry("a" * 300 + "@example.com"),
    ]
    with pytest.raises(Invalid) as refused:
        await suppressions.add("t1", entries)
    assert [fault.pointer for fault in refused.value.faults] == [
        "/1/address", "/2/reason", "/3/expires_at", "/4", "/5/address",
    ]  # fmt: skip
    assert (await suppressions.list("t1"))[0] == []
    with pytest.raises(TooLarge):
        await suppressions.add("t1", [Entry("a@example.com")] * 10_001)
    with pytest.raises(Invalid):
        await suppressions.list("t1", reason="whim")


async def test_it_joins_the_senders_transaction(suppressions: Suppressions, records: Records) -> None:
    rows = suppressions.rows_for("t1", [Entry("ann@example.com", Reason.BOUNCE, source="smtp")])

    async def fails(tx: Tx) -> None:
        await suppressions.add_in(tx, rows)
        raise Conflict

    with pytest.raises(Conflict):
        await records.write(fails)
    assert await suppressions.find("t1", [("ann@example.com", "s")]) == {}

    async def works(tx: Tx) -> None:
        await suppressions.add_in(tx, rows)
        await suppressions.add_in(tx, [])

    await records.write(works)
    assert ("ann@example.com", "s") in await suppressions.find("t1", [("ann@example.com", "s")])


async def test_it_fails_closed(suppressions: Suppressions, records: Records) -> None:
    await records.close()
    with pytest.raises(StorageUnavailable):
        await suppressions.find("t1", [("ann@example.com", "s")])
