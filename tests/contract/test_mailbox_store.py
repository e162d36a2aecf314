"""The stages store and index over real records: exactly once, in order, whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from posthouse import errors
from posthouse.directory.model import Account, AccountSettings
from posthouse.inbound.decision import Decision, Failed, Folders, Order, Parcel
from posthouse.inbound.filter.weigh import Judged
from posthouse.inbound.index import Index, Indexing, reindex
from posthouse.inbound.model import Arrival, Recipient, Verdict
from posthouse.inbound.notify import announce
from posthouse.inbound.store import Store
from posthouse.mail.parsed import Parsed
from posthouse.storage.bus.local import LocalBus
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job
from posthouse.storage.records.base import Tx
from posthouse.storage.search.fts5 import Fts5Search
from posthouse.storage.search.query import parse as parse_query
from tests.mailboxes import SMALL, House, letter

pytestmark = pytest.mark.usefixtures("checked")


class Judge:
    """Whatever says JUNK is junk."""

    def __init__(self) -> None:
        self.fault: Exception | None = None

    async def judge(
        self, batch: Sequence[tuple[Arrival, Parsed]], accounts: Mapping[int, AccountSettings]
    ) -> list[Judged]:
        if self.fault is not None:
            raise self.fault
        verdicts = [Verdict(6.0 if b"JUNK" in arrival.raw else 0.0, b"JUNK" in arrival.raw) for arrival, _ in batch]
        return [
            Judged(verdict, (verdict,) * len(arrival.recipients))
            for verdict, (arrival, _) in zip(verdicts, batch, strict=True)
        ]


class Stage:
    """The stage with a worker's part played by hand."""

    def __init__(self, house: House, **more: Any) -> None:
        self.house = house
        self.judge = Judge()
        self.released: list[str] = []
        self.store = Store(
            house.records,
            house.contents,
            house.queue,
            self.judge,
            clock=house.clock,
            current=lambda job: job,
            release=lambda job: self.released.append(job.id),
            leases=asyncio.Lock(),
            tell=house.told.extend,
            indexing=Indexing(house.queue, clock=house.clock),
            **more,
        )

    async def claim(self, n: int = 100) -> list[Job]:
        return await self.house.queue.claim("store", 1, n, lease=60)

    async def drain(self) -> None:
        while jobs := await self.claim():
            await self.store(jobs)

    async def outcomes(self) -> list[tuple[str, Any]]:
        rows = await self.house.query("SELECT state, outcome FROM inbound_rcpt ORDER BY inbound_id, n")
        return [(state, outcome) for state, outcome in rows]


@pytest.fixture
async def ann(house: House) -> House:
    await house.account()
    await house.account(2)
    return house


async def test_what_was_accepted_is_stored_in_order(ann: House) -> None:
    stage = Stage(ann)
    names = await ann.accept(letter(1), letter(2, answers=1, subject="Re: Hello"), letter(3, subject="JUNK"))
    await stage.drain()
    assert stage.released == names
    boxes = await ann.boxes()
    assert (boxes["inbox"].total, boxes["inbox"].threads, boxes["junk"].total) == (2, 1, 1)
    email = await ann.reading.email(1, 1)
    assert (email.inbound_id, email.trace) == (names[0], b"Received: by us\r\n")
    assert email.verdict is not None
    assert await ann.reading.raw(1, 1) == (b"Received: by us\r\n", letter(1))
    states = await stage.outcomes()
    assert [state for state, _ in states] == ["stored"] * 3
    assert '"email":2' in states[1][1]
    assert "Inbox" in states[1][1]
    assert await ann.query("SELECT count(*) FROM inbound WHERE verdict IS NULL") == [(0,)]
    assert await ann.query("SELECT count(*) FROM job WHERE stage = 'store'") == [(0,)]
    assert {touched.account for touched in ann.told} == {1}


