"""The verbs of the sending flow on real records, both engines: what an edge relies on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from posthouse.accounts import idempotency as answers
from posthouse.clock import DAY, SECOND
from posthouse.egress.model import NoDestination
from posthouse.errors import Conflict, Error, Forbidden, Invalid, Limited, NotFound, StorageUnavailable, TooLarge
from posthouse.outbound.model import FanOutDraft, Filter, Idempotency, ManyDraft, RecipientDraft
from posthouse.smtp.reply import Reply
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records
from posthouse.suppression.model import Entry, Reason
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


def many(*items: dict[str, Any], **changes: Any) -> ManyDraft:
    return ManyDraft(messages=[msgspec.Raw(msgspec.json.encode(item)) for item in items], **changes)


def item(**changes: Any) -> dict[str, Any]:
    return {"from": f"a@{DOMAIN}", "to": ["b@b.example"], "subject": "s", "text": "t", **changes}


# Idempotency.


async def test_the_same_request_again_gets_the_same_answer(house: House) -> None:
    key = Idempotency("k1", "hash")
    first = await house.outbound.send(house.caller, draft(), idempotency=key)
    again = await house.outbound.send(house.caller, draft(), idempotency=key)
    assert (first.status, first.replayed) == (202, False)
    assert (again.status, again.body, again.replayed) == (202, first.body, True)
    with pytest.raises(Conflict) as conflict:
        await house.outbound.send(house.caller, draft(text="other"), idempotency=Idempotency("k1", "other"))
    assert conflict.value.code == "idempotency_key_reused"
    assert await house.count("message") == 1
    other = await house.tenant("two")
    assert not (await house.outbound.send(other, draft(), idempotency=key)).replayed


async def test_concurrent_duplicates_give_one_message(house: House) -> None:
    sends = [house.outbound.send(house.caller, draft(), idempotency=Idempotency("k", "h")) for _ in range(20)]
    results = await asyncio.gather(*sends, return_exceptions=True)
    codes = {one.code for one in results if isinstance(one, Conflict)}
    assert codes == {"idempotency_in_flight"}
    assert sum(not isinstance(one, BaseException) for one in results) == 1
    assert await house.count("message") == 1


async def test_a_request_that_was_refused_leaves_its_key_free(house: House) -> None:
    key = Idempotency("k", "h")
    with pytest.raises(Invalid):
        await house.outbound.send(house.caller, draft(to=["x"]), idempotency=key)
    assert not (await house.outbound.send(house.caller, draft(), idempotency=key)).replayed


async def test_a_batch_is_repeated_whole(house: House) -> None:
    key = Idempotency("k", "h")
    first = await house.outbound.send_each(house.caller, fan_out(3), idempotency=key)
    again = await house.outbound.send_each(house.caller, fan_out(3), idempotency=key)
    assert again.body == first.body
    assert await house.count("message") == 3
    key = Idempotency("k2", "h")
    first = await house.outbound.send_many(house.caller, many(item(), item(to=["x"])), idempotency=key)
    assert (await house.outbound.send_many(house.caller, many(item()), idempotency=key)).body == first.body
    assert await house.count("message") == 4


async def test_another_process_that_took_the_key_meanwhile(house: House) -> None:
    """It hurts nobody who shares the durable step."""
    step = house.submit._step
    meanwhile = answers.First(house.caller.tenant.id, "k", "h", house.clock(), 202, b"{}")

    async def late(submissions: Any) -> Any:
        house.submit._step = step  # type: ignore[method-assign]

        async def work(tx: Tx) -> None:
            await answers.save(tx, [meanwhile])

        await house.records.write(work)
        return await step(submissions)

    house.submit._step = late  # type: ignore[method-assign]
    others = [house.outbound.send(house.caller, draft(), idempotency=None) for _ in range(5)]
    mine = house.outbound.send(house.caller, draft(), idempotency=Idempotency("k", "h"))
    results = await asyncio.gather(mine, *others, return_exceptions=True)
    assert isinstance(results[0], Conflict)
    assert results[0].code == "idempotency_in_flight"
    assert [getattr(one, "status", None) for one in results[1:]] == [202] * 5
    assert await house.count("message") == await house.count("job") == 5


# Submitting together.


async def test_concurrent_requests_share_few_durable_steps(house: House) -> None:
    steps = 0
    write = house.submit._write

    async def counted(batch: Any) -> None:
        nonlocal steps
        steps += 1
        await write(batch)

    house.submit._write = counted  # type: ignore[method-assign]
    await asyncio.gather(*(house.message(to=[f"u{n}@b.example"]) for n in range(300)))
    assert steps <= 30
    assert await house.count("message") == await house.count("job") == await house.count("event") == 300


async def test_one_tenants_quota_does_not_hurt_others_in_the_step(house: House) -> None:
    poor = await house.tenant("poor", quota=3)
    results = await asyncio.gather(
        *(house.outbound.send(poor, draft(), idempotency=None) for _ in range(5)),
        *(house.message() for _ in range(5)),
        house.outbound.send_each(poor, fan_out(4), idempotency=Idempotency("k", "h")),
        return_exceptions=True,
    )
    limited = [isinstance(one, Limited) for one in results]
    assert (sum(limited[:5]), limited[5:10], limited[10]) == (2, [False] * 5, True)
    assert await house.count("message") == 8
    assert await house.count("idempotency") == 0


async def test_one_that_storage_refuses_does_not_hurt_others_in_the_step(house: House) -> None:
    step = house.submit._step

    async def refusing(submissions: Any) -> Any:
        if any(row[6] == "bad@b.example" for one in submissions for row in one.messages):
            raise Invalid("a text holds a character that cannot be stored")
        return await step(submissions)

    house.submit._step = refusing  # type: ignore[method-assign]
    addresses = ["a@b.example", "bad@b.example", "c@b.example"]
    results = await asyncio.gather(*(house.message(to=[one]) for one in addresses), return_exceptions=True)
    assert [isinstance(one, Invalid) for one in results] == [False, True, False]
    assert await house.count("message") == 2


async def test_storage_that_is_away_is_everybodys_answer_and_over_when_it_is_back(house: House) -> None:
    step = house.submit._step

    async def away(submissions: Any) -> Any:
        raise StorageUnavailable(detail="away")

    house.submit._step = away  # type: ignore[method-assign]
    results = await asyncio.gather(*(house.message() for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in results] == [StorageUnavailable] * 3
    house.submit._step = step  # type: ignore[method-assign]
    assert await house.message()
    assert await house.count("message") == 1


async def test_every_lane_of_a_batch_is_woken(house: House) -> None:
    woken: list[int] = []
    house.submit._wake = woken.append
    batch = many(item(stream="critical"), item(stream="broadcast"), item(stream="broadcast"))
    await house.outbound.send_many(house.caller, batch, idempotency=None)
    assert sorted(woken) == [Lane.CRITICAL, Lane.BULK]


# Batches.


async def test_a_bad_item_is_its_own_error(house: House) -> None:
    batch = many(item(), item(to=["nobody"]), item(template="none", subject=None, text=None), item(surprise=1), item())
    batch = ManyDraft(messages=[*batch.messages, msgspec.Raw(b'{"from": ')])
    answer = decoded((await house.outbound.send_many(house.caller, batch, idempotency=None)).body)
    assert (answer["accepted"], answer["refused"]) == (2, 4)
    results = answer["results"]
    assert [place for place, one in enumerate(results) if "id" in one] == [0, 4]
    assert results[1]["error"]["errors"][0]["pointer"] == "/messages/1/to/0"
    assert results[2]["error"]["code"] == "template_not_found"
    assert results[2]["error"]["errors"][0]["pointer"] == "/messages/2/template"
    assert results[3]["error"]["errors"][0]["pointer"] == "/messages/3/surprise"
    assert results[5]["error"]["code"] == "malformed_json"
    assert await house.count("message") == 2


async def test_all_or_nothing(house: House) -> None:
    bad = RecipientDraft(to="nobody")
    for call in (
        house.outbound.send_many(house.caller, many(item(), item(to=["x"]), all_or_nothing=True), idempotency=None),
        house.outbound.send_many(house.caller, many(item(to=["x"])), idempotency=None),
        house.outbound.send_each(
            house.caller,
            fan_out(0, recipients=[RecipientDraft(to="a@b.example"), bad], all_or_nothing=True),
            idempotency=None,
        ),
        house.outbound.send_each(house.caller, fan_out(0, recipients=[bad]), idempotency=None),
    ):
        with pytest.raises(Invalid) as refused:
            await call
        assert refused.value.code == "batch_refused"
        assert refused.value.faults
    assert await house.count("message") == await house.count("job") == 0


async def test_the_bounds_of_a_batch(house: House) -> None:
    with pytest.raises(TooLarge):
        await house.outbound.send_many(house.caller, many(*[item()] * 21), idempotency=None)
    with pytest.raises(Invalid):
        await house.outbound.send_many(house.caller, many(), idempotency=None)
    with pytest.raises(Invalid):
        await house.outbound.send_each(house.caller, fan_out(51), idempotency=None)


async def test_results_stand_where_their_recipients_stood(house: House) -> None:
    recipients = [RecipientDraft(to=to) for to in ("a@b.example", "x", "c@b.example")]
    answer = decoded(
        (await house.outbound.send_each(house.caller, fan_out(0, recipients=recipients), idempotency=None)).body
    )
    ids = [one.get("id") for one in answer["results"]]
    assert ids[1] is None
    assert await house.states(ids[0]) == {"a@b.example": "queued"}
    assert await house.states(ids[2]) == {"c@b.example": "queued"}


async def test_who_may_send_from_where(house: House) -> None:
    with pytest.raises(Invalid) as refused:
        await house.message(from_="a@elsewhere.example")
    assert refused.value.code == "domain_not_found"
    with pytest.raises(Forbidden) as forbidden:
        await house.outbound.send(replace(house.caller, domain="other.example"), draft(), idempotency=None)
    assert forbidden.value.code == "key_domain"


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


# The whole way.


async def test_each_recipient_has_an_outcome_of_its_own(house: House) -> None:
    """Two sites; one refused for good, one for now, one suppressed, two delivered."""
    entry = Entry("listed@b.example", Reason.MANUAL, source="test")

    async def suppress(tx: Tx) -> None:
        await house.suppressions.add_in(tx, house.suppressions.rows_for(house.caller.tenant.id, [entry]))

    await house.records.write(suppress)
    house.peers.answers |= {
        "no@b.example": Reply(550, "5.1.1", ("no such user",)),
        "later@c.example": Reply(450, "4.2.2", ("full",)),
    }
    house.work()
    to = ["yes@b.example", "no@b.example", "listed@b.example", "yes@c.example", "later@c.example"]
    message = await house.message(to=to)
    await house.settled(message, "bounced", "deferred", "delivered", "delivered", "suppressed")
    assert await house.states(message) == {
        "yes@b.example": "delivered",
        "no@b.example": "bounced",
        "listed@b.example": "suppressed",
        "yes@c.example": "delivered",
        "later@c.example": "deferred",
    }
    async with asyncio.timeout(5):
        while house.worker.held:
            await asyncio.sleep(0.01)
    assert (await house.queue.depths())[0].delayed == 1
    del house.peers.answers["later@c.example"]
    house.clock.ahead += 600 * SECOND
    await house.settled(message, "bounced", "delivered", "delivered", "delivered", "suppressed")
    assert house.peers.got == {"yes@b.example": 1, "yes@c.example": 1, "later@c.example": 1}
    assert await house.count("job") == 0
    story = await house.outbound.explain(house.caller, message)
    assert "3 delivered" in story.summary


async def test_what_grew_too_old_ends(house: House) -> None:
    message = await house.message()
    house.clock.ahead += 4 * DAY
    house.work()
    await house.settled(message, "failed")
    assert await house.count("job") == 0
    assert house.peers.got == {}


async def test_a_stop_hands_back_what_waits_and_nothing_is_sent_twice(house: House) -> None:
    house.peers.gate.clear()
    house.work()
    messages = [await house.message(to=[f"u{n}@b.example"]) for n in range(30)]
    async with asyncio.timeout(20):
        while not any(site.connections for site in house.sites.all()):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    stopping = asyncio.ensure_future(house.rest())
    await asyncio.sleep(0.1)
    house.peers.gate.set()
    async with asyncio.timeout(20):
        await stopping
    assert house.worker.held == 0
    open_jobs = [job.id for job in await house.queue.claim("render", 1, 100, lease=60)]
    done = [one for one in messages if (await house.states(one)).popitem()[1] == "delivered"]
    assert sorted([*open_jobs, *done]) == sorted(messages)
    assert set(house.peers.got.values()) <= {1}
    assert sum(house.peers.got.values()) == len(done)


async def test_a_canceled_job_that_is_still_in_the_queue_ends_by_itself(house: House) -> None:
    await house.queue.put([Job("render", 1, house.caller.tenant.id, house.clock(), "msg_gone")])
    house.work()
    async with asyncio.timeout(10):
        while await house.count("job"):
            await asyncio.sleep(0.02)


async def test_large_messages_go_a_few_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds so many octets of them; the others wait in the queue, and all arrive."""
    monkeypatch.setattr("posthouse.outbound.mail_in_hand.LARGE", 1000)
    monkeypatch.setattr("posthouse.outbound.mail_in_hand.LARGE_IN_HAND", 25_000)
    house.peers.gate.clear()
    messages = [await house.message(text="x" * 10_000) for _ in range(6)]
    house.work()
    async with asyncio.timeout(20):
        while house.worker.held != 2:
            await asyncio.sleep(0.01)
    assert (await house.queue.depths())[0].delayed == 4
    house.peers.gate.set()
    house.clock.ahead += 10 * SECOND
    async with asyncio.timeout(20):
        for one in messages:
            while (await house.states(one))["bob@b.example"] != "delivered":
                house.clock.ahead += SECOND
                await asyncio.sleep(0.02)
    assert sum(house.peers.got.values()) == 6


