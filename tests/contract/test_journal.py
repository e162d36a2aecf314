"""What arrived and what was refused, on both engines: whose it is, page by page, at a bounded cost."""

from __future__ import annotations

from typing import Any

import pytest

from posthouse import ids
from posthouse.clock import SECOND
from posthouse.errors import NotFound
from posthouse.inbound import journal as journals
from posthouse.inbound.journal import Journal, Refused, Wanted
from posthouse.storage.records.base import Records, Tx

EVIDENCE = (
    '{"peer":"192.0.2.7","helo":"h","host":null,"auth":{"spf":{"result":"pass","domain":"example.org"},'
    '"helo":{"result":"none","domain":""},"dkim":[],"dmarc":{"result":"none","domain":"example.org"},'
    '"arc":{"result":"none"}}}'
)


def _id(prefix: str, at: int) -> str:
    """An identifier of that moment (µs)."""
    return f"{prefix}_{at // 1000:012x}{ids.new(prefix)[len(prefix) + 13 :]}"


@pytest.fixture
def journal(records: Records, clock: Any) -> Journal:
    return Journal(records, clock)


async def arrive(records: Records, at: int, *rcpts: tuple[str, str, int, str], evidence: str = EVIDENCE) -> str:
    """Of (tenant, address, account, state)."""
    id_ = _id("inb", at)

    async def work(tx: Tx) -> None:
        await tx.run(
            "INSERT INTO inbound (id, received_at, content, size, fingerprint, reverse_path, evidence, trace)"
            " VALUES ($1, $2, 'x', 5, $1, 'b@example.org', $3, $4)",
            id_,
            at,
            evidence,
            b"",
        )
        for n, (tenant, address, account, state) in enumerate(rcpts):
            await tx.run(
                "INSERT INTO inbound_rcpt (inbound_id, n, tenant_id, address, account, state)"
                " VALUES ($1, $2, $3, $4, $5, $6)",
                id_,
                n,
                tenant,
                address,
                account,
                state,
            )

    await records.write(work)
    return id_


async def refuse(records: Records, at: int, tenant: str, recipient: str) -> str:
    id_ = _id("rfs", at)
    await records.write(
        lambda tx: tx.run(
            "INSERT INTO refusal (id, at, tenant_id, peer, helo, reverse_path, recipient, stage, reply, reason)"
            " VALUES ($1, $2, $3, '192.0.2.9', 'h', '', $4, 'rcpt', '550 no', 'unknown')",
            id_,
            at,
            tenant,
            recipient,
        )
    )
    return id_


async def every(journal: Journal, tenant: str, wanted: Wanted, limit: int = 2) -> tuple[list[str], int]:
    """Ids, newest first, and in how many pages."""
    found: list[str] = []
    before, pages = None, 0
    while pages == 0 or before is not None:
        entries, before = await journal.arrivals(tenant, wanted, before=before, limit=limit)
        found += [entry.id for entry in entries]
        pages += 1
        assert pages < 100
    return found, pages


async def test_each_tenant_sees_its_own_recipients(journal: Journal, records: Records, clock: Any) -> None:
    both = await arrive(records, clock(), ("t1", "Ann@x.test", 1, "stored"), ("t2", "bob@y.test", 2, "accepted"))
    (mine,), _ = await journal.arrivals("t1", Wanted())
    assert [one.address for one in mine.recipients] == ["Ann@x.test"]
    assert [one.address for one in (await journal.arrival("t2", both)).recipients] == ["bob@y.test"]
    assert (await journal.arrivals("t3", Wanted()))[0] == []
    with pytest.raises(NotFound):
        await journal.arrival("t3", both)
    assert await journal.evidence("t3", both) is None
    known = await journal.evidence("t1", both)
    assert known is not None
    assert known.peer == "192.0.2.7"
    told = await journal.explain("t2", both)
    assert told.status == "accepted"
    assert "x.test" not in str(told)


async def test_filters_and_pages(journal: Journal, records: Records, clock: Any) -> None:
    made: list[str] = []
    for n in range(9):
        clock.advance(1)
        made.append(
            await arrive(records, clock(), ("t1", f"Rcpt{n % 3}@x.test", n % 3, "stored" if n % 2 else "accepted"))
        )
    newest = made[::-1]
    assert await every(journal, "t1", Wanted()) == (newest, 5)
    assert (await every(journal, "t1", Wanted(address="rcpt1@X.test")))[0] == newest[1::3]
    assert (await every(journal, "t1", Wanted(account=0)))[0] == newest[2::3]
    assert (await every(journal, "t1", Wanted(state="stored", account=1)))[0] == [made[7], made[1]]
    start = clock() - 8 * SECOND
    middle = Wanted(since=start + 2 * SECOND, until=start + 5 * SECOND)
    assert (await every(journal, "t1", middle))[0] == made[2:5][::-1]


async def test_a_page_looks_at_so_many_rows(
    journal: Journal, records: Records, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "LOOKED_AT", 4)
    first = await arrive(records, clock(), ("t1", "ann@x.test", 1, "stored"))
    for _ in range(20):
        clock.advance(1)
        await arrive(records, clock(), ("t1", "bob@x.test", 2, "stored"))
    found, pages = await every(journal, "t1", Wanted(address="ann@x.test"))
    assert found == [first]
    assert pages == 5
    for _ in range(10):
        clock.advance(1)
        await refuse(records, clock(), "t1", "bob@x.test")
    wanted = Refused(recipient="nobody@x.test")
    page, after = await journal.refusals("t1", wanted)
    assert page == []
    assert after is not None
    page, after = await journal.refusals("t1", wanted, before=after)
    assert (page, after is None) == ([], False)


async def test_refusals_of_a_tenant_and_of_nobody(journal: Journal, records: Records, clock: Any) -> None:
    mine = await refuse(records, clock(), "t1", "No@x.test")
    nobodys = await refuse(records, clock.advance(1), "", "a@elsewhere.test")
    assert [one.id for one in (await journal.refusals("t1", Refused()))[0]] == [mine]
    assert [one.id for one in (await journal.refusals("t1", Refused(recipient="no@X.test", peer="192.0.2.9")))[0]] == [
        mine
    ]
    assert [one.id for one in (await journal.refusals("t1", Refused(foreign=True)))[0]] == [nobodys]
    assert (await journal.refusals("t2", Refused()))[0] == []
    assert (await journal.refusal(["t1"], mine)).reply == "550 no"
    for owners in (["t2"], ["t2", ""]):
        with pytest.raises(NotFound):
            await journal.refusal(owners, mine)
    assert (await journal.refusal(["t2", ""], nobodys)).id == nobodys


async def test_rows_that_cannot_be_read_are_told_as_they_are(journal: Journal, records: Records, clock: Any) -> None:
    odd = await arrive(records, clock(), ("t1", "ann@x.test", 1, "stored"), evidence='{"peer":5}')
    assert await journal.evidence("t1", odd) is None
    assert "cannot be read" in str(await journal.explain("t1", odd))
