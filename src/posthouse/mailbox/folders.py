"""Mailboxes themselves: made, renamed, moved, taken away. A tree by `parent`, without loops."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from posthouse.clock import SECOND
from posthouse.errors import Conflict, Fault, Invalid, NotFound, TooLarge
from posthouse.mailbox.books import CREATED, DESTROYED, MAILBOX, UPDATED, Books
from posthouse.mailbox.entries import Account
from posthouse.mailbox.model import Mailbox, Role
from posthouse.storage.records.base import Row, Tx

NAME_OCTETS = 255
DEPTH = 20
MAILBOXES_AT_MOST = 1000
STANDARD = {
    Role.INBOX: "Inbox",
    Role.DRAFTS: "Drafts",
    Role.SENT: "Sent",
    Role.ARCHIVE: "Archive",
    Role.JUNK: "Junk",
    Role.TRASH: "Trash",
}

COLUMNS = """id, parent, name, role, sort_order, subscribed, uidvalidity, uidnext, modseq,
    total, unread, threads, unread_threads"""
_ALL = f"SELECT {COLUMNS} FROM mailbox WHERE account = $1 ORDER BY id"  # noqa: S608 - a constant
_INSERT = """
INSERT INTO mailbox (account, id, parent, name, role, sort_order, uidvalidity, modseq)
SELECT v.account, v.id, v.parent, v.name, v.role, v.sort_order, v.uidvalidity, v.modseq
FROM {v(account int, id int, parent int, name text, role text, sort_order int, uidvalidity int, modseq int)}"""
_UPDATE = """UPDATE mailbox SET parent = $3, name = $4, sort_order = $5, subscribed = $6, modseq = $7
    WHERE account = $1 AND id = $2"""


async def every(tx: Tx, account: int) -> list[Mailbox]:
    """All of an account, by number."""
    return [from_row(row) for row in await tx.rows(_ALL, account)]


def from_row(row: Row) -> Mailbox:
    values: list[Any] = [*row]
    values[5] = bool(values[5])
    return Mailbox(*values)


async def make_standard(tx: Tx, books: Books, account: Account, now: int) -> None:
    """The mailboxes that each account begins with."""
    for order, (role, name) in enumerate(STANDARD.items()):
        await _insert(tx, books, account, (0, name, role.value, order + 1), now)


async def make_inbox(tx: Tx, books: Books, account: Account, now: int) -> None:
    """For an account that has lost it: under a name that is free."""
    taken = {box.name for box in await every(tx, account.number) if not box.parent}
    name = next(name for name in (STANDARD[Role.INBOX], *map("Inbox {}".format, range(2, 2000))) if name not in taken)
    await _insert(tx, books, account, (0, name, Role.INBOX.value, 1), now)


async def create(tx: Tx, books: Books, account: Account, name: str, parent: int, now: int) -> int:
    """Its number.

    :raises Invalid: the name cannot be one (code `mailbox_name`), or the tree would be too deep.
    :raises Conflict: there is one of this name (code `mailbox_exists`).
    :raises NotFound: no such parent.
    """
    there = {box.id: box for box in await every(tx, account.number)}
    if len(there) >= MAILBOXES_AT_MOST:
        raise TooLarge(f"An account has at most {MAILBOXES_AT_MOST} mailboxes", code="too_many_mailboxes")
    name = check_name(name)
    _check_place(there, name, parent, None)
    return await _insert(tx, books, account, (parent, name, None, 0), now)


async def _insert(tx: Tx, books: Books, account: Account, row: tuple[int, str, str | None, int], now: int) -> int:
    number = account.next_mailbox
    account.next_mailbox += 1
    # UIDVALIDITY (RFC 9051 §2.3.1.1): neither part ever goes back, so no name gets one twice.
    uidvalidity = now // SECOND + number
    await tx.run_each(_INSERT, [(account.number, number, *row, uidvalidity, account.modseq)])
    books.log(account.number, MAILBOX, number, CREATED)
    return number


async def change(
    tx: Tx,
    books: Books,
    account: Account,
    number: int,
    *,
    name: str | None = None,
    parent: int | None = None,
    sort_order: int | None = None,
    subscribed: bool | None = None,
) -> None:
    """Rename, move, sort, subscribe; None leaves as it is.

    :raises Conflict: the inbox stays where it is (`mailbox_has_role`), or the name is taken.
    """
    there = {box.id: box for box in await every(tx, account.number)}
    box = _found(there, number)
    new_name = box.name if name is None else check_name(name)
    new_parent = box.parent if parent is None else parent
    if (new_name, new_parent) != (box.name, box.parent):
        if box.role == Role.INBOX.value:
            raise Conflict("The inbox keeps its name and place", code="mailbox_has_role")
        _check_place(there, new_name, new_parent, number)
    order = box.sort_order if sort_order is None else sort_order
    if not 0 <= order < 2**31:
        raise Invalid("A sort order is from 0 to 2,147,483,647", code="sort_order")
    shown = int(box.subscribed if subscribed is None else subscribed)
    await tx.run(_UPDATE, account.number, number, new_parent, new_name, order, shown, account.modseq)
    books.log(account.number, MAILBOX, number, UPDATED)


async def check_removable(tx: Tx, account: int, number: int) -> Mailbox:
    """:raises Conflict: it has a role or mailboxes below it. :raises NotFound:"""
    there = {box.id: box for box in await every(tx, account)}
    box = _found(there, number)
    if box.role is not None:
        raise Conflict("This mailbox is needed for mail to come in and go out", code="mailbox_has_role")
    if any(other.parent == number for other in there.values()):
        raise Conflict("There are mailboxes below this one", code="mailbox_has_children")
    return box


async def remove(tx: Tx, books: Books, account: Account, number: int) -> None:
    """An empty one."""
    await tx.run("DELETE FROM expunged WHERE account = $1 AND mailbox = $2", account.number, number)
    await tx.run("DELETE FROM mailbox WHERE account = $1 AND id = $2", account.number, number)
    books.totals.pop((account.number, number), None)
    books.log(account.number, MAILBOX, number, DESTROYED)


def check_name(name: str) -> str:
    """In NFC. :raises Invalid: code `mailbox_name`."""
    name = unicodedata.normalize("NFC", name)
    bad = any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in name)
    if not name or name != name.strip() or "/" in name or bad or len(name.encode("utf-8", "replace")) > NAME_OCTETS:
        raise Invalid(
            "A mailbox's name is 1 to 255 octets, without slash, control characters or blanks around it",
            code="mailbox_name",
            faults=(Fault("/name", "cannot be a mailbox's name"),),
        )
    return name


def _found(there: dict[int, Mailbox], number: int) -> Mailbox:
    if number not in there:
        raise NotFound("There is no such mailbox", code="mailbox_not_found")
    return there[number]


def _check_place(there: dict[int, Mailbox], name: str, parent: int, number: int | None) -> None:
    above: Sequence[int] = ()
    at = parent
    while at:
        box = _found(there, at)
        if at == number:
            raise Conflict("A mailbox cannot lie below itself", code="mailbox_loop")
        above = (*above, at)
        at = box.parent
    if len(above) + _height(there, number) > DEPTH:
        raise Invalid(f"Mailboxes are nested at most {DEPTH} deep", code="mailbox_depth")
    for box in there.values():
        inbox = not parent and name.upper() == "INBOX" and box.role == Role.INBOX.value
        if box.id != number and box.parent == parent and (box.name == name or inbox):
            raise Conflict("There is a mailbox of this name", code="mailbox_exists")


def _height(there: dict[int, Mailbox], number: int | None) -> int:
    """Levels of the tree below a mailbox, itself included."""
    height, level = 1, {number} if number is not None else set[int]()
    while level := {box.id for box in there.values() if box.parent in level}:
        height += 1
    return height