async def test_several_recipients_share_the_octets(ann: House) -> None:
    stage = Stage(ann)
    raw = letter(1, body="x" * SMALL)
    await ann.accept(raw, to=(1, 2, 1))
    await stage.drain()
    assert await ann.query("SELECT refs FROM content") == [(3,)]
    assert [await ann.lines(1, account) for account in (1, 2)] == [[2, 1], [1]]
    assert (await ann.reading.raw(2, 1))[1] == raw


async def test_a_job_that_comes_twice_stores_once(ann: House) -> None:
    stage = Stage(ann)
    (name,) = await ann.accept(letter(1))
    jobs = await stage.claim()
    await stage.store(jobs)
    await stage.store(jobs)
    await ann.queue.put([Job("store", 1, "ten_1", ann.clock(), name)])
    await stage.drain()
    assert await ann.lines(1) == [1]
    assert await ann.query("SELECT count(*) FROM job WHERE stage = 'store'") == [(0,)]


async def test_a_lost_lease_stores_nothing_and_hurts_no_other(ann: House) -> None:
    stage = Stage(ann)
    names = await ann.accept(letter(1), letter(2, subject="B"), letter(3, subject="C"))
    jobs = await stage.claim()
    ann.clock.advance(120)
    (taken,) = await ann.queue.claim("store", 1, 1, lease=60)
    assert taken.id == names[0]
    await stage.store(jobs)
    assert sorted(stage.released) == names
    assert await ann.lines(1) == [2, 1]
    assert [state for state, _ in await stage.outcomes()] == ["accepted", "stored", "stored"]
    await stage.store([taken])
    assert len(await ann.lines(1)) == 3


async def test_an_account_that_went_fails_its_recipient_only(ann: House) -> None:
    stage = Stage(ann)
    await ann.accept(letter(1), to=(1, 77, 2))
    jobs = await stage.claim()
    await stage.store(jobs)
    states = await stage.outcomes()
    assert [state for state, _ in states] == ["stored", "failed", "stored"]
    assert "removed" in states[1][1]


async def test_an_account_that_goes_meanwhile_fails_its_recipient(ann: House) -> None:
    await ann.accept(letter(1), to=(2, 1))

    class Removes(Judge):
        async def judge(self, batch: Any, accounts: Any) -> list[Judged]:
            assert 2 in accounts
            await ann.mailboxes.remove_account(2)
            return await super().judge(batch, accounts)

    stage = Stage(ann)
    stage.store._judge = Removes()  # type: ignore[attr-defined]
    await stage.drain()
    assert [state for state, _ in await stage.outcomes()] == ["failed", "stored"]


async def test_a_fault_leaves_everything_as_it_was(ann: House) -> None:
    stage = Stage(ann)
    await ann.accept(letter(1))
    jobs = await stage.claim()
    stage.judge.fault = errors.Unavailable()
    with pytest.raises(errors.Unavailable):
        await stage.store(jobs)
    assert (stage.released, await ann.lines(1)) == ([], [])
    stage.judge.fault = None
    await stage.store(jobs)
    assert await ann.lines(1) == [1]


async def test_lost_octets_are_set_aside_for_people(ann: House) -> None:
    names = await ann.accept(letter(1), letter(2))
    ann.contents = Contents(ann.records, ann.blobs, small=SMALL, clock=ann.clock)  # remembers nothing
    stage = Stage(ann)
    keep = await ann.query(
        "SELECT key, data FROM content WHERE key = (SELECT content FROM inbound WHERE id = $1)", names[0]
    )
    await ann.execute(f"DELETE FROM content WHERE key = '{keep[0][0]}'")
    await stage.drain()
    (buried,) = await ann.queue.buried()
    assert (buried.id, buried.reason) == (names[0], "the message's octets are not there")
    assert await ann.lines(1) == [1]
    content = await ann.contents.put(letter(1))
    await ann.records.write(lambda tx: ann.contents.keep(tx, [(content, 1)]))
    await ann.queue.put_back([names[0]])
    await stage.drain()
    assert await ann.lines(1) == [1, 2]


