"""The verbs of the mailboxes, each one transaction that takes the account's row first.

What changed is told to `tell` after the commit. What was added to and taken from the full text
is queued in the same transaction by `indexing`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

import msgspec

from posthouse.clock import Clock
from posthouse.errors import Conflict, NotFound
from posthouse.mailbox import correspondents, folders, quota, removal, verbs
from posthouse.mailbox.books import Books, open_books
from posthouse.mailbox.deliver import deliver
from posthouse.mailbox.entries import Account
from posthouse.mailbox.model import Delivered, Delivery, Role, Touched
from posthouse.mailbox.write import write
from posthouse.storage.contents import Content, Contents
from posthouse.storage.records.base import Records, Tx

T = TypeVar("T")
Tell = Callable[[Sequence[Touched]], None]
Emails = Sequence[tuple[int, int]]
"""(account, email)."""
Indexing = Callable[[Tx, Emails, Emails], Awaitable[None]]
"""Queues the full text of those that came and the removal of those that went."""
Change = Callable[[Tx, Books, Account], Awaitable[T]]


class Done(msgspec.Struct, frozen=True, gc=False):
    """`missing`: emails that were asked for and do not exist."""

    modseq: int
    missing: tuple[int, ...] = ()


def tell_nobody(_touched: Sequence[Touched]) -> None: ...


async def index_nothing(_tx: Tx, _came: Emails, _went: Emails) -> None: ...


class Mailboxes:
    def __init__(
        self,
        records: Records,
        contents: Contents,
        *,
        clock: Clock,
        tell: Tell = tell_nobody,
        indexing: Indexing = index_nothing,
    ) -> None:
        self._records = records
        self._contents = contents
        self._clock = clock
        self._tell = tell
        self._indexing = indexing

    # -- emails ----------------------------------------------------------------------------

    async def set_keywords(
        self, account: int, emails: Sequence[int], *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> Done:
        """:raises Invalid: not a keyword. :raises NotFound: no such account."""
        more, fewer = verbs.check_keywords(add), verbs.check_keywords(remove)

        async def work(tx: Tx, books: Books, _account: Account) -> tuple[int, ...]:
            found, missing = await verbs.find(tx, books, account, emails)
            verbs.set_keywords(books, found, more, fewer)
            return missing

        missing, modseq = await self._change(account, work)
        return Done(modseq, missing)

    async def set_mailboxes(
        self,
        account: int,
        emails: Sequence[int],
        *,
        add: Sequence[int | str] = (),
        remove: Sequence[int] | None = (),
    ) -> Done:
        """Labels: put into mailboxes and take out of others (`remove` None: of all others). An
        email that is in none any more is destroyed.

        :raises NotFound: no such account or mailbox.
        """

        async def work(tx: Tx, books: Books, _account: Account) -> tuple[int, ...]:
            found, missing = await verbs.find(tx, books, account, emails)
            into = await verbs.boxes(tx, books, account, add)
            await verbs.set_mailboxes(tx, books, found, into, None if remove is None else set(remove))
            return missing

        missing, modseq = await self._change(account, work)
        return Done(modseq, missing)

    async def update(
        self,
        account: int,
        emails: Sequence[int],
        *,
        words: tuple[Sequence[str], Sequence[str]] = ((), ()),
        into: Sequence[int | str] = (),
        out_of: Sequence[int | str] | None = (),
    ) -> Done:
        """Keywords and mailboxes in one step: what `set_keywords` and `set_mailboxes` do.

        :param words: those to add, and those to take away. :param out_of: None: of all but `into`.
        :raises Invalid: not a keyword. :raises NotFound: no such account or mailbox.
        """
        more, fewer = verbs.check_keywords(words[0]), verbs.check_keywords(words[1])

        async def work(tx: Tx, books: Books, _account: Account) -> tuple[int, ...]:
            found, missing = await verbs.find(tx, books, account, emails)
            new = await verbs.boxes(tx, books, account, into)
            old = None if out_of is None else {box.id for box in await verbs.boxes(tx, books, account, out_of)}
            verbs.set_keywords(books, found, more, fewer)
            if new or old is None or old:
                await verbs.set_mailboxes(tx, books, found, new, old)
            return missing

        missing, modseq = await self._change(account, work)
        return Done(modseq, missing)

    async def move(self, account: int, emails: Sequence[int], into: int | str) -> Done:
        """Into this mailbox, and out of all others."""
        return await self.set_mailboxes(account, emails, add=[into], remove=None)

    async def destroy(self, account: int, emails: Sequence[int]) -> Done:
        """Out of every mailbox, for good."""
        return await self.set_mailboxes(account, emails, remove=None)

    async def deliver(self, deliveries: Sequence[Delivery]) -> list[Delivered | None]:
        """In one transaction. Their contents must be there and are counted.

        :raises Corrupt: an account without an inbox.
        """

        async def work(tx: Tx) -> tuple[list[Delivered | None], list[Touched]]:
            books = await open_books(tx, {one.account for one in deliveries})
            found = await deliver(tx, books, deliveries)
            await self._indexing(tx, [(one.account, one.email) for one in found if one is not None], ())
            return found, await write(books, tx, self._contents)

        found, touched = await self._records.write(work)
        self._tell(touched)
        return found

    async def append(
        self,
        account: int,
        deliveries: Sequence[tuple[Delivery, Content]],
        *,
        marks: Sequence[quota.Mark] | None = None,
        within_quota: bool = True,
    ) -> list[Delivered | None]:
        """What a person puts there (an import, a draft, what was sent): contents and emails in
        one step. `marks`: of an import, (source, position) of each. One that does not go beyond
        the position to which its source has come is not stored again: its answer is None.

        :raises Limited: it does not fit into the account's or its domain's quota.
        :raises Unavailable: a content of it is being collected this moment; put it again.
        """

        async def work(tx: Tx, books: Books, row: Account) -> list[Delivered | None]:
            new = [True] * len(deliveries) if marks is None else await quota.advance(tx, account, marks, self._clock())
            wanted = [one for one, is_new in zip(deliveries, new, strict=True) if is_new]
            if within_quota:
                await quota.check(tx, row, sum(one.record.size for one, _ in wanted))
            await quota.keep(tx, self._contents, [content for _, content in wanted])
            found = await deliver(tx, books, [one for one, _ in wanted])
            await correspondents.learn(tx, account, [one for one, _ in wanted])
            await self._indexing(tx, [(account, one.email) for one in found if one is not None], ())
            stored = iter(found)
            return [next(stored) if is_new else None for is_new in new]

        return (await self._change(account, work))[0]

    # -- threads ---------------------------------------------------------------------------

    async def split(self, account: int, emails: Sequence[int]) -> int:
        """These emails leave their conversations for a new one; its number.

        :raises NotFound: one does not exist.
        """

        async def work(tx: Tx, books: Books, row: Account) -> int:
            found, missing = await verbs.find(tx, books, account, emails)
            if missing or not found:
                raise NotFound("There is no such email", code="email_not_found")
            return await verbs.split(tx, books, row, found)

        return (await self._change(account, work))[0]

    async def merge(self, account: int, threads: Sequence[int]) -> int:
        """These conversations are one; its number. :raises NotFound: one does not exist."""

        async def work(tx: Tx, books: Books, row: Account) -> int:
            return await verbs.merge(tx, books, row, threads)

        return (await self._change(account, work))[0]

    # -- mailboxes -------------------------------------------------------------------------

    async def create_mailbox(self, account: int, name: str, *, parent: int = 0) -> int:
        """Its number. :raises Invalid: :raises Conflict: :raises NotFound: see `folders.create`."""

        async def work(tx: Tx, books: Books, row: Account) -> int:
            return await folders.create(tx, books, row, name, parent, self._clock())

        return (await self._change(account, work))[0]

    async def change_mailbox(
        self,
        account: int,
        mailbox: int,
        *,
        name: str | None = None,
        parent: int | None = None,
        sort_order: int | None = None,
        subscribed: bool | None = None,
    ) -> None:
        """Rename, move, sort, subscribe; `parent` 0 is the top."""

        async def work(tx: Tx, books: Books, row: Account) -> None:
            await folders.change(
                tx, books, row, mailbox, name=name, parent=parent, sort_order=sort_order, subscribed=subscribed
            )

        await self._change(account, work)

    async def remove_mailbox(
        self, account: int, mailbox: int, *, emails: Literal["refuse", "trash", "destroy"] = "refuse"
    ) -> None:
        """With what lies only here as said: in bounded steps, so that other changes of the
        account come between; again after a failure goes on.

        :raises Conflict: it has a role, mailboxes below it, or (refuse) emails.
        """

        async def empty(tx: Tx, books: Books, row: Account) -> bool:
            box = await folders.check_removable(tx, account, mailbox)
            if not box.total:
                await folders.remove(tx, books, row, mailbox)
                return True
            if emails == "refuse":
                raise Conflict("There are emails in this mailbox", code="mailbox_has_emails")
            found, _ = await verbs.find(tx, books, account, await removal.some_of(tx, account, mailbox))
            trash = await verbs.boxes(tx, books, account, [Role.TRASH.value]) if emails == "trash" else []
            alone = [email for email in found if len(email.members) == 1]
            await verbs.set_mailboxes(tx, books, alone, trash, {mailbox})
            await verbs.set_mailboxes(tx, books, [e for e in found if e not in alone], (), {mailbox})
            return False

        while not (await self._change(account, empty))[0]:
            pass

    # -- accounts --------------------------------------------------------------------------

    async def open_account(self, add: Callable[[Tx], Awaitable[int]]) -> int:
        """`add` makes the account's row and answers its number; its mailboxes come with it."""

        async def work(tx: Tx) -> int:
            number = await add(tx)
            await self.open_in(tx, number)
            return number

        return await self._records.write(work)

    async def open_in(self, tx: Tx, account: int) -> None:
        """The standard mailboxes of an account that this transaction made."""
        books = await open_books(tx, [account])
        await folders.make_standard(tx, books, books.accounts[account], self._clock())
        await write(books, tx, self._contents)

    async def remove_account(self, account: int) -> None:
        """Everything of it and its row, in bounded steps; again after a failure goes on."""
        await removal.remove_account(self._records, self._contents, account, self._indexing)

    async def _change(self, account: int, change: Change[T]) -> tuple[T, int]:
        async def work(tx: Tx) -> tuple[T, int, list[Touched]]:
            books = await open_books(tx, [account])
            row = books.accounts.get(account)
            if row is None:
                raise NotFound("There is no such account", code="account_not_found")
            result = await change(tx, books, row)
            touched = await write(books, tx, self._contents)
            if books.gone_emails:
                await self._indexing(tx, (), [(number, email) for number, email in books.gone_emails])
            return result, row.modseq if touched else row.modseq - 1, touched

        result, modseq, touched = await self._records.write(work)
        self._tell(touched)
        return result, modseq
