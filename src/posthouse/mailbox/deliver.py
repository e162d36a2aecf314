"""New emails: placed in threads, put into mailboxes, counted. In memory but for three looks at
the tables; `write` does the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from posthouse.errors import Corrupt
from posthouse.mailbox import threading
from posthouse.mailbox.books import CREATED, EMAIL, Books
from posthouse.mailbox.entries import Account, Box, Thread, is_seen, stored_keywords
from posthouse.mailbox.model import Delivered, Delivery, Role
from posthouse.mailbox.placing import Placing, look_up, overrides
from posthouse.storage.records.base import Row, Tx


async def deliver(tx: Tx, books: Books, deliveries: Sequence[Delivery]) -> list[Delivered | None]:
    """In this order; None for an account that does not exist.

    :raises Corrupt: an account without an inbox.
    """
    alive = [one for one in deliveries if one.account in books.accounts]
    await books.load_boxes(tx, _boxes_wanted(alive))
    await books.load_boxes(tx, {(one.account, Role.INBOX.value) for one in alive if not _all_there(books, one)})
    placing = await _placing(tx, books, alive)
    spots: list[tuple[Delivery, int, str]] = []
    for one in alive:
        account = books.accounts[one.account]
        email = account.next_email
        account.next_email += 1
        spots.append((one, email, await placing[one.account](tx, email, one.keys)))
    await books.load_threads(tx, [(one.account, placing[one.account].threads[email]) for one, email, _ in spots])
    entered: dict[int, Delivered] = {}
    for one, email, why in spots:
        thread = books.threads.get((one.account, placing[one.account].threads[email]))
        if thread is None:
            raise Corrupt(code="no_thread", detail=f"account {one.account}: the thread of a candidate is not there")
        entered[id(one)] = _enter(books, one, email, thread, why)
    return [entered.get(id(one)) for one in deliveries]


async def _placing(tx: Tx, books: Books, alive: Sequence[Delivery]) -> dict[int, Placing]:
    accounts = {one.account for one in alive}
    if not accounts:
        return {}
    found = await look_up(tx, alive)
    rules = await overrides(tx, accounts)
    return {number: Placing(books, number, found.get(number, []), rules.get(number, ())) for number in accounts}


def _boxes_wanted(deliveries: Iterable[Delivery]) -> list[tuple[int, int | str]]:
    return [(one.account, mailbox) for one in deliveries for mailbox in one.mailboxes]


def _all_there(books: Books, one: Delivery) -> bool:
    return all(_box(books, one.account, mailbox) is not None for mailbox in one.mailboxes)


def _box(books: Books, account: int, mailbox: int | str) -> Box | None:
    return books.roles.get((account, mailbox)) if isinstance(mailbox, str) else books.boxes.get((account, mailbox))


def _inbox(books: Books, account: int) -> Box:
    box = books.roles.get((account, Role.INBOX.value))
    if box is None:
        raise Corrupt(code="no_inbox", detail=f"account {account} has no inbox")
    return box


def _enter(books: Books, one: Delivery, email: int, thread: Thread, why: str) -> Delivered:
    account = books.accounts[one.account]
    seen = is_seen(one.keywords)
    spot = (one.received_at, email)
    books.count_email(thread, spot, seen=seen)
    boxes = {
        box.id: box for box in (_box(books, one.account, m) or _inbox(books, one.account) for m in one.mailboxes)
    } or {(box := _inbox(books, one.account)).id: box}
    for box in boxes.values():
        books.enter(account, box, thread, spot, seen=seen)
    _count(books, account, one, email)
    books.new_emails.append(_row(account, one, email, thread.id))
    books.log(one.account, EMAIL, email, CREATED)
    return Delivered(one.account, email, thread.id, tuple(boxes), tuple(box.name for box in boxes.values()), why)


def _count(books: Books, account: Account, one: Delivery, email: int) -> None:
    account.emails += 1
    account.used += one.record.size
    books.contents[one.content] = books.contents.get(one.content, 0) + 1
    books.new_keywords += [(one.account, word, email) for word in set(one.keywords)]
    books.new_keys += [(one.account, key, email) for key in one.keys.index]


def _row(account: Account, one: Delivery, email: int, thread: int) -> Row:
    record = one.record
    return (
        one.account,
        email,
        thread,
        one.content,
        record.size,
        one.received_at,
        record.sent_at,
        record.message_id,
        record.subject,
        record.sender,
        record.preview,
        stored_keywords(set(one.keywords)),
        record.attachments,
        record.detail,
        one.inbound_id,
        one.trace,
        one.verdict,
        threading.encode(one.keys),
        account.modseq,
    )
