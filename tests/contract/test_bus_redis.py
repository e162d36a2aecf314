"""The bus between processes, and with a Redis that is stopped, wiped or hung."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence

import pytest

from posthouse.errors import Misconfigured, StorageUnavailable
from posthouse.storage.bus import redis as redis_bus
from posthouse.storage.bus.base import ALL, Change
from posthouse.storage.bus.factory import Shared, open_shared
from tests.contract.redis_house import OwnRedis, until


class Truth:
    """The accounts' modseqs, as the records have them."""

    def __init__(self) -> None:
        self.modseqs: dict[str, int] = {}
        self.away = False
        self.asked: list[int] = []

    async def __call__(self, accounts: Sequence[str]) -> dict[str, int]:
        self.asked.append(len(accounts))
        if self.away:
            raise StorageUnavailable
        return {one: self.modseqs[one] for one in accounts if one in self.modseqs}


class Ear:
    """Takes whatever comes for some accounts."""

    def __init__(self, shared: Shared, accounts: Sequence[str]) -> None:
        self.got: list[Change] = []
        self.entered = asyncio.Event()
        self._task = asyncio.ensure_future(self._follow(shared, accounts))

    async def _follow(self, shared: Shared, accounts: Sequence[str]) -> None:
        async with shared.bus.subscribe(accounts) as changes:
            self.entered.set()
            async for change in changes:
                self.got.append(change)

    def modseq(self, account: str) -> int:
        return max((one.modseq for one in self.got if one.account == account), default=0)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def ear(stack: contextlib.AsyncExitStack, shared: Shared, accounts: Sequence[str]) -> Ear:
    made = Ear(shared, accounts)
    stack.push_async_callback(made.close)
    await made.entered.wait()
    return made


async def process(stack: contextlib.AsyncExitStack, url: str, truth: Truth | None = None) -> Shared:
    shared = await open_shared(url, states=truth, poll=0.1)
    stack.push_async_callback(shared.close)
    return shared


async def test_a_change_goes_from_one_process_to_another_and_comes_once(
    stack: contextlib.AsyncExitStack, redis_url: str
) -> None:
    one, other = await process(stack, redis_url), await process(stack, redis_url)
    here, there = await ear(stack, one, ["7"]), await ear(stack, other, ["7", "8"])
    change = Change("7", 3, ("email",), ("1", "2"))
    one.bus.publish([change, Change("9", 1)])
    await until(lambda: there.got == [change])
    other.bus.publish([Change("8", 1)])
    await until(lambda: len(there.got) == 2)
    await asyncio.sleep(0.05)
    assert here.got == [change]
    assert there.got == [change, Change("8", 1)]


async def test_namespaces_do_not_hear_each_other(
    stack: contextlib.AsyncExitStack, redis_url: str, redis_server: str
) -> None:
    one, other = (
        await process(stack, redis_url),
        await process(stack, f"{redis_server}?namespace=other-{secrets.token_hex(4)}"),
    )
    there = await ear(stack, other, ["7"])
    one.bus.publish([Change("7", 1)])
    await asyncio.sleep(0.1)
    assert there.got == []


async def test_who_left_hears_nothing_and_may_come_again(stack: contextlib.AsyncExitStack, redis_url: str) -> None:
    one, other = await process(stack, redis_url), await process(stack, redis_url)
    for modseq in range(1, 30):
        async with other.bus.subscribe(["7"]) as changes:
            one.bus.publish([Change("7", modseq)])
            async with asyncio.timeout(30):
                assert (await anext(changes)).modseq == modseq


async def test_many_changes_are_merged_on_the_way_and_the_last_one_comes(
    stack: contextlib.AsyncExitStack, redis_url: str
) -> None:
    one, other = await process(stack, redis_url), await process(stack, redis_url)
    there = await ear(stack, other, [str(n) for n in range(2000)])
    for modseq in range(1, 51):
        one.bus.publish([Change(str(n), modseq) for n in range(2000)])
    await until(lambda: all(there.modseq(str(n)) == 50 for n in (0, 999, 1999)))
    assert len(there.got) < 2 * 2000


async def test_caches_of_other_processes_are_told_soon(stack: contextlib.AsyncExitStack, redis_url: str) -> None:
    one, other = await process(stack, redis_url), await process(stack, redis_url)
    told: list[str] = []
    other.bus.listen("keys", told.append)
    one.bus.invalidate("keys", "a")
    assert await until(lambda: told == ["a"]) < 1.0
    for _ in range(1000):
        one.bus.invalidate("keys", "b")
    await until(lambda: len(told) > 1)
    await asyncio.sleep(0.15)
    assert 2 <= len(told) <= 4, "a mass of changes is few messages"
    for n in range(5000):
        one.bus.invalidate("keys", str(n))
    await until(lambda: "" in told or "4999" in told)


