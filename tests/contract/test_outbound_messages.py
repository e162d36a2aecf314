"""Looking at messages and taking them back, on real records, both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from posthouse.clock import DAY, SECOND
from posthouse.errors import Conflict, Error, Invalid, NotFound
from posthouse.outbound.model import FanOutDraft, Filter, RecipientDraft
from posthouse.smtp.reply import Reply
from posthouse.storage.records.base import Records, Tx
from tests.contract.outbound_house import DOMAIN, House, at, draft


@pytest.fixture
async def house(records: Records, tmp_path: Path) -> AsyncIterator[House]:
    made = await House(records, tmp_path).open()
    yield made
    await made.close()


def decoded(body: bytes) -> Any:
    return msgspec.json.decode(body)


def fan_out(count: int, **changes: Any) -> FanOutDraft:
    recipients = [RecipientDraft(to=f"u{n}@b.example") for n in range(count)]
    return FanOutDraft(**{"from_": f"a@{DOMAIN}", "subject": "s", "text": "t", "recipients": recipients, **changes})


# Looking.


async def test_list_filters_and_pages(house: House) -> None:
    first = await house.message(tags=["one", "x_y"], to=["a@b.example", "shared@b.example"])
    second = await house.message(tags=["xzy"], stream="broadcast", to=["shared@b.example"])
    third = await house.message(send_at=at(house.clock, 3600))
    stranger = await house.tenant("two")
    await house.outbound.send(stranger, draft(tags=["one"]), idempotency=None)

    async def found(**wanted: Any) -> list[str]:
        page = await house.outbound.list(house.caller, Filter(**wanted), cursor=None, limit=10)
        assert page.next is None
        return [one.id for one in page.data]

    assert await found() == [third, second, first]
    assert await found(to="shared@b.example") == [second, first]
    assert await found(status="scheduled") == [third]
    assert await found(tag="x_y") == [first], "no wildcard"
    assert await found(tag="one") == [first]
    assert await found(stream="broadcast") == [second]
    assert await found(stream="none") == []
    now = house.clock()
    assert await found(since=now + DAY) == await found(until=now - DAY) == []
    assert await found(since=now - DAY, until=now + DAY) == [third, second, first]
    seen: list[str] = []
    cursor = None
    while True:
        page = await house.outbound.list(house.caller, Filter(), cursor=cursor, limit=2)
        seen += [one.id for one in page.data]
        if (cursor := page.next) is None:
            break
    assert seen == [third, second, first]


async def test_another_tenants_message_is_not_there(house: House) -> None:
    message = await house.message()
    stranger = await house.tenant("two")
    out = house.outbound
    for call in (
        out.get(stranger, message),
        out.events(stranger, message),
        out.explain(stranger, message),
        out.content(stranger, message),
        out.cancel(stranger, message),
        out.reschedule(stranger, message, at(house.clock, 60)),
        out.get(house.caller, "msg_none"),
    ):
        with pytest.raises(NotFound) as missing:
            await call
        assert missing.value.code == "message_not_found"
    assert await house.states(message) == {"bob@b.example": "queued"}


async def test_many_more_specs_than_are_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.outbound.prepare._SPECS_KEPT", 2)
    messages = [await house.message(subject=f"s{n}") for n in range(8)]
    views = await asyncio.gather(*(house.outbound.get(house.caller, one) for one in messages * 5))
    assert [one.subject for one in views] == [f"s{n}" for n in range(8)] * 5
    page = await house.outbound.list(house.caller, Filter(), cursor=None, limit=10)
    assert len(page.data) == 8
    house.work()
    for one in messages:
        await house.settled(one, "delivered")


async def test_a_spec_too_large_for_its_row_lies_in_a_blob(house: House) -> None:
    message = await house.message(text="x" * 300_000, variables={"a": 1})
    assert (await house.outbound.get(house.caller, message)).subject == "Hi"

    async def spec(tx: Tx) -> int:
        row = await tx.row("SELECT length(spec) FROM submission")
        assert row is not None
        return row[0]

    assert await house.records.read(spec) < 200
    house.work()
    await house.settled(message, "delivered")


async def test_the_content_is_what_was_sent(house: House) -> None:
    await house.templates.create(house.caller.tenant.id, "hello", subject="Hi {{ name }}", html="<p>{{ name }}</p>")
    plain = await house.message(html="<b>x</b>", cc=["cc@b.example"], bcc=["bcc@b.example"], headers={"X-A": "1"})
    recipients = [RecipientDraft(to="Bo <bo@b.example>", variables={"name": "Bo"})]
    sent = fan_out(0, recipients=recipients, template="hello", subject=None, text=None, variables={"name": "you"})
    filled = decoded((await house.outbound.send_each(house.caller, sent, idempotency=None)).body)["results"][0]["id"]
    before = [await house.outbound.content(house.caller, one) for one in (plain, filled)]
    house.work()
    await house.settled(plain, *["delivered"] * 3)
    await house.settled(filled, "delivered")
    assert sorted(house.peers.data) == sorted(before)
    assert [await house.outbound.content(house.caller, one) for one in (plain, filled)] == before
    assert b"bcc" not in before[0]
    assert b"Subject: Hi Bo" in before[1]


async def test_content_that_cannot_be_rendered_says_why(house: House) -> None:
    await house.templates.create(house.caller.tenant.id, "hello", subject="s", text="{{ name }}")
    message = await house.message(template="hello", subject=None, text=None)
    with pytest.raises(Invalid, match="name"):
        await house.outbound.content(house.caller, message)
    house.work()
    await house.settled(message, "failed")
    story = await house.outbound.explain(house.caller, message)
    assert "name" in story.story[-1].text


# Taking back.


async def test_cancel(house: House) -> None:
    message = await house.message(to=["a@b.example", "c@c.example"], send_at=at(house.clock, 3600))
    view = await house.outbound.cancel(house.caller, message)
    assert view.status == "canceled"
    assert await house.queue.depths() == []
    types = [event.type for event in await house.outbound.events(house.caller, message)]
    assert sorted(types) == ["accepted", "accepted", "canceled", "canceled"]
    for call in (house.outbound.cancel, lambda *a: house.outbound.reschedule(*a, at(house.clock, 60))):
        with pytest.raises(Conflict) as conflict:
            await call(house.caller, message)
        assert conflict.value.code == "message_final"


async def test_reschedule(house: House) -> None:
    message = await house.message(send_at=at(house.clock, 3600))
    moment = at(house.clock, 7200)
    view = await house.outbound.reschedule(house.caller, message, moment)
    assert view.status == "scheduled"
    assert await house.queue.claim("render", 1, 10, lease=60) == []
    assert (await house.queue.depths())[0].delayed == 1
    view = await house.outbound.reschedule(house.caller, message, at(house.clock, -5))
    assert view.status == "queued"
    house.work()
    await house.settled(message, "delivered")
    with pytest.raises(Invalid):
        await house.outbound.reschedule(house.caller, message, at(house.clock, 100 * DAY / SECOND))
    with pytest.raises(Invalid):
        await house.outbound.reschedule(house.caller, message, moment.replace(tzinfo=None))


async def test_what_is_in_flight_is_not_taken_back(house: House) -> None:
    house.peers.gate.clear()
    house.work()
    message = await house.message()
    async with asyncio.timeout(20):
        while not house.worker.holds(message):
            await asyncio.sleep(0.01)
    for call in (
        house.outbound.cancel(house.caller, message),
        house.outbound.reschedule(house.caller, message, at(house.clock, 60)),
    ):
        with pytest.raises(Conflict) as conflict:
            await call
        assert conflict.value.code == "message_in_flight"
    house.peers.gate.set()
    await house.settled(message, "delivered")


async def test_a_message_never_has_two_jobs(house: House) -> None:
    """Its batch was handed back, so its job waits at another time than its row says."""
    message = await house.message()
    [job] = await house.queue.claim("render", 1, 10, lease=60)
    await house.queue.later([(job, house.clock() + 5 * SECOND)])
    with pytest.raises(Conflict) as conflict:
        await house.outbound.reschedule(house.caller, message, at(house.clock, 3600))
    assert conflict.value.code == "message_in_flight"
    assert await house.count("job") == 1


async def test_one_whose_site_was_away_can_be_put_to_a_later_day(house: House) -> None:
    """No attempt was counted; its greatest age counts from the new time."""
    message = await house.message()
    [job] = await house.queue.claim("render", 1, 10, lease=60)
    next_at = house.clock() + 600 * SECOND

    async def defer(tx: Tx) -> None:
        await tx.run("UPDATE message SET state = 'deferred', next_at = $1 WHERE id = $2", next_at, message)
        await house.queue.later([(job, next_at)], tx=tx)

    await house.records.write(defer)
    view = await house.outbound.reschedule(house.caller, message, at(house.clock, 5 * DAY / SECOND))
    assert view.status == "scheduled"
    assert view.expires_at > view.send_at
    assert view.recipients[0].next_attempt_at == view.send_at


async def test_after_an_attempt_a_message_keeps_its_time_but_can_be_canceled(house: House) -> None:
    house.peers.answers["bob@b.example"] = Reply(451, "4.7.1", ("greylisted",))
    house.work()
    message = await house.message(to=["bob@b.example", "eve@b.example"])
    await house.settled(message, "deferred", "delivered")
    with pytest.raises(Conflict) as conflict:
        await house.outbound.reschedule(house.caller, message, at(house.clock, 60))
    assert conflict.value.code == "message_attempted"
    await house.outbound.cancel(house.caller, message)
    assert await house.states(message) == {"bob@b.example": "canceled", "eve@b.example": "delivered"}


async def test_cancel_and_reschedule_at_once_have_one_winner(house: House) -> None:
    for _ in range(5):
        message = await house.message(send_at=at(house.clock, 3600))
        results = await asyncio.gather(
            *(house.outbound.cancel(house.caller, message) for _ in range(3)),
            *(house.outbound.reschedule(house.caller, message, at(house.clock, 60 + n)) for n in range(3)),
            return_exceptions=True,
        )
        assert all(not isinstance(one, BaseException) or isinstance(one, Error) for one in results)
        state = (await house.states(message))["bob@b.example"]
        depths = await house.queue.depths()
        assert (state, sum(one.delayed for one in depths)) in (("canceled", 0), ("scheduled", 1))
        if state == "scheduled":
            await house.outbound.cancel(house.caller, message)