async def test_two_servers_on_one_postgresql_send_each_message_once(postgres_url: str, tmp_path: Path) -> None:
    """Neither knows of the other; one stops in the middle, the other goes on."""
    opened = [await open_records(postgres_url) for _ in range(2)]
    one = await House(opened[0], tmp_path).open()
    two = await House(opened[1], tmp_path).open(tenant="two")
    two.peers = one.peers
    two.sites._open = one.peers.open
    try:
        messages = [await one.message(to=[f"u{n}@b.example", f"u{n}@c.example"]) for n in range(60)]
        one.work()
        two.work()
        await asyncio.sleep(0.3)
        await two.rest()
        more = [await two.message(to=[f"v{n}@b.example"]) for n in range(20)]
        for name in messages:
            await one.settled(name, "delivered", "delivered")
        async with asyncio.timeout(20):
            while await one.count("job"):
                await asyncio.sleep(0.05)
        assert len(one.peers.got) == 2 * len(messages) + len(more)
        assert set(one.peers.got.values()) == {1}
    finally:
        await one.close()
        await two.close()
        for records in opened:
            await records.close()


# Before an attempt.


async def test_suppression_that_cannot_be_checked_sends_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    find = house.suppressions.find_many
    asked = asyncio.Event()

    async def away(keys: Any) -> Any:
        asked.set()
        raise StorageUnavailable(detail="away")

    monkeypatch.setattr(house.suppressions, "find_many", away)
    house.work()
    message = await house.message()
    async with asyncio.timeout(10):
        await asked.wait()
        while house.worker.held:
            await asyncio.sleep(0.01)
    assert house.peers.got == {}
    assert await house.states(message) == {"bob@b.example": "queued"}
    monkeypatch.setattr(house.suppressions, "find_many", find)
    house.clock.ahead += 6 * SECOND
    await house.settled(message, "delivered")


