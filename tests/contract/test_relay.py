"""What the receiving flow hands over is sent like any other message, once, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import dkim
import msgspec
import pytest

from posthouse.events.handover import Handover, Kind, hand_over
from posthouse.smtp.reply import Reply
from posthouse.storage.records.base import Records, Tx
from tests.contract.outbound_house import DOMAIN, House

RAW = b"From: ann@elsewhere.example\r\nSubject: caf\xc3\xa9\r\n\r\nhello \xe9\r\n.dot\r\n"


@pytest.fixture
async def house(records: Records, tmp_path: Path) -> AsyncIterator[House]:
    made = await House(records, tmp_path).open()
    yield made
    await made.close()


async def give(house: House, number: int = 1, raw: bytes = RAW, **changes: object) -> Handover:
    """As the store stage does: content, row and job in one transaction."""
    content = await house.contents.put(raw)
    one = Handover(
        id=f"msg_{number:032x}",
        tenant_id=house.caller.tenant.id,
        kind=Kind.FORWARD,
        content=content.key,
        size=content.size,
        reverse_path="SRS0=x@a.example",
        sender="ann@elsewhere.example",
        recipients=("x@b.example",),
        origin="inb_1",
    )
    one = msgspec.structs.replace(one, **changes)

    async def work(tx: Tx) -> None:
        await house.contents.keep(tx, [(content, 1)])
        await hand_over(tx, house.queue, [one], house.clock())

    await house.records.write(work)
    house.relayer.wake(1)
    return one


@pytest.mark.parametrize("raw", [RAW, RAW + b"long\r\n" * 500], ids=["small", "large"])
async def test_bytes_and_envelope_are_as_handed_over(house: House, raw: bytes) -> None:
    house.work()
    one = await give(house, raw=raw, recipients=("x@b.example", "y@c.example"))
    await arrived(house, one, "delivered", "delivered")
    assert house.peers.data == [raw, raw]
    assert set(house.peers.paths) == {"SRS0=x@a.example"}
    assert [refs for refs in await refs_of(house) if refs] == []
    assert await house.count("relayed") == 0
    assert await house.count("job") == 0
    story = await house.outbound.explain(house.caller, one.id)
    assert "copy of inb_1" in story.story[0].text


async def test_the_same_twice_is_sent_once(house: House) -> None:
    one = await give(house)
    await house.records.write(lambda tx: hand_over(tx, house.queue, [one], house.clock()))
    house.work()
    await arrived(house, one, "delivered")
    assert house.peers.got == {"x@b.example": 1}


async def test_the_null_path_stays_null_and_what_is_ours_is_signed(house: House) -> None:
    house.work()
    mine = b"From: postmaster@a.example\r\nSubject: report\r\n\r\nbody\r\n"
    one = await give(house, raw=mine, kind=Kind.REPORT, reverse_path="", sender=f"postmaster@{DOMAIN}", sign=True)
    await arrived(house, one, "delivered")
    assert house.peers.paths == [""]
    (sent,) = house.peers.data
    assert sent.endswith(mine)
    domain = await house.domains.get(house.caller.tenant.id, DOMAIN)
    published = {one.name: one.value for one in house.domains.dns_records(domain) if one.purpose == "dkim-rsa"}
    assert len(published) == 1
    signatures = sent[: -len(mine)]
    assert signatures.count(b"DKIM-Signature:") == 2
    judged = dkim.DKIM(sent)
    places = [n for n in range(2) if judged.verify(n, dnsfunc=lambda name, timeout=5: _found(published, name))]
    assert places


def _found(published: dict[str, str], name: bytes) -> bytes | None:
    value = published.get(name.decode().rstrip("."))
    return value.encode() if value is not None else None


async def test_what_fails_is_reported_to_whoever_may_know(house: House) -> None:
    house.peers.answers = {"x@b.example": Reply(550, "5.1.1", ("no",))}
    house.work()
    told = await give(house, 1, report_to="ann@elsewhere.example")
    silent = await give(house, 2)
    await arrived(house, told, "bounced")
    await arrived(house, silent, "bounced")
    assert house.reported == [("x@b.example", "ann@elsewhere.example")]
    assert not any(await refs_of(house))


async def test_a_canceled_one_is_let_go_by_the_sweep(house: House) -> None:
    house.peers.answers = {"x@b.example": Reply(450, "4.2.0", ("later",))}
    house.work()
    one = await give(house)
    await arrived(house, one, "deferred")
    async with asyncio.timeout(10):
        while house.worker.held:
            await asyncio.sleep(0.01)
    await house.outbound.cancel(house.caller, one.id)
    assert await house.relay.sweep(house.records) == 1
    assert not any(await refs_of(house))
    assert await house.relay.sweep(house.records) == 0


async def arrived(house: House, one: Handover, *states: str) -> None:
    """Once it is a message at all, its recipients come into these states."""
    async with asyncio.timeout(10):
        while await house.records.read(lambda tx: tx.row("SELECT 1 FROM message WHERE id = $1", one.id)) is None:
            await asyncio.sleep(0.01)
    await house.settled(one.id, *states)


async def refs_of(house: House) -> list[int]:
    return [refs for (refs,) in await house.records.read(lambda tx: tx.rows("SELECT refs FROM content"))]
