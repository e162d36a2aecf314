"""What receiving forgets, and what it keeps, on both engines."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from posthouse.clock import DAY, SECOND
from posthouse.inbound.greylist import Greylist
from posthouse.inbound.housekeeping import Housekeeping
from posthouse.inbound.refusals import Refusal, Refusals
from posthouse.smtp.reply import Reply
from posthouse.storage.contents import GRACE
from posthouse.storage.records.base import Tx
from tests.mailboxes import House, letter

_INBOUND = """
INSERT INTO inbound (id, received_at, content, size, fingerprint, reverse_path, evidence, trace)
VALUES ($1, $2, 'x', 1, $1, '', '{}', $3)"""
_RCPT = """
INSERT INTO inbound_rcpt (inbound_id, n, tenant_id, address, account, state)
VALUES ($1, 0, 'ten_1', 'ann@example.com', 1, $2)"""


def keeping(house: House, **options: int) -> tuple[Housekeeping, Refusals]:
    refusals = Refusals(house.records, house.clock, pause=0.0)
    greylist = Greylist(house.records, house.clock, delay=300)
    made = Housekeeping(house.records, house.contents, refusals, greylist, house.clock, kept=30 * DAY, **options)
    return made, refusals


async def count(house: House, table: str) -> int:
    row = await house.records.read(lambda tx: tx.row(f"SELECT count(*) FROM {table}"))
    assert row is not None
    return row[0]


async def log_line(house: House, name: str, state: str) -> None:
    async def work(tx: Tx) -> None:
        await tx.run(_INBOUND, name, house.clock(), b"")
        await tx.run(_RCPT, name, state)

    await house.records.write(work)


async def test_the_log_is_kept_for_its_days_and_what_waits_for_ever(house: House) -> None:
    housekeeping, refusals = keeping(house)
    stamp = house.clock() // 1000
    await log_line(house, f"inb_{stamp:012x}7aaa", "stored")
    await log_line(house, f"inb_{stamp:012x}7bbb", "accepted")
    refusals.note(
        Refusal("ten_1", "192.0.2.1", "x.example", "", "ann@example.com", "rcpt", "unknown", None),
        Reply(550, "5.1.1", ("no",)),
    )
    await refusals.flush()
    assert await count(house, "refusal") == 1
    await housekeeping.round()
    assert (await count(house, "inbound"), await count(house, "inbound_rcpt")) == (2, 2)
    house.clock.advance(29 * DAY / SECOND)
    await housekeeping.round()
    assert (await count(house, "inbound"), await count(house, "inbound_rcpt")) == (2, 2)
    # Where the log lies in weekly parts, what shares a part with mail that waits goes two weeks later.
    house.clock.advance((1 + 2 * 7) * DAY / SECOND + 1)
    await housekeeping.round()
    assert await house.records.read(lambda tx: tx.rows("SELECT state FROM inbound_rcpt")) == [("accepted",)]
    assert (await count(house, "inbound"), await count(house, "refusal")) == (1, 0)


async def test_octets_go_after_their_last_email(house: House) -> None:
    await house.account()
    await house.append(letter(1))
    housekeeping, _ = keeping(house)
    house.clock.advance(2 * GRACE / SECOND)
    await housekeeping.round()
    assert await count(house, "content") == 1
    await house.mailboxes.destroy(1, [1])
    await housekeeping.round()
    assert await count(house, "content") == 1, "too early"
    house.clock.advance(2 * GRACE / SECOND)
    await housekeeping.round()
    assert await count(house, "content") == 0


async def test_old_changes_are_cut_and_the_floor_says_so(house: House) -> None:
    await house.account()
    await house.append(letter(1))
    for _ in range(10):
        await house.mailboxes.set_keywords(1, [1], add=["$flagged"])
        await house.mailboxes.set_keywords(1, [1], remove=["$flagged"])
    housekeeping, _ = keeping(house, kept_changes=5)
    await housekeeping.round()
    row = await house.records.read(lambda tx: tx.row("SELECT modseq, change_floor FROM account"))
    assert row is not None
    assert row[0] - row[1] == 5
    low = await house.records.read(lambda tx: tx.row("SELECT min(modseq) FROM change"))
    assert low is not None
    assert low[0] > row[1]
    assert await house.wrong() == []


async def test_storage_that_is_away_is_no_failure(house: House) -> None:
    housekeeping, _ = keeping(house)
    await house.records.close()
    with capture_logs() as logged:
        async with asyncio.timeout(20):
            await housekeeping.round()
    assert [line["event"] for line in logged] == ["housekeeping_waits_for_storage"]
