"""Each invariant broken on purpose: found, told, and mended where it can be."""

from __future__ import annotations

import pytest

from posthouse.mailbox.invariants import EVERY
from posthouse.mailbox.mend import Mend
from posthouse.storage.blobs.base import key_of
from posthouse.storage.queue.records import RecordsQueue
from tests.mailboxes import SMALL, House, findings, letter

BREAKS = {
    "mailbox_counts": "UPDATE mailbox SET unread = unread + 1 WHERE id = 1",
    "mailbox_threads": "UPDATE mailbox SET unread_threads = 7 WHERE id = 1",
    "mailbox_parent": "UPDATE mailbox SET parent = 99 WHERE id = 4",
    "inbox": "UPDATE mailbox SET role = NULL WHERE id = 1",
    "uidnext": "UPDATE mailbox SET uidnext = 1 WHERE id = 1",
    "expunged": "INSERT INTO expunged (account, mailbox, modseq, uid) VALUES (1, 1, 2, 1)",
    "membership_dangling": "INSERT INTO membership (account, mailbox, uid, email, thread, received_at, modseq, seen)"
    " VALUES (1, 1, 900, 900, 1, 1, 1, 0)",
    "membership_twice": "INSERT INTO membership (account, mailbox, uid, email, thread, received_at, modseq, seen)"
    " SELECT account, mailbox, 900, email, thread, received_at, modseq, seen FROM membership WHERE uid = 1 AND mailbox = 1",
    "membership_differs": "UPDATE membership SET seen = 1 - seen WHERE mailbox = 1 AND uid = 1",
    "email_nowhere": "DELETE FROM membership WHERE email = 1",
    "keyword_missing": "DELETE FROM keyword WHERE keyword = '$flagged'",
    "keyword_stale": "UPDATE keyword SET keyword = 'other' WHERE keyword = '$flagged'",
    "thread_counts": "UPDATE thread SET latest_at = 5 WHERE id = 1",
    "thread_missing": "DELETE FROM thread WHERE id = 1",
    "thread_mailbox": "UPDATE thread_mailbox SET latest_email = 1 WHERE thread = 1",
    "thread_mailbox_missing": "DELETE FROM thread_mailbox WHERE thread = 2",
    "thread_key_dangling": "UPDATE thread_key SET email = 800 WHERE email = 3",
    "thread_key_missing": "DELETE FROM thread_key WHERE email = 2",
    "account_used": "UPDATE account SET used = used - 1",
    "account_next": "UPDATE account SET next_email = 2",
    "modseq": "UPDATE email SET modseq = 9000 WHERE id = 3",
    "modseq_order": "UPDATE email SET created_modseq = modseq + 1 WHERE id = 3",
    "change_missing": "DELETE FROM change WHERE kind = 'email'",
    "change_stale": "UPDATE change SET op = 'destroyed' WHERE kind = 'thread' AND id = 2",
    "content_refs": "UPDATE content SET refs = refs + 1",
    "inbound_without_job": "INSERT INTO inbound_rcpt (inbound_id, n, tenant_id, address, account, state)"
    " VALUES ('inb_1', 0, 'ten_1', 'ann@example.com', 1, 'accepted')",
}


@pytest.fixture
async def full(house: House) -> House:
    """Three emails in two threads, one flagged, one in two mailboxes."""
    await house.account()
    await house.append(letter(1), letter(2, answers=1, subject="Re: Hello"), letter(3, subject="Other"))
    await house.mailboxes.set_keywords(1, [1], add=["$flagged", "$seen"])
    await house.mailboxes.set_mailboxes(1, [3], add=["archive"])
    assert await house.wrong() == []
    return house


def mend(house: House) -> Mend:
    queue = RecordsQueue(house.records, clock=house.clock)
    return Mend(house.records, house.contents, house.blobs, queue, clock=house.clock)


def test_each_invariant_has_its_break() -> None:
    assert {invariant.code for invariant in EVERY} <= BREAKS.keys()


@pytest.mark.parametrize("code", BREAKS)
async def test_what_is_broken_is_found_and_mended(full: House, code: str) -> None:
    await full.execute(BREAKS[code])
    assert code in await full.wrong()
    done = [sentence async for sentence in mend(full).all()]
    assert done
    assert await full.wrong() == []
    assert {line.id for line in (await full.reading.page(1, (await full.boxes())["inbox"].id)).lines} >= {
        1
    } or code == "inbox"
    assert await full.query("SELECT count(*) FROM email") == [(3,)]


async def test_damaged_thread_facts_are_read_from_the_message_again(full: House) -> None:
    await full.execute("UPDATE email SET threading = detail")
    assert "thread_key_missing" in await full.wrong()
    assert [sentence async for sentence in mend(full).all()]
    assert await full.wrong() == []


async def test_lost_octets_are_told_and_cannot_be_mended(full: House) -> None:
    await full.execute("DELETE FROM content WHERE key = (SELECT content FROM email WHERE id = 1)")
    assert await full.wrong() == ["content_missing"]
    assert [sentence async for sentence in mend(full).all()] == []


async def test_wrong_octets_are_seen_when_asked_to_read_them(full: House) -> None:
    await full.execute("UPDATE content SET data = (SELECT detail FROM email WHERE id = 1)")
    assert [f.code for f in await findings(full.records, full.blobs, deep=False)] == []
    assert set(await full.wrong()) == {"content_broken"}


async def test_a_large_message_without_its_blob_is_found(full: House) -> None:
    large = letter(9, body="x" * SMALL)
    await full.append(large)
    assert await full.wrong() == []
    await full.blobs.delete(key_of(large))
    found = await findings(full.records, full.blobs, deep=False)
    assert [finding.code for finding in found] == ["content_broken"]


async def test_an_orphan_blob_goes_after_an_hour(full: House) -> None:
    key = await full.blobs.put(b"nobody knows me")
    assert await full.wrong() == ["blob_orphan"]
    assert len([sentence async for sentence in mend(full).all()]) == 1
    assert await full.wrong() == []
    await full.contents.collect()
    assert await full.blobs.exists(key)
    full.clock.advance(3601)
    await full.contents.collect()
    assert not await full.blobs.exists(key)


async def test_after_mending_every_client_reads_anew(full: House) -> None:
    before = await full.reading.modseq(1)
    await full.execute("UPDATE mailbox SET total = 99 WHERE id = 1")
    assert [sentence async for sentence in mend(full).all()] == ["account 1: counted and linked anew (mailbox_counts)"]
    after = await full.reading.modseq(1)
    assert after > before
    with pytest.raises(Exception, match="not known any more"):
        await full.reading.changes(1, before)
