"""What people and programs read. Lists are walked by the index they are sorted by; only the
lines that are shown are looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posthouse.errors import Invalid, NotFound
from posthouse.mail.parsed import Part, part_of
from posthouse.mailbox import folders, record
from posthouse.mailbox.model import Anchor, Change, Changes, Email, Line, Mailbox, Page, Thread
from posthouse.storage.contents import Contents
from posthouse.storage.records.base import Records, Row, Tx

LINES_AT_MOST = 500
EMAILS_AT_MOST = 500
CHANGES_AT_MOST = 5000
THREAD_AT_MOST = 2000

_LINE = "e.subject, e.sender, e.preview, e.keywords, e.attachments, e.size"
_EMAILS = f"""
SELECT m.email, m.thread, m.uid, m.received_at, {_LINE}, 0, 0 FROM (
    SELECT email, thread, uid, received_at FROM membership
    WHERE account = $1 AND mailbox = $2 AND (received_at, email) < ($3, $4)
    ORDER BY received_at DESC, email DESC LIMIT $5 OFFSET $6) m
JOIN email e ON e.account = $1 AND e.id = m.email
ORDER BY m.received_at DESC, m.email DESC"""  # noqa: S608 - constants
_THREADS = f"""
SELECT b.latest_email, b.thread, m.uid, b.latest_at, {_LINE}, t.emails, t.unread FROM (
    SELECT latest_email, thread, latest_at FROM thread_mailbox
    WHERE account = $1 AND mailbox = $2 AND (latest_at, latest_email) < ($3, $4)
    ORDER BY latest_at DESC, latest_email DESC LIMIT $5 OFFSET $6) b
