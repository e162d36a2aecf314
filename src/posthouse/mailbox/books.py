"""The books of some accounts, open for one transaction.

`open_books` takes the accounts' rows in ascending order: on PostgreSQL that is the lock which
orders all changes of an account, on SQLite there is one writer anyway. Verbs change what is
held in memory; `write` (in write.py) puts all of it into a constant number of statements.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from posthouse.mailbox import sql
from posthouse.mailbox.entries import Account, Box, Email, Member, Share, Spot, Thread, Totals, is_seen, stored_keywords
from posthouse.storage.records.base import Row, Tx

CREATED, UPDATED, COUNTS, DESTROYED = "created", "updated", "counts", "destroyed"
EMAIL, MAILBOX, THREAD = "email", "mailbox", "thread"


class Books:
    """`accounts`: those that exist, by number. The lists are rows for the statements of sql.py
    of the same name."""

    def __init__(self, accounts: dict[int, Account]) -> None:
        self.accounts = accounts
        self.boxes: dict[tuple[int, int], Box] = {}
        self.roles: dict[tuple[int, str], Box] = {}
        self.threads: dict[tuple[int, int], Thread] = {}
        self.totals: dict[tuple[int, int], Totals] = {}
        self.changes: dict[tuple[int, str, int], str] = {}
        self.new_emails: list[Row] = []
        self.new_members: list[Row] = []
        self.gone_members: list[Row] = []
        self.new_keywords: list[Row] = []
        self.gone_keywords: dict[int, list[Row]] = {}
        self.new_keys: list[Row] = []
        self.gone_keys: dict[int, list[Row]] = {}
        self.changed_emails: dict[tuple[int, int], Email] = {}
        self.gone_emails: list[Row] = []
        self.contents: dict[str, int] = {}

    # -- loading ---------------------------------------------------------------------------

    async def load_boxes(self, tx: Tx, wanted: Iterable[tuple[int, int | str]]) -> None:
        """Mailboxes that emails shall enter, by number or by role."""
        roles: set[Row] = set()
        numbers: set[Row] = set()
        for account, mailbox in wanted:
            if isinstance(mailbox, str):
                if (account, mailbox) not in self.roles:
                    roles.add((account, mailbox))
            elif (account, mailbox) not in self.boxes:
                numbers.add((account, mailbox))
        rows = await tx.each(sql.BOXES_BY_ROLE, sorted(roles)) if roles else []
        if numbers:
            rows += await tx.each(sql.BOXES_BY_ID, sorted(numbers))
        for account, number, name, role, uidnext in rows:
            box = self.boxes.get((account, number))
            if box is None:
                box = self.boxes[account, number] = Box(number, name, role, uidnext)
            if role is not None:
                self.roles[account, role] = box

    async def load_threads(self, tx: Tx, wanted: Iterable[tuple[int, int]]) -> None:
        missing = sorted({key for key in wanted if key not in self.threads})
        if not missing:
            return
        for account, number, emails, unread, latest_at, related, *share in await tx.each(sql.THREADS, missing):
            thread = self.threads.get((account, number))
            if thread is None:
                thread = Thread(account, number, False, emails, unread, latest_at, related, was_unread=unread > 0)
                self.threads[account, number] = thread
            if share[0] is not None:
                mailbox, total, unread_here, at, email = share
                thread.shares[mailbox] = Share(total, unread_here, (at, email))
                thread.before |= {mailbox}

    async def load_emails(self, tx: Tx, wanted: Sequence[tuple[int, int]]) -> list[Email]:
        """Those that exist, with their threads."""
        return await self._emails(tx, sql.EMAILS, wanted)

    async def load_emails_of(self, tx: Tx, account: int, threads: set[int]) -> list[Email]:
        """All that are in these threads now, as far as the tables know them."""
        found = await self._emails(tx, sql.EMAILS_OF_THREADS, [(account, thread) for thread in threads])
        moved = [email for key, email in self.changed_emails.items() if key[0] == account]
        every = {email.id: email for email in (*found, *moved)}
        return [email for email in every.values() if email.thread in threads]

    async def _emails(self, tx: Tx, statement: str, wanted: Sequence[tuple[int, int]]) -> list[Email]:
        found: dict[tuple[int, int], Email] = {}
        for *email, mailbox, uid in await tx.each(statement, sorted(set(wanted))) if wanted else []:
            key = (email[0], email[1])
            if key not in found:
                found[key] = self.changed_emails.get(key) or Email(*email)
                known = found[key].members
            else:
                known = found[key].members
            if mailbox is not None and key not in self.changed_emails:
                known.append(Member(mailbox, uid))
        await self.load_threads(tx, [(email.account, email.thread) for email in found.values()])
        return list(found.values())

    # -- verbs -----------------------------------------------------------------------------

    def new_thread(self, account: Account, *, related: int = 0) -> Thread:
        thread = Thread(account.number, account.next_thread, True, related=related)
        account.next_thread += 1
        self.threads[account.number, thread.id] = thread
        return thread

    def count_email(self, thread: Thread, spot: Spot, *, seen: bool) -> None:
        """One more email in a thread."""
        thread.emails += 1
        thread.unread += not seen
        if thread.latest_at is not None and spot[0] > thread.latest_at:
            thread.latest_at = spot[0]

    def enter(self, account: Account, box: Box, thread: Thread, spot: Spot, *, seen: bool) -> int:
        """An email comes into a mailbox; its uid there."""
        uid = box.uidnext
        box.uidnext += 1
        self._count_in(thread, box.id, spot, seen=seen)
        totals = self.total(account.number, box.id)
        totals.entered += 1
        totals.total += 1
        totals.unread += not seen
        self.new_members.append(
            (account.number, box.id, uid, spot[1], thread.id, spot[0], account.modseq, 1 if seen else 0)
        )
        return uid

    def leave(self, email: Email, member: Member) -> None:
        """An email goes out of a mailbox."""
        seen = email.seen
        email.members.remove(member)
        self._count_out(self.threads[email.account, email.thread], member.mailbox, email, seen=seen)
        totals = self.total(email.account, member.mailbox)
        totals.total -= 1
        totals.unread -= not seen
        self.gone_members.append((email.account, member.mailbox, member.uid))
        self.changed(email)

    def remove(self, email: Email) -> None:
        """An email ceases to be."""
        for member in tuple(email.members):
            self.leave(email, member)
        self._uncount(self.threads[email.account, email.thread], email)
        account = self.accounts[email.account]
        account.used -= email.size
        account.emails -= 1
        self.contents[email.content] = self.contents.get(email.content, 0) - 1
        self.gone_keywords.setdefault(email.account, []).extend((word, email.id) for word in email.words)
        self.changed_emails.pop((email.account, email.id), None)
        self.gone_emails.append((email.account, email.id))
        self.log(email.account, EMAIL, email.id, DESTROYED)

    def set_words(self, email: Email, words: set[str]) -> None:
        """Replace the keywords of an email."""
        old = email.words
        if words == old:
            return
        was_seen, seen = is_seen(old), is_seen(words)
        self.new_keywords += [(email.account, word, email.id) for word in sorted(words - old)]
        self.gone_keywords.setdefault(email.account, []).extend((word, email.id) for word in sorted(old - words))
        email.keywords = stored_keywords(words)
        self.changed(email)
        if was_seen == seen:
            return
        change = -1 if seen else 1
        thread = self.threads[email.account, email.thread]
        thread.unread += change
        for member in email.members:
            thread.shares[member.mailbox].unread += change
            thread.dirty.add(member.mailbox)
            self.total(email.account, member.mailbox).unread += change

    def rethread(self, email: Email, into: Thread) -> None:
        """An email goes from its thread to another."""
        old, seen, spot = self.threads[email.account, email.thread], email.seen, (email.received_at, email.id)
        if old is into:
            return
        for member in email.members:
            self._count_out(old, member.mailbox, email, seen=seen)
            self._count_in(into, member.mailbox, spot, seen=seen)
        self._uncount(old, email)
        self.count_email(into, spot, seen=seen)
        email.thread = into.id
        self.changed(email)

    def changed(self, email: Email) -> None:
        self.changed_emails[email.account, email.id] = email
        self.log(email.account, EMAIL, email.id, UPDATED)

    def total(self, account: int, mailbox: int) -> Totals:
        totals = self.totals.get((account, mailbox))
        if totals is None:
            totals = self.totals[account, mailbox] = Totals()
        return totals

    def log(self, account: int, kind: str, number: int, op: str) -> None:
        """One row for a thing in the change log: the strongest of what happened to it."""
        key = (account, kind, number)
        before = self.changes.get(key)
        if before is None or op == DESTROYED or (before == COUNTS and op == UPDATED):
            self.changes[key] = op

    # -- counting --------------------------------------------------------------------------

    def _count_in(self, thread: Thread, mailbox: int, spot: Spot, *, seen: bool) -> None:
        share = thread.shares.get(mailbox)
        if share is None:
            share = thread.shares[mailbox] = Share()
        share.total += 1
        share.unread += not seen
        if share.latest is not None and spot > share.latest:
            share.latest = spot
        thread.dirty.add(mailbox)

    def _count_out(self, thread: Thread, mailbox: int, email: Email, *, seen: bool) -> None:
        share = thread.shares[mailbox]
        share.total -= 1
        share.unread -= not seen
        if share.latest == (email.received_at, email.id):
            share.latest = None
        thread.dirty.add(mailbox)

    def _uncount(self, thread: Thread, email: Email) -> None:
        thread.emails -= 1
        thread.unread -= not email.seen
        if thread.latest_at == email.received_at:
            thread.latest_at = None


async def open_books(tx: Tx, accounts: Iterable[int]) -> Books:
    """Take the rows of these accounts; those that do not exist are left out."""
    rows = await tx.rows(sql.LOCK, sorted(set(accounts)))
    return Books({row[0]: Account(*row) for row in rows})
