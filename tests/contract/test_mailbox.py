"""What people and programs do with mailboxes, on both engines; every invariant holds after each."""

from __future__ import annotations

import asyncio
import functools
import operator

import pytest

from posthouse import errors
from posthouse.mailbox import placing
from posthouse.mailbox.books import Books
from posthouse.mailbox.entries import Email
from posthouse.mailbox.model import Anchor, Change
from posthouse.storage.records.base import Tx
from tests.mailboxes import SMALL, House, letter

pytestmark = pytest.mark.usefixtures("checked")


@pytest.fixture
async def ann(house: House) -> House:
    """One account."""
    await house.account()
    return house


async def test_an_account_begins_with_its_mailboxes(ann: House) -> None:
    boxes = await ann.reading.mailboxes(1)
    assert [box.role for box in boxes] == ["inbox", "drafts", "sent", "archive", "junk", "trash"]
    assert len({box.uidvalidity for box in boxes}) == 6
    assert {box.total for box in boxes} == {0}


async def test_what_is_appended_is_listed_newest_first(ann: House) -> None:
    await ann.append(letter(1), letter(2, subject="Other"), letter(3, answers=1, subject="Re: Hello"))
    inbox = (await ann.boxes())["inbox"]
    assert (inbox.total, inbox.unread, inbox.threads, inbox.unread_threads, inbox.uidnext) == (3, 3, 2, 2, 4)
    assert await ann.lines(inbox.id) == [3, 2, 1]
    page = await ann.reading.page(1, inbox.id, threads=True)
    assert [(line.id, line.emails, line.unread) for line in page.lines] == [(3, 2, 2), (2, 1, 1)]
    assert (page.total, page.next) == (2, None)
    assert page.lines[0].sender[0].address == "bob@example.org"


