"""What people do with emails that are there. Each verb changes the books of one account;
emails that do not exist are named in the answer and nothing else happens to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set

import msgspec

from posthouse.errors import Invalid, NotFound, TooLarge
from posthouse.mailbox import sql, threading
from posthouse.mailbox.books import Books
from posthouse.mailbox.entries import Account, Box, Email
from posthouse.storage.records.base import Tx

EMAILS_AT_ONCE = 1000
KEYWORDS_AT_MOST = 64
_KEYWORD = re.compile(r"""[!#-$&'+-\[^-z|}~]{1,255}""")
"""RFC 8621 §4.1.1: printable ASCII but `( ) { ] % * " \\`, compared and kept in lower case."""


def check_keywords(keywords: Iterable[str]) -> set[str]:
    """In lower case. :raises Invalid: code `keyword`."""
    found = {keyword.lower() for keyword in keywords}
    for keyword in found:
        if _KEYWORD.fullmatch(keyword) is None:
            raise Invalid(f"{keyword[:60]!r} cannot be a keyword", code="keyword")
    if len(found) > KEYWORDS_AT_MOST:
        raise TooLarge(f"An email has at most {KEYWORDS_AT_MOST} keywords", code="too_many_keywords")
    return found


async def find(tx: Tx, books: Books, account: int, emails: Sequence[int]) -> tuple[list[Email], tuple[int, ...]]:
    """The emails, and the numbers that are none.

    :raises TooLarge: more than `EMAILS_AT_ONCE`.
    """
    if len(emails) > EMAILS_AT_ONCE:
        raise TooLarge(f"At most {EMAILS_AT_ONCE} emails at once", code="too_many_emails")
    found = await books.load_emails(tx, [(account, number) for number in emails])
    known = {email.id for email in found}
    return found, tuple(number for number in dict.fromkeys(emails) if number not in known)


def set_keywords(books: Books, emails: Sequence[Email], add: Set[str], remove: Set[str]) -> None:
    """:raises TooLarge: an email would have too many."""
    for email in emails:
        words = (email.words - remove) | add
        if len(words) > KEYWORDS_AT_MOST:
            raise TooLarge(f"An email has at most {KEYWORDS_AT_MOST} keywords", code="too_many_keywords")
        books.set_words(email, words)


async def boxes(tx: Tx, books: Books, account: int, wanted: Iterable[int | str]) -> list[Box]:
    """:raises NotFound: code `mailbox_not_found`."""
    asked = list(dict.fromkeys(wanted))
    await books.load_boxes(tx, [(account, one) for one in asked])
    found: list[Box] = []
    for one in asked:
        box = books.roles.get((account, one)) if isinstance(one, str) else books.boxes.get((account, one))
        if box is None:
            raise NotFound("There is no such mailbox", code="mailbox_not_found")
        found.append(box)
    return found


async def set_mailboxes(
    tx: Tx, books: Books, emails: Sequence[Email], add: Sequence[Box], remove: Set[int] | None
) -> None:
    """Put into some mailboxes, take out of others (None: of all others). What is in no mailbox
    any more is destroyed."""
    homeless: list[Email] = []
    for email in emails:
        here = {member.mailbox for member in email.members}
        keep = {box.id for box in add}
        gone = (here if remove is None else here & remove) - keep
        new = [box for box in add if box.id not in here]
        for member in [member for member in email.members if member.mailbox in gone]:
            books.leave(email, member)
        for box in new:
            enter(books, email, box)
        if not email.members and not new:
            homeless.append(email)
    await destroy(tx, books, homeless)


def enter(books: Books, email: Email, box: Box) -> None:
    """An email that is there comes into one more mailbox."""
    thread = books.threads[email.account, email.thread]
    books.enter(books.accounts[email.account], box, thread, (email.received_at, email.id), seen=email.seen)
    books.changed(email)


async def destroy(tx: Tx, books: Books, emails: Sequence[Email]) -> None:
    for account, number, stored in await tx.each(sql.FACTS, [(e.account, e.id) for e in emails]) if emails else []:
        try:
            keys = threading.decode(stored).keys
        except msgspec.MsgspecError:
            continue  # `check` removes keys that lead nowhere
        books.gone_keys.setdefault(account, []).extend((key, number) for key in keys)
    for email in emails:
        books.remove(email)


async def split(tx: Tx, books: Books, account: Account, emails: Sequence[Email]) -> int:
    """These leave their threads for a new one and stay apart; its number."""
    thread = books.new_thread(account)
    for email in emails:
        books.rethread(email, thread)
    await _decided(tx, account, "split", emails)
    return thread.id


async def merge(tx: Tx, books: Books, account: Account, threads: Sequence[int]) -> int:
    """The threads are one from now on: the oldest; its number.

    :raises NotFound: code `thread_not_found`.
    """
    wanted = sorted(set(threads))
    emails = await books.load_emails_of(tx, account.number, set(wanted))
    there = {email.thread for email in emails}
    if not wanted or there != set(wanted):
        raise NotFound("There is no such conversation", code="thread_not_found")
    if len(emails) > EMAILS_AT_ONCE:
        raise TooLarge(f"A conversation that people make has at most {EMAILS_AT_ONCE} emails", code="too_many_emails")
    one_of_each = {email.thread: email for email in sorted(emails, key=lambda e: e.id, reverse=True)}
    await _decided(tx, account, "merge", list(one_of_each.values()))
    target = books.threads[account.number, wanted[0]]
    for email in emails:
        books.rethread(email, target)
    return target.id


_DECIDED = """
INSERT INTO thread_override (account, id, kind, data, created_at)
SELECT v.account, v.id, v.kind, v.data, v.at FROM {v(account int, id text, kind text, data text, at int)}
WHERE true ON CONFLICT (account, id) DO UPDATE SET kind = excluded.kind, data = excluded.data"""


async def _decided(tx: Tx, account: Account, kind: str, emails: Sequence[Email]) -> None:
    """Kept by the modseq, which orders what was decided."""
    data = msgspec.json.encode(sorted(email.id for email in emails)).decode()
    row = (account.number, threading.name(account.modseq), kind, data, account.modseq)
    await tx.run_each(_DECIDED, [row])