async def test_redis_stopped_is_bridged_by_polling_and_comes_back(
    stack: contextlib.AsyncExitStack, own: OwnRedis
) -> None:
    truth = Truth()
    one, other = await process(stack, own.url), await process(stack, own.url, truth)
    there = await ear(stack, other, ["7", "8"])
    told: list[str] = []
    other.bus.listen("keys", told.append)
    truth.modseqs = {"7": 1, "8": 0}
    one.bus.publish([Change("7", 1, ("email",))])
    await until(lambda: there.modseq("7") == 1)

    await asyncio.to_thread(own.stop)
    truth.modseqs["7"] = 2
    one.bus.publish([Change("7", 2, ("email",))])
    await until(lambda: there.modseq("7") == 2)
    assert there.got[-1] == Change("7", 2, ALL, ALL)
    assert not other.connected()
    here = await ear(stack, other, ["9"])  # one who comes while it is away
    truth.modseqs["9"] = 5
    await until(lambda: here.modseq("9") == 5)
    one.bus.invalidate("keys", "x")

    await asyncio.to_thread(own.start)
    await until(lambda: one.connected() and other.connected())
    await until(lambda: "" in told)
    truth.modseqs["8"] = 4
    one.bus.publish([Change("8", 4, ("mailbox",))])
    await until(lambda: Change("8", 4, ("mailbox",)) in there.got or there.modseq("8") == 4)
    quiet = len(there.got)
    await asyncio.sleep(0.5)
    assert len(there.got) == quiet, "what was told is not told again"


async def test_what_was_missed_is_told_without_records_too(stack: contextlib.AsyncExitStack, own: OwnRedis) -> None:
    one = await process(stack, own.url)
    there = await ear(stack, one, ["7"])
    await asyncio.to_thread(own.stop)
    await until(lambda: not one.connected())
    assert there.got == []
    await asyncio.to_thread(own.start)
    await until(lambda: there.got == [Change("7", 0, ALL, ALL)])


async def test_records_away_at_the_same_time_are_asked_again(stack: contextlib.AsyncExitStack, own: OwnRedis) -> None:
    truth = Truth()
    truth.modseqs = {"7": 1}
    one = await process(stack, own.url, truth)
    there = await ear(stack, one, ["7"])
    truth.away = True
    await asyncio.to_thread(own.stop)
    await until(lambda: len(truth.asked) > 3)
    await asyncio.to_thread(own.start)
    await until(one.connected)
    truth.away = False
    await until(lambda: there.modseq("7") == 1)


async def test_a_hung_redis_is_away_and_holds_up_nobody(
    stack: contextlib.AsyncExitStack, own: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posthouse.storage.bus import redis_reader

    monkeypatch.setattr(redis_reader, "_SILENT", 0.6)
    monkeypatch.setattr(redis_reader, "_PING_EVERY", 0.2)
    truth = Truth()
    one = await process(stack, own.url, truth)
    there = await ear(stack, one, ["7"])
    own.hang()
    one.bus.publish([Change("6", 1)])
    await until(lambda: not one.connected())
    truth.modseqs = {"7": 3}
    await until(lambda: there.modseq("7") == 3)
    own.go_on()
    await until(one.connected)


async def test_a_wiped_redis_changes_nothing(stack: contextlib.AsyncExitStack, own: OwnRedis) -> None:
    one, other = await process(stack, own.url), await process(stack, own.url)
    there = await ear(stack, other, ["7"])
    own.command("FLUSHALL")
    own.command("SCRIPT", "FLUSH")
    one.bus.publish([Change("7", 1)])
    await until(lambda: there.got == [Change("7", 1)])


async def test_a_connection_that_the_server_ends_comes_back(stack: contextlib.AsyncExitStack, own: OwnRedis) -> None:
    truth = Truth()
    one, other = await process(stack, own.url), await process(stack, own.url, truth)
    there = await ear(stack, other, ["7"])
    for modseq in range(1, 6):
        truth.modseqs["7"] = modseq
        own.command("CLIENT", "KILL", "TYPE", "pubsub")
        own.command("CLIENT", "KILL", "TYPE", "normal")
        one.bus.publish([Change("7", modseq)])
        await until(lambda modseq=modseq: there.modseq("7") == modseq)


async def test_a_full_buffer_makes_the_others_look(
    stack: contextlib.AsyncExitStack, own: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_bus, "MOST_WAITING", 10)
    truth = Truth()
    one, other = await process(stack, own.url), await process(stack, own.url, truth)
    there = await ear(stack, other, ["7"])
    truth.modseqs = {"7": 6}
    one.bus.publish([Change(str(n), 6) for n in range(100)])
    await until(lambda: there.modseq("7") == 6)
    assert there.got == [Change("7", 6, ALL, ALL)]


async def test_a_start_without_redis(stack: contextlib.AsyncExitStack, own: OwnRedis) -> None:
    await asyncio.to_thread(own.stop)
    truth = Truth()
    one = await process(stack, own.url, truth)
    there = await ear(stack, one, ["7"])
    truth.modseqs = {"7": 1}
    await until(lambda: there.modseq("7") == 1)
    await asyncio.to_thread(own.start)
    await until(one.connected)


async def test_malformed_messages_are_ignored(stack: contextlib.AsyncExitStack, own: OwnRedis) -> None:
    one, other = await process(stack, own.url), await process(stack, own.url)
    there = await ear(stack, other, ["7"])
    for payload in ("", "x", "{}", '["a"]', '["a",1,2,3]', '["a","b"]'):
        own.command("PUBLISH", "posthouse:changes:7", payload)
        own.command("PUBLISH", "posthouse:notices", payload)
    one.bus.publish([Change("7", 1)])
    await until(lambda: there.got == [Change("7", 1)])


@pytest.mark.parametrize(
    "url", ["redis://h/0?what=1", "rediss://h:port/0", "kafka://h", "redis://h/0?namespace=a%20b", "redis://h/0?x"]
)
async def test_a_wrong_url_stops_the_start(url: str) -> None:
    with pytest.raises(Misconfigured):
        await open_shared(url)