@pytest.mark.parametrize("threads", [False, True])
async def test_pages_follow_each_other_by_position_and_by_anchor(ann: House, threads: bool) -> None:
    at = ann.clock()
    await ann.mailboxes.append(
        1, [await ann.prepare(letter(n, subject=f"S{n}"), received_at=at + n // 3) for n in range(1, 12)]
    )
    every = await ann.lines(1, limit=50, threads=threads)
    assert every == list(range(11, 0, -1))
    by_position = [await ann.lines(1, limit=4, position=p, threads=threads) for p in (0, 4, 8)]
    assert functools.reduce(operator.iadd, by_position, []) == every
    walked: list[int] = []
    after: Anchor | None = None
    while True:
        page = await ann.reading.page(1, 1, limit=4, after=after, threads=threads)
        walked += [line.id for line in page.lines]
        after = page.next
        if after is None:
            break
    assert walked == every


async def test_raw_octets_and_parts_come_back_byte_for_byte(ann: House) -> None:
    small, large = letter(1, body="Zwölf"), letter(2, body="x" * (SMALL + 10))
    await ann.append(small, large)
    for number, raw in ((1, small), (2, large)):
        assert await ann.reading.raw(1, number) == (b"", raw)
        part, body = await ann.reading.part(1, number, "1")
        assert body == raw[part.body :] == raw[raw.index(b"\r\n\r\n") + 4 :]
        _, some = await ann.reading.part(1, number, "1", start=3, length=5)
        assert some == body[3:8]
        assert (await ann.reading.part(1, number, "1", start=10**9))[1] == b""
        assert await ann.reading.raw_range(1, number, 5, 7) == raw[5:12]
    with pytest.raises(errors.NotFound, match="part"):
        await ann.reading.part(1, 1, "7.7")
    with pytest.raises(errors.NotFound):
        await ann.reading.raw(1, 99)


async def test_reading_one_counts_everywhere_it_lies(ann: House) -> None:
    await ann.append(letter(1), letter(2, answers=1, subject="Re: Hello"))
    await ann.mailboxes.set_mailboxes(1, [1], add=["archive"])
    done = await ann.mailboxes.set_keywords(1, [1, 99], add=["$Seen", "$flagged"])
    assert done.missing == (99,)
    boxes = await ann.boxes()
    assert [(boxes[b].total, boxes[b].unread, boxes[b].unread_threads) for b in ("inbox", "archive")] == [
        (2, 1, 1),
        (1, 0, 1),
    ]
    await ann.mailboxes.set_keywords(1, [2], add=["$seen"])
    boxes = await ann.boxes()
    assert [(boxes[b].unread, boxes[b].unread_threads) for b in ("inbox", "archive")] == [(0, 0), (0, 0)]
    await ann.mailboxes.set_keywords(1, [2], remove=["$seen"])
    assert (await ann.boxes())["archive"].unread_threads == 1
    email = await ann.reading.email(1, 1)
    assert email.keywords == ("$flagged", "$seen")
    assert sorted(mailbox for mailbox, _ in email.mailboxes) == [1, 4]


async def test_nothing_changes_when_nothing_is_to_change(ann: House) -> None:
    await ann.append(letter(1))
    before = await ann.reading.modseq(1)
    ann.told.clear()
    assert (await ann.mailboxes.set_keywords(1, [1], remove=["$seen"])).modseq == before
    assert (await ann.mailboxes.set_mailboxes(1, [1], add=["inbox"])).modseq == before
    assert await ann.reading.modseq(1) == before
    assert ann.told == []


async def test_moving_gives_a_new_uid_and_expunges_the_old(ann: House) -> None:
    await ann.append(letter(1))
    since = await ann.reading.modseq(1)
    await ann.mailboxes.move(1, [1], "archive")
    await ann.mailboxes.move(1, [1], "inbox")
    email = await ann.reading.email(1, 1)
    assert email.mailboxes == ((1, 2),)
    assert await ann.reading.mailbox_changes(1, 1, since) == ([(2, 1)], [1])
    assert await ann.reading.mailbox_changes(1, 4, since) == ([], [1])


async def test_destroying_the_newest_of_a_thread_shows_the_one_before(ann: House) -> None:
    first, second = (await ann.append(letter(1), letter(2, answers=1, subject="Re: Hello")))[:2]
    assert first.thread == second.thread
    await ann.mailboxes.destroy(1, [second.email])
    (line,) = (await ann.reading.page(1, 1, threads=True)).lines
    assert (line.id, line.emails) == (first.email, 1)
    (thread,) = await ann.reading.threads(1, [first.thread])
    assert thread.members == (first.email,)
    await ann.mailboxes.destroy(1, [first.email])
    assert await ann.reading.threads(1, [first.thread]) == []
    assert (await ann.boxes())["inbox"].total == 0
    assert await ann.query("SELECT emails, used FROM account") == [(0, 0)]


async def test_the_same_octets_are_kept_once_and_released_by_the_last(ann: House) -> None:
    await ann.account(2)
    raw = letter(1)
    await ann.append(raw, raw)
    await ann.append(raw, account=2)
    assert await ann.query("SELECT refs FROM content") == [(3,)]
    await ann.mailboxes.destroy(1, [1, 2])
    await ann.mailboxes.destroy(2, [1])
    assert await ann.query("SELECT refs FROM content") == [(0,)]
    ann.clock.advance(3601)
    await ann.contents.collect()
    assert await ann.query("SELECT refs FROM content") == []


async def test_two_messages_with_one_id_are_both_kept(ann: House) -> None:
    await ann.append(letter(1), letter(1, body="Another text."))
    assert len(await ann.lines(1)) == 2
    assert len((await ann.reading.page(1, 1, threads=True)).lines) == 1


async def test_a_missing_link_joins_two_threads(ann: House) -> None:
    one, two = await ann.append(letter(1, subject="Plan", year=2020), letter(3, answers=2, subject="Re: Plan"))
    assert one.thread != two.thread
    await ann.mailboxes.set_keywords(1, [one.email], add=["$seen"])
    since = await ann.reading.modseq(1)
    (link,) = await ann.append(letter(2, answers=1, subject="Re: Plan"))
    assert link.thread == one.thread
    (thread,) = await ann.reading.threads(1, [one.thread, two.thread])
    assert thread.members == (1, 2, 3)
    inbox = (await ann.boxes())["inbox"]
    assert (inbox.threads, inbox.unread_threads, inbox.unread) == (1, 1, 2)
    changed = {(change.kind, change.id, change.op) for change in (await ann.reading.changes(1, since)).changes}
    assert {("thread", two.thread, "destroyed"), ("email", two.email, "updated")} <= changed


async def test_a_link_within_the_same_batch_joins_them_too(ann: House) -> None:
    first = letter(1, subject="Plan", year=2020)
    told = await ann.append(first, letter(3, answers=2, subject="Re: Plan"), letter(2, answers=1, subject="Re: Plan"))
    assert {one.thread for one in told} == {1}
    assert await ann.query("SELECT DISTINCT thread FROM email") == [(1,)]


async def test_people_split_and_merge_and_it_stays_so(ann: House) -> None:
    await ann.append(letter(1), letter(2, answers=1, subject="Re: Hello"), letter(3, subject="Other"))
    new = await ann.mailboxes.split(1, [2])
    assert new not in {1, 2}
    assert [t.members for t in await ann.reading.threads(1, [1, new])] == [(1,), (2,)]
    (answer,) = await ann.append(letter(4, answers=2, subject="Re: Hello"))
    assert answer.thread == new
    merged = await ann.mailboxes.merge(1, [1, (await ann.reading.email(1, 3)).thread])
    assert merged == 1
    assert [t.members for t in await ann.reading.threads(1, [1])] == [(1, 3)]
    with pytest.raises(errors.NotFound):
        await ann.mailboxes.merge(1, [1, 99])
    with pytest.raises(errors.NotFound):
        await ann.mailboxes.split(1, [99])


async def test_a_large_thread_is_not_made_anew_for_each_delivery(ann: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A split by hand makes every later mail of its thread a case for a review."""
    await ann.append(letter(1), letter(2, answers=1, subject="Re: Hello"))
    new = await ann.mailboxes.split(1, [2])
    monkeypatch.setattr(placing, "MOST_REVIEWED", 5)
    loads: list[set[int]] = []
    load = Books.load_emails_of

    async def counted(self: Books, tx: Tx, account: int, threads: set[int]) -> list[Email]:
        loads.append(threads)
        return await load(self, tx, account, threads)

    monkeypatch.setattr(Books, "load_emails_of", counted)
    for n in range(3, 15):
        (told,) = await ann.append(letter(n, answers=n - 1 if n > 3 else 1, subject="Re: Hello"))
        assert told.thread == 1
    assert len(loads) == 5
    assert (await ann.reading.threads(1, [new]))[0].members == (2,)
    assert not await ann.wrong()


async def test_mailboxes_are_a_tree(ann: House) -> None:
    work = await ann.mailboxes.create_mailbox(1, "Work")
    deep = await ann.mailboxes.create_mailbox(1, "Reports", parent=work)
    for bad in ("", " x", "a/b", "a\nb", "x" * 256, "Inb\0x"):
        with pytest.raises(errors.Invalid):
            await ann.mailboxes.create_mailbox(1, bad)
    for taken in ("Work", "INBOX"):
        with pytest.raises(errors.Conflict) as raised:
            await ann.mailboxes.create_mailbox(1, taken)
        assert raised.value.code == "mailbox_exists"
    with pytest.raises(errors.Conflict) as raised:
        await ann.mailboxes.change_mailbox(1, work, parent=deep)
    assert raised.value.code == "mailbox_loop"
    with pytest.raises(errors.NotFound):
        await ann.mailboxes.create_mailbox(1, "Lost", parent=99)
    with pytest.raises(errors.Conflict):
        await ann.mailboxes.change_mailbox(1, 1, name="Mine")
    with pytest.raises(errors.Conflict) as raised:
        await ann.mailboxes.remove_mailbox(1, work)
    assert raised.value.code == "mailbox_has_children"
    with pytest.raises(errors.Conflict):
        await ann.mailboxes.remove_mailbox(1, 6)
    await ann.mailboxes.change_mailbox(1, deep, name="Reports 2", parent=0, sort_order=7, subscribed=False)
    box = (await ann.boxes())["Reports 2"]
    assert (box.parent, box.sort_order, box.subscribed) == (0, 7, False)
    old = (await ann.boxes())["Work"].uidvalidity
    await ann.mailboxes.remove_mailbox(1, work)
    await ann.mailboxes.create_mailbox(1, "Work")
    assert (await ann.boxes())["Work"].uidvalidity > old


async def test_mailboxes_are_nested_only_so_deep(ann: House) -> None:
    at = 0
    for n in range(20):
        at = await ann.mailboxes.create_mailbox(1, f"L{n}", parent=at)
    with pytest.raises(errors.Invalid) as raised:
        await ann.mailboxes.create_mailbox(1, "too deep", parent=at)
    assert raised.value.code == "mailbox_depth"


@pytest.mark.parametrize("how", ["trash", "destroy"])
async def test_removing_a_mailbox_with_emails(ann: House, how: str) -> None:
    box = await ann.mailboxes.create_mailbox(1, "Old")
    await ann.append(letter(1), letter(2), mailboxes=(box,))
    await ann.mailboxes.set_mailboxes(1, [2], add=["archive"])
    with pytest.raises(errors.Conflict) as raised:
        await ann.mailboxes.remove_mailbox(1, box)
    assert raised.value.code == "mailbox_has_emails"
    await ann.mailboxes.remove_mailbox(1, box, emails=how)  # type: ignore[arg-type]
    boxes = await ann.boxes()
    assert "Old" not in boxes
    assert boxes["archive"].total == 1
    assert boxes["trash"].total == (1 if how == "trash" else 0)


async def test_mail_for_a_mailbox_that_is_gone_goes_to_the_inbox(ann: House) -> None:
    (one,) = await ann.append(letter(1), mailboxes=(77, "nowhere"))
    assert one.names == ("Inbox",)


async def test_changes_are_told_since_a_state(ann: House) -> None:
    start = await ann.reading.modseq(1)
    await ann.append(letter(1))
    middle = await ann.reading.modseq(1)
    await ann.mailboxes.set_keywords(1, [1], add=["$seen"])
    end = await ann.reading.modseq(1)
    told = await ann.reading.changes(1, start)
    assert (told.until, told.more) == (end, False)
    assert {(c.kind, c.id, c.op) for c in told.changes} == {
        ("email", 1, "created"),
        ("thread", 1, "created"),
        ("mailbox", 1, "counts"),
    }
    assert Change(end, "email", 1, "updated") in (await ann.reading.changes(1, middle)).changes
    part = await ann.reading.changes(1, start, limit=3)
    assert (part.until, part.more) == (middle, True)
    assert (await ann.reading.changes(1, end)).changes == ()
    with pytest.raises(errors.Invalid) as raised:
        await ann.reading.changes(1, end + 1)
    assert raised.value.code == "changes_forgotten"
    await ann.mailboxes.destroy(1, [1])
    assert not any(c.kind == "email" for c in (await ann.reading.changes(1, start)).changes)


async def test_quotas_hold_for_what_people_put_there(ann: House) -> None:
    most = len(letter(1)) * 3 // 2
    await ann.account(2, quota=most)
    await ann.append(letter(1), account=2)
    with pytest.raises(errors.Limited) as raised:
        await ann.append(letter(2), account=2)
    assert raised.value.code == "over_quota"

    await ann.execute(
        "INSERT INTO mail_domain (name, tenant_id, settings, created_at)"
        f" VALUES ('example.com', 'ten_1', '{{\"quota_all\": {most}}}', 0)"
    )
    with pytest.raises(errors.Limited):
        await ann.append(letter(3), account=1)
    # What was acknowledged to a sender is stored, whatever the quota says now.
    one, content = await ann.prepare(letter(4), account=2)
    await ann.records.write(lambda tx: ann.contents.keep(tx, [(content, 0)]))
    assert (await ann.mailboxes.deliver([one]))[0] is not None


async def test_an_import_goes_on_where_it_stopped(ann: House) -> None:
    first = [await ann.prepare(letter(n)) for n in (1, 2)]
    second = [await ann.prepare(letter(n)) for n in (3, 4)]
    begin, end = [("mbox:a", 1), ("mbox:a", 2)], [("mbox:a", 3), ("mbox:a", 4)]
    assert None not in await ann.mailboxes.append(1, first, marks=begin)
    assert await ann.mailboxes.append(1, first, marks=begin) == [None, None]
    assert None not in await ann.mailboxes.append(1, second, marks=end)
    assert await ann.mailboxes.append(1, first, marks=begin) == [None, None]
    assert len(await ann.lines(1)) == 4


async def test_many_at_once_keep_all_counts(ann: House) -> None:
    for number in (2, 3):
        await ann.account(number)

    async def deliver(n: int) -> None:
        batch = [await ann.prepare(letter(100 * n + i, subject=f"S{i % 3}"), account=1 + (n + i) % 3) for i in range(6)]

        async def keep(tx: Tx) -> None:
            await ann.contents.keep(tx, [(content, 0) for _, content in batch])

        await ann.records.write(keep)
        await ann.mailboxes.deliver([one for one, _ in batch])

    async def read(n: int) -> None:
        await ann.mailboxes.set_keywords(1 + n % 3, list(range(1, 8)), add=["$seen"])
        await ann.mailboxes.move(1 + n % 3, [n % 5 + 1], "archive")

    await asyncio.gather(*(deliver(n) for n in range(8)), *(read(n) for n in range(8)))
    assert await ann.query("SELECT count(*) FROM membership WHERE mailbox IN (1, 4)") == [(48,)]


async def test_nothing_is_delivered_to_an_account_that_is_gone(ann: House) -> None:
    one, content = await ann.prepare(letter(1), account=9)
    await ann.records.write(lambda tx: ann.contents.keep(tx, [(content, 0)]))
    assert await ann.mailboxes.deliver([one]) == [None]
    with pytest.raises(errors.NotFound):
        await ann.mailboxes.set_keywords(9, [1], add=["$seen"])


async def test_an_account_goes_with_everything(ann: House) -> None:
    await ann.account(2)
    shared = letter(1)
    await ann.append(shared, letter(2, body="x" * SMALL))
    await ann.append(shared, account=2)
    await ann.mailboxes.set_keywords(1, [1], add=["$flagged"])
    await ann.mailboxes.split(1, [1])
    await ann.mailboxes.remove_account(1)
    await ann.mailboxes.remove_account(1)
    for table in ("email", "membership", "mailbox", "thread", "thread_mailbox", "thread_key", "keyword", "change"):
        assert await ann.query(f"SELECT count(*) FROM {table} WHERE account = 1") == [(0,)]
    assert await ann.query("SELECT number FROM account") == [(2,)]
    assert await ann.lines(1, 2) == [1]
    ann.clock.advance(3601)
    await ann.contents.collect()
    assert len(await ann.query("SELECT key FROM content WHERE removed_at IS NULL")) == 1


@pytest.mark.parametrize("bad", ["", "a b", "(x)", 'a"b', "x" * 256, "ä", "a\\b", "%"])
async def test_what_is_no_keyword(ann: House, bad: str) -> None:
    with pytest.raises(errors.Invalid):
        await ann.mailboxes.set_keywords(1, [1], add=[bad])


async def test_too_much_at_once_is_refused(ann: House) -> None:
    await ann.append(letter(1))
    with pytest.raises(errors.TooLarge):
        await ann.mailboxes.set_keywords(1, list(range(1001)), add=["x"])
    with pytest.raises(errors.TooLarge):
        await ann.mailboxes.set_keywords(1, [1], add=[f"k{n}" for n in range(65)])
    await ann.mailboxes.set_keywords(1, [1], add=[f"k{n}" for n in range(40)])
    with pytest.raises(errors.TooLarge):
        await ann.mailboxes.set_keywords(1, [1], add=[f"q{n}" for n in range(40)])
    with pytest.raises(errors.Invalid):
        await ann.reading.page(1, 1, limit=501)
    with pytest.raises(errors.NotFound):
        await ann.reading.page(1, 99)


async def test_whom_an_account_writes_to_is_remembered(ann: House) -> None:
    head = (
        b"From: ann@example.com\r\nTo: Bob <Bob@Example.ORG>, nobody\r\nCc: eve@example.net\r\nSubject: x\r\n\r\nhi\r\n"
    )
    await ann.append(letter(1))
    assert await ann.query("SELECT address FROM correspondent") == []
    await ann.append(head, mailboxes=("sent",), received_at=5)
    sent = (await ann.boxes())["sent"].id
    await ann.append(head.replace(b"eve", b"dan"), mailboxes=(sent,), received_at=9)
    await ann.append(head, mailboxes=("sent",), received_at=7)
    assert sorted(await ann.query("SELECT address, last_at FROM correspondent WHERE account = 1")) == [
        ("bob@example.org", 9),
        ("dan@example.net", 9),
        ("eve@example.net", 7),
    ]
