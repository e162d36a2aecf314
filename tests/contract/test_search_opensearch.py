"""OpenSearch's own: an index made anew beside another, writers who know an old arrangement,
answers line by line, and a server that is busy, slow, or away."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import structlog

from posthouse import errors
from posthouse.storage.search import base
from posthouse.storage.search.base import Doc, Search
from posthouse.storage.search.factory import open_search
from posthouse.storage.search.opensearch import bulk
from posthouse.storage.search.prepare import Prepared
from posthouse.storage.search.query import parse
from tests.contract.front import Front, Rule, front

T0 = 1_700_000_000_000_000


def doc(n: int, text: str = "word", account: str = "acc_a") -> Doc:
    return Doc(account, f"eml_{n:08d}", T0 + n * 1_000_000, text=text)


async def found(search: Search, text: str = "word", account: str = "acc_a", limit: int = 1000) -> list[int]:
    page = await search.query(account, parse(text), limit=limit)
    return [int(email.removeprefix("eml_")) for email in page.emails]


@pytest.fixture
async def search(opensearch_url: str) -> AsyncIterator[Search]:
    opened = await open_search(opensearch_url)
    yield opened
    await opened.close()


@pytest.fixture
async def other(opensearch_url: str) -> AsyncIterator[Search]:
    """As another process has it."""
    opened = await open_search(opensearch_url)
    yield opened
    await opened.close()


@pytest.fixture
async def before(opensearch_server: str) -> AsyncIterator[Front]:
    async with front(opensearch_server) as made:
        yield made


@pytest.fixture
async def through(opensearch_url: str, before: Front) -> AsyncIterator[Search]:
    """As seen by a process behind `before`."""
    opened = await open_search(opensearch_url.replace(opensearch_url.split("/test-", maxsplit=1)[0], before.url))
    await opened.ready()
    yield opened
    await opened.close()


async def aliases(url: str) -> dict[str, set[str]]:
    server, _, name = url.partition("?")[0].rpartition("/")
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = (await client.get(f"{server}/{name}-*/_alias")).json()
    cut = len(f"{name}-v1-")
    return {
        index[cut:]: {re.sub(r"-\d{10,}-", "-", alias[cut:]) for alias in about["aliases"]}
        for index, about in answer.items()
    }


# Made anew beside the old one.


async def test_queries_go_to_the_old_index_until_the_new_one_is_whole(search: Search, opensearch_url: str) -> None:
    await search.index([doc(n) for n in range(10)])
    await search.rebuilt()
    assert await aliases(opensearch_url) == {"000001": {"read", "write-1"}}
    await search.clear()
    assert await aliases(opensearch_url) == {
        "000001": {"read", "write-1"},
        "000002": {"write-2", "due-rebuilding"},
    }
    assert await found(search) == list(range(9, -1, -1))
    assert await search.index([doc(n) for n in range(5)]) == 5
    assert (await search.size()).emails == 5
    assert await found(search) == list(range(9, -1, -1))
    await search.index([doc(20)])
    assert await found(search) == [20, *range(9, -1, -1)]
    await search.remove("acc_a", ["eml_00000003", "eml_00000008"])
    assert await found(search) == [20, 9, 7, 6, 5, 4, 2, 1, 0]
    await search.rebuilt()
    assert await found(search) == [20, 4, 2, 1, 0], "what was given since, and nothing of before"
    assert await aliases(opensearch_url) == {"000002": {"read", "write-2"}}
    await search.rebuilt()
    assert (await search.size()).needs_rebuild is None


async def test_a_rebuild_that_begins_again_leaves_the_first_one(search: Search, opensearch_url: str) -> None:
    await search.index([doc(1)])
    await search.rebuilt()
    await search.clear()
    await search.index([doc(2)])
    await search.clear()
    assert set(await aliases(opensearch_url)) == {"000001", "000003"}
    assert (await search.size()).emails == 0
    await search.index([doc(1), doc(2)])
    await search.rebuilt()
    assert await found(search) == [2, 1]
    assert set(await aliases(opensearch_url)) == {"000003"}


async def test_nothing_is_missing_after_a_rebuild_under_arrivals(search: Search, other: Search) -> None:
    """What is stored comes in while all of it is indexed anew by another process, which reads what
    is stored as a rebuild does: after `clear` returned."""
    stored = [doc(n) for n in range(60)]
    await other.index(stored)
    await other.rebuilt()
    over = asyncio.Event()
    missing: list[int] = []

    async def arrive(first: int) -> None:
        n = first
        while not over.is_set():
            arrived = [doc(n), doc(n + 1)]
            stored.extend(arrived)  # the records first, as everywhere
            await search.index(arrived)
            hits = set(await found(search))
            missing.extend({n, n + 1} - hits)
            n += 2

    async def leave() -> None:
        for n in range(0, 30, 3):
            stored.remove(doc(n))
            await search.remove("acc_a", [f"eml_{n:08d}"])

    arriving = [asyncio.create_task(arrive(1000 * worker)) for worker in range(1, 4)]
    leaving = asyncio.create_task(leave())
    await asyncio.sleep(0.2)
    await leaving
    for _ in range(3):
        await other.clear()
        for at in range(0, len(every := list(stored)), 25):
            await other.index(every[at : at + 25])
        await other.rebuilt()
    over.set()
    await asyncio.gather(*arriving)
    assert missing == [], "found as soon as it was indexed, also in the middle of a switch"
    assert len(stored) > 80
    assert await found(search) == sorted((int(each.email[4:]) for each in stored), reverse=True)
    assert (await other.size()).needs_rebuild is None


async def test_two_who_begin_at_once_begin_one_after_the_other(search: Search, other: Search) -> None:
    await search.index([doc(1)])
    await search.rebuilt()
    await asyncio.gather(search.clear(), other.clear(), search.clear())
    await asyncio.gather(search.index([doc(1)]), other.index([doc(2)]))
    await asyncio.gather(search.rebuilt(), other.rebuilt())
    assert await found(search) == await found(other) == [2, 1]


async def test_many_who_start_at_once_make_one_index(opensearch_url: str) -> None:
    opened = [await open_search(opensearch_url) for _ in range(5)]
    await asyncio.gather(*(each.index([doc(n)]) for n, each in enumerate(opened)))
    assert await found(opened[0]) == [4, 3, 2, 1, 0]
    assert set(await aliases(opensearch_url)) == {"000001"}
    for each in opened:
        await each.close()


@pytest.mark.parametrize("rebuilding", [False, True])
async def test_an_index_that_somebody_deleted_is_made_anew(
    search: Search, opensearch_url: str, rebuilding: bool
) -> None:
    await search.index([doc(1)])
    await search.rebuilt()
    if rebuilding:
        await search.clear()
    server, _, name = opensearch_url.partition("?")[0].rpartition("/")
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.delete(f"{server}/{name}-v1-000001")).status_code == 200
    assert await search.index([doc(2)]) == 1
    assert await found(search) == [2]
    assert (await search.size()).needs_rebuild == ("rebuilding" if rebuilding else "new")
    await search.index([doc(1)])
    await search.rebuilt()
    assert await found(search) == [2, 1]


async def test_only_reading(search: Search, opensearch_url: str) -> None:
    reading = await open_search(opensearch_url, read_only=True)
    for attempt in (reading.size(), reading.ready(), reading.query("acc_a", parse("word"))):
        with pytest.raises(errors.StorageUnavailable):
            await attempt
    assert await aliases(opensearch_url) == {}, "who only reads makes nothing"
    await search.index([doc(1)])
    assert await found(reading) == [1]
    for attempt in (reading.index([doc(2)]), reading.remove("a", ["b"]), reading.clear(), reading.rebuilt()):
        with pytest.raises(errors.StorageUnavailable):
            await attempt
    await reading.close()


# Queries.


async def test_more_words_with_one_beginning_than_a_boolean_query_takes(search: Search) -> None:
    await search.index([doc(n, " ".join(f"see pre{n:02d}{m:03d}" for m in range(200))) for n in range(15)])
    assert len(await found(search, "pre*")) == 15
    assert len(await found(search, '"see pre"*')) == 15
    assert await found(search, '"see pre14"*') == [14]


async def test_a_query_of_another_account_on_the_same_shard_finds_nothing(search: Search) -> None:
    accounts = [f"acc_{n}" for n in range(20)] + ["a,b", "a", "b", "a/eml_00000001", "*"]
    await search.index([doc(n, f"word w{n}", account) for n, account in enumerate(accounts)])
    for n, account in enumerate(accounts):
        assert await found(search, "word", account) == [n]
        assert await found(search, f"-w{n}", account) == []


async def test_pages_of_very_many(search: Search) -> None:
    await search.index([doc(n) for n in range(1500)])
    first = await search.query("acc_a", parse("word"), limit=1000)
    assert (len(first.emails), first.total) == (1000, None), "so many are not counted"
    second = await search.query("acc_a", parse("word"), limit=1000, before=first.next)
    assert (len(second.emails), second.next) == (500, None)
    assert [*first.emails, *second.emails] == [f"eml_{n:08d}" for n in range(1499, -1, -1)]


# Answers line by line.


async def test_one_that_is_never_taken_does_not_keep_the_others_back(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(prepared: Prepared) -> bulk.Item:
        item = creation(prepared)
        return (
            bulk.Item(item.account, item.email, item.lines.replace(b'"body":', b'"other":', 1))
            if prepared[0].email.endswith("5")
            else item
        )

    creation = bulk.creation
    monkeypatch.setattr(bulk, "creation", poisoned)
    with structlog.testing.capture_logs() as told:
        assert await search.index([doc(n) for n in range(10)]) == 9
    (line,) = [each for each in told if each["event"] == "message_not_indexed"]
    assert (line["account"], line["email"]) == ("acc_a", "eml_00000005")
    assert "strict" in line["reason"]
    assert await found(search) == [9, 8, 7, 6, 4, 3, 2, 1, 0]


async def test_lines_that_were_too_many_are_sent_again_alone(through: Search, before: Front) -> None:
    answered: list[int] = []

    def busy(body: bytes) -> bytes:
        answered.append(body.count(b'"status"'))
        return body.replace(b'"status":201', b'"status":429', 3)

    before.rules.append(Rule(path="_bulk", change=busy, times=2))
    assert await through.index([doc(n) for n in range(20)]) >= 17  # those three were taken all the same
    assert answered == [20, 3]
    assert await found(through) == list(range(19, -1, -1))


async def test_a_busy_server_is_tried_again_and_then_given_up(through: Search, before: Front) -> None:
    before.rules.append(Rule(path="_bulk", status=429, times=2))
    assert await through.index([doc(1)]) == 1
    before.rules.append(Rule(path="_bulk", status=503, body=b'{"error":{"type":"x","reason":"overloaded"}}'))
    began = time.monotonic()
    with pytest.raises(errors.StorageUnavailable) as raised:
        await through.index([doc(2)])
    assert (raised.value.code, "overloaded" in raised.value.detail) == ("search_unavailable", True)
    assert time.monotonic() - began < 60
    before.rules.clear()
    assert await through.index([doc(2)]) == 1


async def test_a_request_that_is_too_large_is_divided(through: Search, before: Front) -> None:
    before.rules.append(Rule(path="_bulk", status=413, times=3))
    assert await through.index([doc(n) for n in range(8)]) == 8
    before.rules.append(Rule(path="_bulk", status=413))
    assert await through.index([doc(9)]) == 0
    before.rules.clear()
    assert await found(through) == list(range(7, -1, -1))


async def test_a_connection_that_breaks_is_made_again(through: Search, before: Front) -> None:
    for path in ("_bulk", "_refresh", "_search"):
        before.rules.append(Rule(path=path, cut=True, times=1))
    await through.index([doc(1)])
    assert await found(through) == [1]


async def test_connections_are_used_again(through: Search, before: Front) -> None:
    for n in range(30):
        await through.index([doc(n)])
        assert len(await found(through)) == n + 1
    assert before.connections == 1


async def test_one_refresh_serves_all_who_wait(through: Search, before: Front) -> None:
    await through.index([doc(0)])
    before.seen.clear()
    before.rules.append(Rule(path="_refresh", slow=0.2))
    assert sum(await asyncio.gather(*(through.index([doc(n)]) for n in range(1, 41)))) == 40
    assert sum("_refresh" in each for each in before.seen) <= 4
    assert len(await found(through)) == 41


async def test_a_slow_answer_is_waited_for_no_longer_than_a_query_may_take(
    through: Search, before: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    await through.index([doc(1)])
    monkeypatch.setattr(base, "SECONDS_AT_MOST", 0.5)
    before.rules.append(Rule(path="_search", slow=100))
    began = time.monotonic()
    with pytest.raises(errors.StorageUnavailable):
        await through.query("acc_a", parse("word"))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("answer", [b"", b"no json", b"{}", b'{"timed_out":true}', b"[1]"])
async def test_an_answer_of_no_use_is_search_that_is_away(through: Search, before: Front, answer: bytes) -> None:
    before.rules.append(Rule(path="_search", status=200, body=answer))
    with pytest.raises(errors.StorageUnavailable) as raised:
        await through.query("acc_a", parse("word"))
    assert raised.value.code == "search_unavailable"


async def test_no_secret_is_told(before: Front) -> None:
    url = before.url.replace("//", "//ann:s3cr%40t@") + "/test-secret"
    before.rules.append(Rule(status=401, body=b'{"error":{"type":"security","reason":"no"}}'))
    opened = await open_search(url)
    for attempt in (opened.ready(), opened.query("a", parse("word")), opened.index([doc(1)])):
        with pytest.raises(errors.StorageUnavailable) as raised:
            await attempt
        assert "401" in raised.value.detail
        assert "s3cr" not in raised.value.detail + str(raised.value) + repr(raised.value)
    assert "s3cr" not in repr(opened)
    await opened.close()