JOIN email e ON e.account = $1 AND e.id = b.latest_email
JOIN membership m ON m.account = $1 AND m.email = b.latest_email AND m.mailbox = $2
JOIN thread t ON t.account = $1 AND t.id = b.thread
ORDER BY b.latest_at DESC, b.latest_email DESC"""  # noqa: S608 - constants
_NEWEST = (2**62, 2**62)
_TOTALS = "SELECT total, threads FROM mailbox WHERE account = $1 AND id = $2"

_BY_ID = f"SELECT {record.COLUMNS} FROM email WHERE account = $1 AND id = ANY($2)"  # noqa: S608 - a constant
_PLACES = """SELECT email, mailbox, uid FROM membership
    WHERE account = $1 AND email = ANY($2) ORDER BY email, mailbox"""
_THREAD_ROWS = "SELECT id, unread, latest_at, related, modseq FROM thread WHERE account = $1 AND id = ANY($2)"
_MEMBERS = """SELECT e.thread, e.id FROM {v(account int, id int)} CROSS JOIN email e
    WHERE e.account = v.account AND e.thread = v.id ORDER BY e.thread, e.received_at, e.id LIMIT $1"""
_CHANGES = """SELECT modseq, kind, id, op FROM change WHERE account = $1 AND modseq > $2
    ORDER BY modseq, kind, id LIMIT $3"""
_STATE = "SELECT modseq, change_floor FROM account WHERE number = $1"
_RAW = "SELECT content, size, trace, detail FROM email WHERE account = $1 AND id = $2"
_CHANGED_SINCE = """SELECT uid, email FROM membership
    WHERE account = $1 AND mailbox = $2 AND modseq > $3 ORDER BY uid LIMIT $4"""
_EXPUNGED_SINCE = """SELECT uid FROM expunged
    WHERE account = $1 AND mailbox = $2 AND modseq > $3 ORDER BY modseq, uid LIMIT $4"""


class Reading:
    """All answers are of one moment each. :raises StorageUnavailable: everywhere."""

    def __init__(self, records: Records, contents: Contents) -> None:
        self._records = records
        self._contents = contents

    async def mailboxes(self, account: int) -> list[Mailbox]:
        """All with their counts, by number."""
        return await self._records.read(lambda tx: folders.every(tx, account))

    async def page(
        self,
        account: int,
        mailbox: int,
        *,
        limit: int = 50,
        position: int = 0,
        after: Anchor | None = None,
        threads: bool = False,
    ) -> Page:
        """Newest first.

        :param position: lines to skip, from the top or from `after`; costs with its size.
        :param after: where the page before ended (its `next`); any depth costs the same.
        :param threads: one line for each conversation, the newest email of it in this mailbox.
        :raises NotFound: code `mailbox_not_found`.
        :raises Invalid: a limit beyond `LINES_AT_MOST`.
        """
        if not 0 < limit <= LINES_AT_MOST or position < 0:
            raise Invalid(f"A page has 1 to {LINES_AT_MOST} lines", code="page")
        at = (after.received_at, after.email) if after is not None else _NEWEST
        statement = _THREADS if threads else _EMAILS

        async def work(tx: Tx) -> tuple[Row | None, list[Row]]:
            totals = await tx.row(_TOTALS, account, mailbox)
            return totals, await tx.rows(statement, account, mailbox, *at, limit, position) if totals else []

        totals, rows = await self._records.read(work)
        if totals is None:
            raise NotFound("There is no such mailbox", code="mailbox_not_found")
        lines = tuple(map(_line, rows))
        last = Anchor(lines[-1].received_at, lines[-1].id) if len(lines) == limit else None
        return Page(lines, totals[1 if threads else 0], last)

    async def email(self, account: int, number: int) -> Email:
        """:raises NotFound: code `email_not_found`."""
        found = await self.emails(account, [number])
        if not found:
            raise _no_email()
        return found[0]

    async def emails(self, account: int, numbers: Sequence[int]) -> list[Email]:
        """Those that exist, in the order asked. :raises Invalid: too many."""
        if len(numbers) > EMAILS_AT_MOST:
            raise Invalid(f"At most {EMAILS_AT_MOST} emails at once", code="too_many_emails")

        async def work(tx: Tx) -> tuple[list[Row], list[Row]]:
            asked = list(numbers)
            return await tx.rows(_BY_ID, account, asked), await tx.rows(_PLACES, account, asked)

        rows, places = await self._records.read(work)
        mailboxes: dict[int, list[tuple[int, int]]] = {}
        for email, mailbox, uid in places:
            mailboxes.setdefault(email, []).append((mailbox, uid))
        found = {row[0]: record.email(row, tuple(mailboxes.get(row[0], ()))) for row in rows}
        return [found[number] for number in dict.fromkeys(numbers) if number in found]

    async def threads(self, account: int, numbers: Sequence[int]) -> list[Thread]:
        """Those that exist, in the order asked. Of a very long one only the first are named."""
        if len(numbers) > EMAILS_AT_MOST:
            raise Invalid(f"At most {EMAILS_AT_MOST} conversations at once", code="too_many_threads")

        async def work(tx: Tx) -> tuple[list[Row], list[Row]]:
            keys = [(account, number) for number in dict.fromkeys(numbers)]
            members = await tx.each(_MEMBERS, keys, THREAD_AT_MOST * 5) if keys else []
            return await tx.rows(_THREAD_ROWS, account, list(numbers)), members

        rows, members = await self._records.read(work)
        of: dict[int, list[int]] = {}
        for thread, email in members:
            of.setdefault(thread, []).append(email)
        found = {
            number: Thread(number, tuple(of.get(number, ())[:THREAD_AT_MOST]), unread, at, related, modseq)
            for number, unread, at, related, modseq in rows
        }
        return [found[number] for number in dict.fromkeys(numbers) if number in found]

    async def modseq(self, account: int) -> int:
        """:raises NotFound: code `account_not_found`."""
        return (await self._records.read(lambda tx: _state(tx, account)))[0]

    async def changes(self, account: int, since: int, *, limit: int = 1000) -> Changes:
        """What changed after modseq `since`, the last op of each thing; whole modseqs only.

        :raises Invalid: code `changes_forgotten`: everything must be read anew; also for a
            `since` that never was.
        """
        most = max(1, min(limit, CHANGES_AT_MOST))

        async def work(tx: Tx) -> tuple[tuple[int, int], list[Row]]:
            state = await _state(tx, account)
            return state, await tx.rows(_CHANGES, account, since, most + 1)

        (modseq, floor), rows = await self._records.read(work)
        if not floor <= since <= modseq:
            raise Invalid("Changes since then are not known any more", code="changes_forgotten")
        more = len(rows) > most
        if more:
            last = rows[most][0]
            rows = [row for row in rows if row[0] < last]
            if not rows:
                raise Invalid("One step changed more than the limit", code="changes_forgotten")
        return Changes(_folded(rows), rows[-1][0] if more else modseq, more)

    async def mailbox_changes(
        self, account: int, mailbox: int, since: int, *, limit: int = 1000
    ) -> tuple[list[tuple[int, int]], list[int]]:
        """For IMAP's QRESYNC: (uid, email) of what came or changed since, and uids that went."""
        most = max(1, min(limit, CHANGES_AT_MOST))

        async def work(tx: Tx) -> tuple[list[Row], list[Row]]:
            changed = await tx.rows(_CHANGED_SINCE, account, mailbox, since, most)
            return changed, await tx.rows(_EXPUNGED_SINCE, account, mailbox, since, most)

        changed, gone = await self._records.read(work)
        return [(uid, email) for uid, email in changed], [uid for (uid,) in gone]

    async def raw(self, account: int, number: int) -> tuple[bytes, bytes]:
        """The header fields that we put before the message, and its octets as they came.

        :raises NotFound: code `email_not_found`. :raises Corrupt: they are not what was stored.
        """
        content, _, trace, _ = await self._where(account, number)
        return trace or b"", await self._contents.get(content)

    async def raw_range(self, account: int, number: int, start: int, length: int) -> bytes:
        """Octets of the message as it came, fewer at its end."""
        content, *_ = await self._where(account, number)
        return await self._contents.get_range(content, max(0, start), max(0, length))

    async def part(
        self, account: int, number: int, part: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Part, bytes]:
        """A part of the body as it stands in the message, transfer encoding included; only its
        octets are read.

        :raises NotFound: code `email_not_found` or `part_not_found`.
        """
        content, _, _, detail = await self._where(account, number)
        found = part_of(record.detail(detail).structure, part)
        if found is None:
            raise NotFound("The email has no such part", code="part_not_found")
        start = max(0, min(start, found.length))
        most = found.length - start
        wanted = most if length is None else max(0, min(length, most))
        return found, await self._contents.get_range(content, found.body + start, wanted) if wanted else b""

    async def _where(self, account: int, number: int) -> tuple[Any, ...]:
        row = await self._records.read(lambda tx: tx.row(_RAW, account, number))
        if row is None:
            raise _no_email()
        return row


async def _state(tx: Tx, account: int) -> tuple[int, int]:
    row = await tx.row(_STATE, account)
    if row is None:
        raise NotFound("There is no such account", code="account_not_found")
    return row[0], row[1]


def _no_email() -> NotFound:
    return NotFound("There is no such email", code="email_not_found")


def _line(row: Row) -> Line:
    number, thread, uid, at, subject, sender, preview, keywords, attachments, size, emails, unread = row
    return Line(
        number,
        thread,
        uid,
        at,
        subject,
        record.senders(sender),
        preview,
        tuple(keywords.split()),
        attachments,
        size,
        emails,
        unread,
    )


def _folded(rows: Sequence[Row]) -> tuple[Change, ...]:
    """Each thing once: created and destroyed since then is not told, created and updated is
    created, counts and updated is updated."""
    found: dict[tuple[str, int], Change] = {}
    for modseq, kind, number, op in rows:
        before = found.pop((kind, number), None)
        was = before.op if before is not None else op
        if op == "destroyed":
            if was == "created":
                continue
        elif was == "created" or (was == "updated" and op == "counts"):
            op = was  # noqa: PLW2901 - the stronger one
        found[kind, number] = Change(modseq, kind, number, op)
    return tuple(found.values())
