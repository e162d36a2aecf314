"""The end of a transaction over mailboxes: all that the books say, in as many statements as
there are tables, however many emails and accounts it is about."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse.mailbox import sql
from posthouse.mailbox.books import COUNTS, CREATED, DESTROYED, MAILBOX, THREAD, UPDATED, Books
from posthouse.mailbox.entries import Thread
from posthouse.mailbox.model import Touched
from posthouse.storage.contents import Contents
from posthouse.storage.records.base import Row, Tx


async def write(books: Books, tx: Tx, contents: Contents) -> list[Touched]:
    """Write everything; what changed, by account. Nothing changed: nothing is written."""
    await _emails(books, tx)
    await _look_up_latest(books, tx)
    await _threads(books, tx)
    await _mailboxes(books, tx)
    await contents.add(tx, list(books.contents.items()))
    touched = _touched(books)
    await _each(tx, sql.CHANGES, _changes(books))
    rows = [
        (a.number, a.modseq, a.used, a.emails, a.next_email, a.next_thread, a.next_mailbox)
        for a in (books.accounts[one.account] for one in touched)
    ]
    await _each(tx, sql.ACCOUNTS_WRITTEN, rows)
    return touched


async def _each(tx: Tx, statement: str, rows: Sequence[Row], *params: int) -> None:
    if rows:
        await tx.run_each(statement, rows, *params)


async def _emails(books: Books, tx: Tx) -> None:
    await _each(tx, sql.NEW_EMAILS, books.new_emails)
    await _each(tx, sql.MEMBERS_GONE, books.gone_members)
    modseqs = {number: account.modseq for number, account in books.accounts.items()}
    await _each(tx, sql.EXPUNGED, [(a, mailbox, modseqs[a], uid) for a, mailbox, uid in books.gone_members])
    await _each(tx, sql.NEW_MEMBERS, books.new_members)
    await _each(tx, sql.NEW_KEYWORDS, books.new_keywords)
    for account, rows in books.gone_keywords.items():
        await _each(tx, sql.KEYWORDS_GONE, rows, account)
    await _each(tx, sql.NEW_KEYS, books.new_keys)
    for account, rows in books.gone_keys.items():
        await _each(tx, sql.KEYS_GONE, rows, account)
    await _each(tx, sql.EMAILS_GONE, books.gone_emails)
    if not books.changed_emails:
        return
    changed = list(books.changed_emails.values())
    new = {(row[0], row[1], row[2]) for row in books.new_members}
    emails = [(e.account, e.id, e.thread, e.keywords, modseqs[e.account]) for e in changed]
    members = [
        (e.account, m.mailbox, m.uid, e.thread, int(e.seen), modseqs[e.account])
        for e in changed
        for m in e.members
        if (e.account, m.mailbox, m.uid) not in new
    ]
    await _each(tx, sql.EMAILS_CHANGED, emails)
    await _each(tx, sql.MEMBERS_CHANGED, members)


async def _look_up_latest(books: Books, tx: Tx) -> None:
    """What a thread's newest email is now that the one that was it has gone."""
    live = [thread for thread in books.threads.values() if thread.emails > 0 and thread.dirty]
    shares = {
        (thread.account, thread.id, mailbox): share
        for thread in live
        for mailbox, share in thread.shares.items()
        if share.latest is None and share.total > 0
    }
    if shares:
        for account, thread, mailbox, at, email in await tx.each(sql.NEWEST_HERE, list(shares)):
            share = shares[account, thread, mailbox]
            share.latest = max(share.latest or (0, 0), (at, email))
    threads = [(thread.account, thread.id) for thread in live if thread.latest_at is None]
    if threads:
        for account, number, at in await tx.each(sql.NEWEST, threads):
            books.threads[account, number].latest_at = at


async def _threads(books: Books, tx: Tx) -> None:
    written: list[Row] = []
    gone: list[Row] = []
    shares: list[Row] = []
    shares_gone: list[Row] = []
    for (account, number), thread in books.threads.items():
        if not thread.dirty and not thread.new:
            continue
        _count_threads(books, thread)
        for mailbox in thread.dirty:
            share = thread.shares[mailbox]
            if share.total > 0:
                shares.append((account, number, mailbox, share.total, share.unread, *(share.latest or (0, 0))))
            elif mailbox in thread.before:
                shares_gone.append((account, number, mailbox))
        if thread.emails > 0:
            modseq = books.accounts[account].modseq
            row = (account, number, thread.emails, thread.unread, thread.latest_at or 0, thread.related, modseq)
            written.append(row)
            books.log(account, THREAD, number, CREATED if thread.new else UPDATED)
        elif not thread.new:
            gone.append((account, number))
            books.log(account, THREAD, number, DESTROYED)
    await _each(tx, sql.THREADS_WRITTEN, written)
    await _each(tx, sql.THREADS_GONE, gone)
    await _each(tx, sql.SHARES_WRITTEN, shares)
    await _each(tx, sql.SHARES_GONE, shares_gone)


def _count_threads(books: Books, thread: Thread) -> None:
    """What this thread changes in `threads` and `unread_threads` of its mailboxes: those that
    it came into or left, and all of them when it became read or unread."""
    unread = thread.unread > 0
    turned = unread != thread.was_unread
    for mailbox, share in thread.shares.items():
        before, now = mailbox in thread.before, share.total > 0
        if not turned and before == now:
            continue
        totals = books.total(thread.account, mailbox)
        totals.threads += now - before
        totals.unread_threads += (now and unread) - (before and thread.was_unread)


async def _mailboxes(books: Books, tx: Tx) -> None:
    rows: list[Row] = []
    for (account, mailbox), t in books.totals.items():
        books.log(account, MAILBOX, mailbox, COUNTS)
        modseq = books.accounts[account].modseq
        rows.append((account, mailbox, t.total, t.unread, t.threads, t.unread_threads, t.entered, modseq))
    await _each(tx, sql.MAILBOXES_COUNTED, rows)


def _changes(books: Books) -> list[Row]:
    accounts = books.accounts
    return [
        (account, accounts[account].modseq, kind, number, op) for (account, kind, number), op in books.changes.items()
    ]


def _touched(books: Books) -> list[Touched]:
    kinds: dict[int, set[str]] = {}
    mailboxes: dict[int, list[int]] = {}
    for account, kind, number in books.changes:
        kinds.setdefault(account, set()).add(kind)
        if kind == MAILBOX:
            mailboxes.setdefault(account, []).append(number)
    return [
        Touched(account, books.accounts[account].modseq, tuple(sorted(found)), tuple(mailboxes.get(account, ())))
        for account, found in sorted(kinds.items())
    ]
