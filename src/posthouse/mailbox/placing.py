"""Threads for the emails of a batch, decided one after the other: each sees those before it.

The tables are read once for the whole batch; only what turns out to concern earlier threads (two
that become one, one that must be made anew) is read and moved as it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from posthouse.mail.threads import ROWS_OF_A_KEY, Batch, Candidate, Keys, Override, Placement, rethread
from posthouse.mailbox import sql, threading
from posthouse.mailbox.books import Books
from posthouse.mailbox.entries import Thread
from posthouse.mailbox.model import Delivery
from posthouse.mailbox.threading import name, number
from posthouse.storage.records.base import Row, Tx

MOST_REVIEWED = 1000
"""Emails of threads that are made anew. Larger ones only grow, so that a delivery stays quick; a
split or merge by hand still moves any number."""

Found = list[tuple[bytes, Candidate]]
"""Rows of the look-ups: the key and the email that it found."""


async def look_up(tx: Tx, deliveries: Iterable[Delivery]) -> dict[int, Found]:
    """What the emails' look-ups find, by account."""
    keys = list(dict.fromkeys((one.account, key) for one in deliveries for key in one.keys.lookups))
    by_most: dict[int, list[Row]] = {}
    for n, (account, key) in enumerate(keys):
        by_most.setdefault(ROWS_OF_A_KEY[chr(key[0])], []).append((n, account, key))
    found: dict[int, Found] = {}
    known: dict[tuple[int, int], Candidate] = {}
    for most, rows in by_most.items():
        for n, account, email, thread, stored in await tx.each(sql.KNOWN, rows, most - 1):
            candidate = known.get((account, email))
            if candidate is None:
                candidate = Candidate(name(email), name(thread), threading.decode(stored).facts)
                known[account, email] = candidate
            found.setdefault(account, []).append((keys[n][1], candidate))
    return found


async def overrides(tx: Tx, accounts: Iterable[int]) -> dict[int, list[Override]]:
    found: dict[int, list[Override]] = {}
    for account, *row in await tx.rows(sql.OVERRIDES, list(accounts)):
        found.setdefault(account, []).append(threading.override(row))
    return found


class Placing:
    """One account's batch. `threads`: email → thread, of the new emails."""

    def __init__(self, books: Books, account: int, found: Found, rules: Sequence[Override]) -> None:
        self._books = books
        self._account = books.accounts[account]
        self._batch = Batch(found, rules)
        self._rules = rules
        self._new: dict[int, Keys] = {}
        self.threads: dict[int, int] = {}

    async def __call__(self, tx: Tx, email: int, keys: Keys) -> str:
        """Decide for one email; why so."""
        placement = self._batch.place(name(email), keys)
        if placement.review and await self._is_small(tx, {number(one) for one in placement.review}):
            await self._review(tx, email, keys, placement)
        else:
            thread = self._thread(placement)
            if placement.merge:
                await self._merge(tx, {number(one) for one in placement.merge}, thread)
            self.threads[email] = thread
            self._batch.put(name(email), keys, placement, name(thread))
        self._new[email] = keys
        return placement.why

    async def _is_small(self, tx: Tx, threads: set[int]) -> bool:
        return sum([(await self._loaded(tx, one)).emails for one in threads]) <= MOST_REVIEWED

    def _thread(self, placement: Placement) -> int:
        if placement.thread is not None:
            return number(placement.thread)
        related = number(placement.related) if placement.related else 0
        return self._books.new_thread(self._account, related=related).id

    async def _merge(self, tx: Tx, gone: set[int], into: int) -> None:
        """Threads become one."""
        target = await self._loaded(tx, into)
        for email in await self._books.load_emails_of(tx, self._account.number, gone):
            self._books.rethread(email, target)
        for email, thread in self.threads.items():
            if thread in gone:
                self.threads[email] = into

    async def _review(self, tx: Tx, email: int, keys: Keys, placement: Placement) -> None:
        """Threads are made anew from all their emails and this one."""
        account, here = self._account.number, {number(one) for one in placement.review}
        known = {one.id: one for one in await self._books.load_emails_of(tx, account, here)}
        facts = await tx.each(sql.FACTS, [(account, one) for one in known]) if known else []
        emails = [Candidate(name(n), name(known[n].thread), threading.decode(kept).facts) for _, n, kept in facts]
        emails += [
            Candidate(name(n), name(thread), self._new[n].facts) for n, thread in self.threads.items() if thread in here
        ]
        # Put first, so that the batch knows it when its threads are told.
        self._batch.put(name(email), keys, Placement(None, ""), "")
        groups = rethread([*emails, Candidate(name(email), "", keys.facts)], self._rules)
        told: list[tuple[str, Sequence[str]]] = []
        for group in groups:
            into = number(group.thread) if group.thread else self._books.new_thread(self._account).id
            target = await self._loaded(tx, into)
            for one in map(number, group.emails):
                if one in known:
                    self._books.rethread(known[one], target)
                else:
                    self.threads[one] = into
            told.append((name(into), group.emails))
        self._batch.regroup(told)

    async def _loaded(self, tx: Tx, thread: int) -> Thread:
        await self._books.load_threads(tx, [(self._account.number, thread)])
        return self._books.threads[self._account.number, thread]
