"""Sending on real records, both engines: idempotency, the durable step that requests share, batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from posthouse.accounts import idempotency as answers
from posthouse.errors import Conflict, Forbidden, Invalid, Limited, StorageUnavailable, TooLarge
from posthouse.outbound.model import FanOutDraft, Idempotency, ManyDraft, RecipientDraft
from posthouse.storage.queue.base import Lane
from posthouse.storage.records.base import Records, Tx
from tests.contract.outbound_house import DOMAIN, House, draft


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
