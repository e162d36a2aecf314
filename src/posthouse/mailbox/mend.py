"""Makes an account true again from what is certain: its emails, the mailboxes they lie in, and
their keywords. Counts, threads' sums, keys and marks follow from these.

One transaction for an account, under its lock. Afterwards its change log begins anew, so every
client reads the account again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from posthouse.clock import Clock
from posthouse.errors import Corrupt, NotFound
from posthouse.mail.parse import parse
from posthouse.mail.threads import thread_keys
from posthouse.mailbox import folders, threading
from posthouse.mailbox.books import open_books
from posthouse.mailbox.check import Check, Finding
from posthouse.mailbox.invariants import UNREAD
from posthouse.mailbox.write import write
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job, Lane, Queue
from posthouse.storage.records.base import Records, Row, Tx

_UNREAD = UNREAD.format("e")
_PAGE = 500

# In this order: what holds emails first, then what counts them.
_STEPS = (
    # Emails are found in mailboxes that exist, once, and look there as they are.
    """DELETE FROM membership WHERE account = $1 AND (
        NOT EXISTS (SELECT 1 FROM email e WHERE e.account = $1 AND e.id = membership.email)
        OR NOT EXISTS (SELECT 1 FROM mailbox m WHERE m.account = $1 AND m.id = membership.mailbox)
        OR EXISTS (SELECT 1 FROM membership o WHERE o.account = $1 AND o.email = membership.email
                   AND o.mailbox = membership.mailbox AND o.uid < membership.uid))""",
    "UPDATE mailbox SET parent = 0 WHERE account = $1 AND parent <> 0 AND parent NOT IN "
    "(SELECT id FROM mailbox WHERE account = $1)",
    """UPDATE mailbox SET uidnext = c.uid + 1 FROM (SELECT mailbox, max(uid) AS uid FROM (
            SELECT mailbox, uid FROM membership WHERE account = $1
            UNION ALL SELECT mailbox, uid FROM expunged WHERE account = $1) u GROUP BY mailbox) c
        WHERE mailbox.account = $1 AND mailbox.id = c.mailbox AND mailbox.uidnext <= c.uid""",
    """DELETE FROM expunged WHERE account = $1 AND EXISTS (SELECT 1 FROM membership m
        WHERE m.account = $1 AND m.mailbox = expunged.mailbox AND m.uid = expunged.uid)""",
    """INSERT INTO membership (account, mailbox, uid, email, thread, received_at, modseq, seen)
        SELECT $1, b.id, b.uidnext - 1 + row_number() OVER (ORDER BY e.id), e.id, e.thread, e.received_at, e.modseq, 0
        FROM email e JOIN mailbox b ON b.account = $1 AND b.role = 'inbox'
        WHERE e.account = $1 AND NOT EXISTS (SELECT 1 FROM membership m WHERE m.account = $1 AND m.email = e.id)""",
    """UPDATE mailbox SET uidnext = c.uid + 1
        FROM (SELECT mailbox, max(uid) AS uid FROM membership WHERE account = $1 GROUP BY mailbox) c
        WHERE mailbox.account = $1 AND mailbox.id = c.mailbox AND mailbox.uidnext <= c.uid""",
    f"""UPDATE membership SET thread = e.thread, received_at = e.received_at, seen = 1 - {_UNREAD} FROM email e
        WHERE membership.account = $1 AND e.account = $1 AND e.id = membership.email""",  # noqa: S608
    """DELETE FROM thread_key WHERE account = $1 AND NOT EXISTS
        (SELECT 1 FROM email e WHERE e.account = $1 AND e.id = thread_key.email)""",
    # Threads and what they count.
    """DELETE FROM thread WHERE account = $1 AND NOT EXISTS
        (SELECT 1 FROM email e WHERE e.account = $1 AND e.thread = thread.id)""",
    f"""INSERT INTO thread (account, id, emails, unread, latest_at, related, modseq)
        SELECT $1, e.thread, count(*), sum({_UNREAD}), max(e.received_at), 0, max(a.modseq)
        FROM email e JOIN account a ON a.number = $1 WHERE e.account = $1 GROUP BY e.thread
        ON CONFLICT (account, id) DO UPDATE SET emails = excluded.emails, unread = excluded.unread,
            latest_at = excluded.latest_at""",  # noqa: S608
    "DELETE FROM thread_mailbox WHERE account = $1",
    """INSERT INTO thread_mailbox (account, thread, mailbox, total, unread, latest_at, latest_email)
        SELECT $1, c.thread, c.mailbox, c.n, c.u, c.at, (SELECT max(m.email) FROM email e CROSS JOIN membership m
            WHERE e.account = $1 AND e.thread = c.thread AND e.received_at = c.at
                AND m.account = $1 AND m.email = e.id AND m.mailbox = c.mailbox)
        FROM (SELECT thread, mailbox, count(*) AS n, sum(1 - seen) AS u, max(received_at) AS at
              FROM membership WHERE account = $1 GROUP BY thread, mailbox) c""",
    "UPDATE mailbox SET total = 0, unread = 0, threads = 0, unread_threads = 0 WHERE account = $1",
    """UPDATE mailbox SET total = c.n, unread = c.u
        FROM (SELECT mailbox, count(*) AS n, sum(1 - seen) AS u FROM membership
              WHERE account = $1 GROUP BY mailbox) c
        WHERE mailbox.account = $1 AND mailbox.id = c.mailbox""",
    """UPDATE mailbox SET threads = c.n, unread_threads = c.u
        FROM (SELECT b.mailbox, count(*) AS n, sum(CASE WHEN t.unread > 0 THEN 1 ELSE 0 END) AS u
              FROM thread_mailbox b JOIN thread t ON t.account = $1 AND t.id = b.thread
              WHERE b.account = $1 GROUP BY b.mailbox) c
        WHERE mailbox.account = $1 AND mailbox.id = c.mailbox""",
    # The account, and a new beginning of its log.
    """UPDATE account SET emails = (SELECT count(*) FROM email WHERE account = $1),
        used = (SELECT coalesce(sum(size), 0) FROM email WHERE account = $1) WHERE number = $1""",
    *(
        f"""UPDATE account SET {column} = (SELECT max(id) + 1 FROM {table} WHERE account = $1)
        WHERE number = $1 AND {column} <= (SELECT coalesce(max(id), 0) FROM {table} WHERE account = $1)"""  # noqa: S608
        for column, table in (("next_email", "email"), ("next_thread", "thread"), ("next_mailbox", "mailbox"))
    ),
    "UPDATE email SET created_modseq = modseq WHERE account = $1 AND created_modseq > modseq",
    *(
        f"""UPDATE account SET modseq = (SELECT max(modseq) FROM {table} WHERE account = $1)
        WHERE number = $1 AND modseq < (SELECT coalesce(max(modseq), 0) FROM {table} WHERE account = $1)"""  # noqa: S608
        for table in ("email", "thread", "mailbox", "membership", "expunged", "change")
    ),
    "UPDATE account SET modseq = modseq + 1 WHERE number = $1",
    "UPDATE account SET change_floor = modseq WHERE number = $1",
    "DELETE FROM change WHERE account = $1",
)
_KEYWORDS_GONE = """
DELETE FROM keyword WHERE account = $1 AND NOT EXISTS (SELECT 1 FROM email e WHERE e.account = $1
    AND e.id = keyword.email AND e.keywords LIKE '% ' || keyword.keyword || ' %')"""
_KEYWORDS = "SELECT id, keywords FROM email WHERE account = $1 AND id > $2 AND keywords <> '' ORDER BY id LIMIT $3"
_NEW_KEYWORDS = """
INSERT INTO keyword (account, keyword, email) SELECT v.account, v.keyword, v.email
FROM {v(account int, keyword text, email int)} WHERE true ON CONFLICT DO NOTHING"""
_THREADING = "SELECT id, threading FROM email WHERE account = $1 AND id > $2 ORDER BY id LIMIT $3"
_NEW_KEYS = """
INSERT INTO thread_key (account, key, email) SELECT v.account, v.key, v.email
FROM {v(account int, key bytes, email int)} WHERE true ON CONFLICT DO NOTHING"""


class Mend:
    """`all` tells what is done as it goes; `check` again shows what is left."""

    def __init__(self, records: Records, contents: Contents, blobs: Blobs, queue: Queue, *, clock: Clock) -> None:
        self._records = records
        self._contents = contents
        self._blobs = blobs
        self._queue = queue
        self._clock = clock
        self._check = Check(records, blobs)

    async def all(self) -> AsyncIterator[str]:
        """Sentences for people. What is lost (octets that are not there) cannot be mended."""
        wrong: dict[int, set[str]] = {}
        shared: list[Finding] = []
        async for finding in self._check.all():
            if finding.account:
                wrong.setdefault(finding.account, set()).add(finding.code)
            else:
                shared.append(finding)
        for account, codes in wrong.items():
            if "thread_key_missing" in codes:
                await self._rekey(account)
            if await self.account(account):
                yield f"account {account}: counted and linked anew ({', '.join(sorted(codes))})"
        for finding in shared:
            done = await self._shared(finding)
            if done:
                yield done

    async def account(self, number: int) -> bool:
        """False: there is no such account."""

        async def work(tx: Tx) -> bool:
            books = await open_books(tx, [number])
            if number not in books.accounts:
                return False
            if await tx.row("SELECT 1 FROM mailbox WHERE account = $1 AND role = 'inbox'", number) is None:
                await self._new_inbox(tx, number)
            for statement in _STEPS:
                await tx.run(statement, number)
            await tx.run(_KEYWORDS_GONE, number)
            await _refill(tx, number, _KEYWORDS, _NEW_KEYWORDS, _keyword_rows)
            await _refill(tx, number, _THREADING, _NEW_KEYS, _key_rows)
            return True

        return await self._records.write(work)

    async def _new_inbox(self, tx: Tx, number: int) -> None:
        books = await open_books(tx, [number])
        account = books.accounts[number]
        top = await tx.row("SELECT coalesce(max(id), 0) FROM mailbox WHERE account = $1", number)
        account.next_mailbox = max(account.next_mailbox, int(top[0]) + 1 if top else 1)
        await folders.make_inbox(tx, books, account, self._clock())
        await write(books, tx, self._contents)

    async def _rekey(self, account: int) -> None:
        """What emails are placed by, read from the messages again where it is damaged."""
        last = 0
        while rows := await self._records.read(lambda tx, last=last: tx.rows(_THREADING, account, last, _PAGE)):
            last = rows[-1][0]
            for email, stored in rows:
                if not _readable(stored):
                    await self._rekey_one(account, email)

    async def _rekey_one(self, account: int, email: int) -> None:
        row = await self._records.read(
            lambda tx: tx.row("SELECT content, received_at FROM email WHERE account = $1 AND id = $2", account, email)
        )
        if row is None:
            return
        try:
            raw = await self._contents.get(row[0])
        except (NotFound, Corrupt):
            return
        stored = threading.encode(thread_keys(parse(raw), received_at=row[1]))
        await self._records.write(lambda tx: tx.run(_SET_THREADING, account, email, stored))

    async def _shared(self, finding: Finding) -> str | None:
        if finding.code == "inbound_without_job":
            await self._put_job(finding.subject)
            return f"{finding.subject} is stored again"
        if finding.code == "content_refs":
            await self._records.write(lambda tx: tx.run(_RECOUNT, finding.subject, self._clock()))
            return f"content {finding.subject}: references counted anew"
        if finding.code == "blob_orphan":
            # Named as one that nobody refers to, it is collected as others are: not before an hour.
            row = (finding.subject, len(await self._blobs.get(finding.subject)), self._clock())
            await self._records.write(lambda tx: tx.run_each(_ADOPT, [row]))
            return f"blob {finding.subject} is removed in an hour"
        return None

    async def _put_job(self, inbound: str) -> None:
        async def work(tx: Tx) -> None:
            row = await tx.row("SELECT min(tenant_id) FROM inbound_rcpt WHERE inbound_id = $1", inbound)
            if row is not None and row[0] is not None:
                job = Job("store", int(Lane.TRANSACTIONAL), row[0], self._clock(), inbound)
                await self._queue.put([job], tx=tx)

        await self._records.write(work)


_SET_THREADING = "UPDATE email SET threading = $3 WHERE account = $1 AND id = $2"
_RECOUNT = """
UPDATE content SET changed_at = $2, refs = (SELECT count(*) FROM email WHERE content = $1)
    + (SELECT count(*) FROM inbound i WHERE i.content = $1 AND EXISTS
        (SELECT 1 FROM inbound_rcpt r WHERE r.inbound_id = i.id AND r.state = 'accepted'))
    + (SELECT count(*) FROM relayed WHERE content = $1)
WHERE key = $1"""
_ADOPT = """
INSERT INTO content (key, size, data, refs, changed_at)
SELECT v.key, v.size, NULL, 0, v.now FROM {v(key text, size int, now int)} WHERE true ON CONFLICT DO NOTHING"""


_RowsOf = Callable[[int, Sequence[Row]], list[Row]]


async def _refill(tx: Tx, account: int, read: str, insert: str, rows_of: _RowsOf) -> None:
    last = 0
    while rows := await tx.rows(read, account, last, _PAGE):
        last = rows[-1][0]
        if new := rows_of(account, rows):
            await tx.run_each(insert, new)


def _readable(stored: bytes) -> bool:
    try:
        threading.decode(stored)
    except msgspec.MsgspecError:
        return False
    return True


def _keyword_rows(account: int, rows: Sequence[Row]) -> list[Row]:
    return [(account, word, email) for email, keywords in rows for word in keywords.split()]


def _key_rows(account: int, rows: Sequence[Row]) -> list[Row]:
    return [
        (account, key, email) for email, stored in rows if _readable(stored) for key in threading.decode(stored).keys
    ]
