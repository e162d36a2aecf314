"""Who is told of a forward that failed, and of what."""

from __future__ import annotations

import asyncio
import email
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from posthouse.events.handover import Handover, Kind, keep_and_hand_over
from posthouse.outbound.report import Report
from posthouse.smtp.reply import Reply
from posthouse.storage.records.base import Records, Tx
from posthouse.suppression.model import Entry, Reason
from tests.contract.outbound_house import DOMAIN, House

RAW = b"From: bob@s.example\r\nSubject: Plans\r\nMessage-ID: <7@s.example>\r\n\r\nhello\r\n"
HEADER = RAW.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
NO = Reply(550, "5.1.1", ("<x@b.example> is nobody at B.example",))


@pytest.fixture
async def house(records: Records, tmp_path: Path) -> AsyncIterator[House]:
    made = House(records, tmp_path)
    await made.open()
    made.relay._report = Report(made.queue, made.contents, host="me.test", clock=made.clock)
    made.work()
    yield made
    await made.close()


async def give(house: House, number: int = 1, **changes: Any) -> Handover:
    content = await house.contents.put(RAW)
    one = Handover(
        id=f"msg_{number:012x}7{number:019x}",
        tenant_id=house.caller.tenant.id,
        kind=Kind.FORWARD,
        content=content.key,
        size=content.size,
        reverse_path="SRS0=x@a.example",
        sender="bob@s.example",
        recipients=("x@b.example",),
        origin="inb_1",
        report_to="bob@s.example",
        domain=DOMAIN,
        written_to=f"ann@{DOMAIN}",
        arrived_at=house.clock(),
        header=HEADER,
    )
    one = msgspec.structs.replace(one, **changes)

    async def work(tx: Tx) -> None:
        await keep_and_hand_over(tx, house.queue, house.contents, [(content, one)], house.clock())

    await house.records.write(work)
    house.relayer.wake(1)
    return one


async def ended(house: House, *states: str) -> None:
    """All messages, those that follow from others too, are in these states."""
    async with asyncio.timeout(20):
        while True:
            rows = await house.records.read(lambda tx: tx.rows("SELECT state FROM message"))
            waiting = await house.count("relayed")
            if not waiting and sorted(state for (state,) in rows) == sorted(states):
                return
            await asyncio.sleep(0.02)


async def test_the_proved_sender_is_told_and_not_where_it_went(house: House) -> None:
    house.peers.answers = {"x@b.example": NO}
    one = await give(house)
    await ended(house, "bounced", "delivered")
    assert house.peers.got == {"bob@s.example": 1}
    assert house.peers.paths[-1] == ""
    data = house.peers.data[-1]
    assert data.startswith(b"DKIM-Signature:")
    report = email.message_from_bytes(data)
    assert report.get_content_type() == "multipart/report"
    assert report["From"] == f"Mail Delivery System <postmaster@{DOMAIN}>"
    assert report["To"] == "bob@s.example"
    assert report["In-Reply-To"] == "<7@s.example>"
    assert report["Auto-Submitted"] == "auto-replied"
    fields = str(list(report.walk())[2])
    assert f"Final-Recipient: rfc822; ann@{DOMAIN}" in fields
    assert "Status: 5.1.1" in fields
    assert f"550 5.1.1 <ann@{DOMAIN}> is nobody at" in fields
    assert b"b.example" not in data.lower()
    assert b"Subject: Plans" in data
    assert not any(refs for (refs,) in await house.records.read(lambda tx: tx.rows("SELECT refs FROM content")))
    story = await house.outbound.explain(house.caller, one.id)
    assert story.story


async def test_several_addresses_of_one_forward_make_one_report(house: House) -> None:
    house.peers.answers = {"x@b.example": NO, "y@b.example": NO}
    await give(house, recipients=("x@b.example", "y@b.example", "z@b.example"))
    await ended(house, "bounced", "bounced", "delivered", "delivered")
    assert house.peers.got == {"z@b.example": 1, "bob@s.example": 1}


@pytest.mark.parametrize(
    "changes",
    [{"report_to": None}, {"kind": Kind.REPORT}, {"kind": Kind.ANSWER}, {"report_to": "not an address"}],
    ids=["unproved", "report", "answer", "unwritable"],
)
async def test_nobody_is_told(house: House, changes: dict[str, Any]) -> None:
    house.peers.answers = {"x@b.example": NO}
    await give(house, **changes)
    await ended(house, "bounced")
    assert not house.peers.got


async def test_a_report_that_fails_makes_no_report(house: House) -> None:
    house.peers.answers = {"x@b.example": NO, "bob@s.example": NO}
    await give(house)
    await ended(house, "bounced", "bounced")
    assert await house.count("message") == 2, "the forward and its report, and no report of that"
    assert await house.count("relayed") == 0


async def test_a_suppressed_address_is_a_failure_to_the_sender(house: House) -> None:
    await house.suppressions.add(house.caller.tenant.id, [Entry("x@b.example", Reason.BOUNCE)])
    await give(house)
    await ended(house, "suppressed", "delivered")
    assert b"Status: 5.1.1" in house.peers.data[-1]
    assert b"b.example" not in house.peers.data[-1]


async def test_each_forward_has_its_report(house: House) -> None:
    house.peers.answers = {"x@b.example": NO}
    await give(house)
    await ended(house, "bounced", "delivered")
    house.peers.gate.clear()
    await give(house, 2)
    house.peers.gate.set()
    await ended(house, "bounced", "delivered", "bounced", "delivered")
    assert house.peers.got == {"bob@s.example": 2}