async def test_batches_of_one_account_are_written_as_they_were_claimed(ann: House) -> None:
    slow = asyncio.Event()

    class Slow(Judge):
        async def judge(self, batch: Any, accounts: Any) -> list[Judged]:
            if b"slow" in batch[0][0].raw:
                await slow.wait()
            return await super().judge(batch, accounts)

    stage = Stage(ann)
    stage.store._judge = Slow()  # type: ignore[attr-defined]
    await ann.accept(letter(1, body="slow"), letter(2, subject="B"), letter(3, subject="C"))
    tasks = [asyncio.create_task(stage.store(await stage.claim(1))) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert await ann.lines(1) == []
    slow.set()
    await asyncio.gather(*tasks)
    assert await ann.lines(1) == [3, 2, 1]


async def test_a_batch_that_fails_lets_those_behind_it_through(ann: House) -> None:
    class Fails(Judge):
        async def judge(self, batch: Any, accounts: Any) -> list[Judged]:
            if b"bad" in batch[0][0].raw:
                raise ValueError("our own mistake")
            return await super().judge(batch, accounts)

    stage = Stage(ann)
    stage.store._judge = Fails()  # type: ignore[attr-defined]
    await ann.accept(letter(1, body="bad"), letter(2, subject="B"))
    bad, good = [asyncio.create_task(stage.store(await stage.claim(1))) for _ in range(2)]
    await good
    with pytest.raises(ValueError, match="our own"):
        await bad
    assert await ann.lines(1) == [1]


class Sends:
    """The sending flow's door: notes what goes through it."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.sent: list[str] = []
        self.told: list[Failed] = []

    async def prepare(self, orders: Sequence[Order]) -> list[Parcel]:
        self.orders.extend(orders)
        return [Parcel(f"{order.kind} to {' '.join(order.to)}") for order in orders]

    async def send(self, tx: Tx, parcels: Sequence[Parcel]) -> list[str]:
        await tx.row("SELECT 1")
        self.sent.extend(parcel.said for parcel in parcels)
        return [parcel.said for parcel in parcels]

    async def tell(self, tx: Tx, failed: Sequence[Failed]) -> list[str]:
        await tx.row("SELECT 1")
        self.told.extend(failed)
        return ["told" for _ in failed]

    def wake(self) -> None: ...


async def test_people_decide_where_it_goes_and_who_gets_a_copy(ann: House) -> None:
    sender = Sends()

    def decide(
        _arrival: Arrival, parsed: Parsed, _recipient: Recipient, _account: Account, _verdict: Verdict, _: Folders
    ) -> Decision:
        match parsed.subject:
            case "drop":
                return Decision((), reasons=("Your rule drops it.",))
            case "on":
                return Decision((), forwards=("eve@example.net",))
            case _:
                return Decision(("archive",), ("$flagged", "$seen"), ("eve@example.net",), answer=True)

    stage = Stage(ann, decide=decide, sender=sender)
    await ann.accept(letter(1, subject="drop"), letter(2, subject="on"), letter(3, subject="both"))
    await stage.drain()
    assert [state for state, _ in await stage.outcomes()] == ["discarded", "forwarded", "stored"]
    assert [(order.kind, order.to) for order in sender.orders] == [
        ("forward", ("eve@example.net",)),
        ("forward", ("eve@example.net",)),
        ("answer", ("bob@example.org",)),
    ]
    assert sender.sent == ["forward to eve@example.net", "forward to eve@example.net", "answer to bob@example.org"]
    boxes = await ann.boxes()
    assert (boxes["archive"].total, boxes["archive"].unread, boxes["inbox"].total) == (1, 0, 0)
    assert await ann.query("SELECT count(*) FROM content WHERE refs = 0") == [(2,)]


@pytest.mark.parametrize(("send", "state"), [(True, "forwarded"), (False, "failed")])
async def test_a_recipient_elsewhere_is_forwarded_or_fails(ann: House, send: bool, state: str) -> None:
    sender = Sends()
    stage = Stage(ann, sender=sender if send else None)
    await ann.accept(letter(1), to=(0,))
    await ann.execute('UPDATE inbound_rcpt SET via = \'{"forward": "eve@example.net"}\'')
    await stage.drain()
    assert [found for found, _ in await stage.outcomes()] == [state]
    assert [order.to for order in sender.orders] == ([("eve@example.net",)] if send else [])


async def test_a_large_batch_takes_a_constant_number_of_statements(ann: House) -> None:
    for number in range(3, 43):
        await ann.account(number)
    counts: list[int] = []
    write = ann.records.write

    async def counted(work: Callable[[Tx], Awaitable[Any]], *, durable: bool = True) -> Any:
        async def wrapped(tx: Tx) -> Any:
            return await work(Counting(tx, counts))  # type: ignore[arg-type]

        return await write(wrapped, durable=durable)

    stage = Stage(ann)
    for size in (4, 80):
        for n in range(size):
            await ann.accept(letter(1000 * size + n, subject=f"S{size}{n}"), to=(n % 40 + 1,))
        jobs = await stage.claim()
        counts.append(0)
        stage.store._records = type("Records", (), {"write": staticmethod(counted), "read": ann.records.read})()  # type: ignore[attr-defined]
        await stage.store(jobs)
    small, large = counts
    assert small == large <= 25


class Counting:
    """A transaction that counts its statements."""

    def __init__(self, tx: Tx, counts: list[int]) -> None:
        self._tx = tx
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        self._counts[-1] += 1
        return getattr(self._tx, name)


async def test_changes_are_announced_on_the_bus(ann: House) -> None:
    bus = LocalBus()
    stage = Stage(ann)
    stage.store._tell = announce(bus)  # type: ignore[attr-defined]
    await ann.accept(letter(1))
    async with bus.subscribe(["1"]) as changes:
        await stage.drain()
        change = await asyncio.wait_for(anext(changes), 5)
    assert (change.account, change.kinds, change.mailboxes) == ("1", ("email", "mailbox", "thread"), ("1",))
    assert change.modseq == await ann.reading.modseq(1)
    await bus.close()


# -- the index ----------------------------------------------------------------------------------


class Indexer:
    def __init__(self, house: House, search: Fts5Search) -> None:
        self.house = house
        self.search = search
        self.stage = Index(
            house.records,
            house.contents,
            house.queue,
            search,
            clock=house.clock,
            current=lambda job: job,
            release=lambda _job: None,
            leases=asyncio.Lock(),
        )

    async def drain(self) -> None:
        for lane in (1, 2):
            while jobs := await self.house.queue.claim("index", lane, 10, lease=60):
                await self.stage(jobs)

    async def find(self, words: str, account: int = 1) -> list[int]:
        query = parse_query(words)
        page = await self.search.query(str(account), getattr(query, "query", query))
        return [int(email) for email in page.emails]


@pytest.fixture
async def indexer(ann: House, tmp_path: Path) -> Any:
    search = await Fts5Search.open(tmp_path / "search.db")
    yield Indexer(ann, search)
    await search.close()


async def test_what_is_stored_is_found_by_its_words(ann: House, indexer: Indexer) -> None:
    stage = Stage(ann)
    await ann.accept(letter(1, body="A pelican flew by."), letter(2, subject="Heron"), to=(1, 2))
    await stage.drain()
    await indexer.drain()
    assert await indexer.find("pelican") == [1]
    assert await indexer.find("heron", 2) == [2]
    assert sorted(await indexer.find("from:bob")) == [1, 2]
    assert await ann.query("SELECT count(*) FROM job") == [(0,)]


async def test_what_was_removed_is_not_found(ann: House, indexer: Indexer) -> None:
    mailboxes = ann.mailboxes
    mailboxes._indexing = Indexing(ann.queue, clock=ann.clock)  # type: ignore[attr-defined]
    await ann.append(letter(1, body="A pelican flew by."), letter(2, body="Two pelican."))
    await mailboxes.destroy(1, [2])
    await indexer.drain()
    assert await indexer.find("pelican") == [1]


async def test_while_the_index_is_away_its_jobs_wait(ann: House, indexer: Indexer) -> None:
    stage = Stage(ann)
    await ann.accept(letter(1, body="A pelican flew by."))
    await stage.drain()
    await indexer.search.close()
    jobs = await ann.queue.claim("index", 1, 10, lease=60)
    with pytest.raises(errors.Unavailable):
        await indexer.stage(jobs)
    assert await ann.lines(1) == [1]
    assert await ann.query("SELECT count(*) FROM job WHERE stage = 'index'") == [(1,)]


async def test_the_index_is_made_again_from_what_is_stored(ann: House, indexer: Indexer) -> None:
    await ann.append(*(letter(n, body=f"Bird {n} pelican") for n in range(7)))
    await ann.append(letter(9, body="pelican"), account=2)
    indexing = Indexing(ann.queue, clock=ann.clock)
    woken: list[int] = []
    assert await reindex(ann.records, indexing, indexer.search, wake=lambda: woken.append(1)) == 8
    await indexer.drain()
    ann.clock.advance(10)
    await indexer.drain()
    assert len(await indexer.find("pelican")) == 7
    assert len(await indexer.find("pelican", 2)) == 1
    assert (await indexer.search.size()).needs_rebuild is None
    assert woken
    assert await reindex(ann.records, indexing, indexer.search, account=2, wake=lambda: None) == 1
    await indexer.drain()
    assert len(await indexer.find("pelican", 2)) == 1


async def test_two_rebuilds_at_once_end_both(ann: House, indexer: Indexer) -> None:
    """Their last jobs are taken apart, by two workers, and neither waits for the other for ever."""
    indexing = Indexing(ann.queue, clock=ann.clock)
    for _ in range(2):
        await reindex(ann.records, indexing, indexer.search, wake=lambda: None)
        ann.clock.advance(3)
    for job in await ann.queue.claim("index", 2, 10, lease=60):
        await indexer.stage([job])
        ann.clock.advance(1)
    for _ in range(4):
        assert (await indexer.search.size()).needs_rebuild == "rebuilding" or not await _left(ann)
        ann.clock.advance(6)
        await indexer.drain()
    assert await _left(ann) == 0
    assert (await indexer.search.size()).needs_rebuild is None


async def _left(house: House) -> int:
    return sum(depth.ready + depth.delayed for depth in await house.queue.depths() if depth.stage == "index")


async def test_what_is_ready_while_others_are_written_shares_a_transaction(ann: House) -> None:
    stage = Stage(ann)
    steps: list[int] = []
    step = stage.store._step  # type: ignore[attr-defined]
    begun, held = asyncio.Event(), asyncio.Event()

    async def counted(ready: Sequence[Any]) -> None:
        steps.append(len(ready))
        begun.set()
        await held.wait()
        await step(ready)

    stage.store._step = counted  # type: ignore[attr-defined, method-assign]
    await ann.accept(*(letter(n, subject=f"S{n}") for n in range(6)))
    claims = [await stage.claim(1) for _ in range(6)]
    first = asyncio.create_task(stage.store(claims[0]))
    async with asyncio.timeout(30):
        await begun.wait()
        others = [asyncio.create_task(stage.store(claim)) for claim in claims[1:]]
        while len(stage.store._together._waiting) < len(others):  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        held.set()
        await asyncio.gather(first, *others)
    assert steps == [1, 5]
    assert len(await ann.lines(1)) == 6