async def test_a_domain_whose_dns_is_slow_waits_by_itself(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.outbound.prepare._LOCATE_SECONDS", 0.05)
    known = house.destinations.known
    answer = asyncio.Event()

    async def locate(domain: str) -> Any:
        await answer.wait()
        return known(domain)

    monkeypatch.setattr(house.destinations, "known", lambda domain: known(domain) if domain != "slow.example" else None)
    monkeypatch.setattr(house.destinations, "locate", locate)
    slow = await house.message(to=["a@slow.example"])
    fast = await house.message(to=["b@fast.example"])
    both = await house.message(to=["c@slow.example", "d@fast.example"])
    house.work()
    await house.settled(fast, "delivered")
    await house.settled(both, "queued", "delivered")
    answer.set()
    house.clock.ahead += 6 * SECOND
    await house.settled(slow, "delivered")
    await house.settled(both, "delivered", "delivered")
    view = await house.outbound.get(house.caller, slow)
    assert view.recipients[0].attempts == 1, "waiting for DNS was no attempt"


async def test_a_domain_without_a_destination_ends_or_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "null.example": NoDestination("null_mx", True, 556, "5.1.10", "takes no mail"),
        "down.example": NoDestination("dns_unavailable", False, 451, "4.4.3", "DNS does not answer"),
    }
    monkeypatch.setattr(house.destinations, "known", found.get)
    house.work()
    message = await house.message(to=["a@null.example", "b@down.example"])
    await house.settled(message, "bounced", "deferred")
    view = await house.outbound.get(house.caller, message)
    assert view.recipients[0].reply == {"code": 556, "enhanced": "5.1.10", "text": "takes no mail"}
    assert view.recipients[1].next_attempt_at is not None
    texts = [one.text for one in (await house.outbound.explain(house.caller, message)).story]
    assert any("null MX" in text for text in texts)
    assert any("dns_unavailable" in text for text in texts)


async def test_a_render_process_that_dies_costs_no_message(house: House) -> None:
    house.work()
    await house.settled(await house.message(), "delivered")
    messages = [await house.message(to=[f"u{n}@b.example"]) for n in range(60)]
    os.kill(house.pool.pids[0], signal.SIGKILL)
    for one in messages:
        await house.settled(one, "delivered")
    assert set(house.peers.got.values()) == {1}


async def test_a_message_whose_request_is_damaged_does_not_hold_up_the_others(house: House) -> None:
    bad = await house.message()
    messages = [await house.message() for _ in range(5)]

    async def damage(tx: Tx) -> None:
        await tx.run(
            "UPDATE submission SET spec = 'no JSON' WHERE id = (SELECT submission_id FROM message WHERE id = $1)", bad
        )

    await house.records.write(damage)
    house.work()
    for one in messages:
        await house.settled(one, "delivered")
    async with asyncio.timeout(10):
        while house.worker.held:
            await asyncio.sleep(0.01)
    assert await house.count("job") == 1
