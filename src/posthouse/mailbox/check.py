"""Proves that the mailboxes are what they say: every invariant, account by account, then what all
accounts share. Each question is one statement, so it sees one moment, and reads are bounded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from posthouse.errors import Error
from posthouse.mailbox import threading
from posthouse.mailbox.invariants import EVERY
from posthouse.storage.blobs.base import Blobs, key_of
from posthouse.storage.records.base import Records, Row, Tx

ANSWERS = 20
"""Violations of one invariant in one account that are told."""
_PAGE = 500
_NUMBERS = 50_000
"""Emails or threads that one statement looks at, one by one."""
_EMAILS_IN_PART = 200_000
_PARTS_AT_MOST = 256


class Finding(msgspec.Struct, frozen=True):
    """`account` 0: it is about none. `code` is stable; `subject`: the key or id it is about."""

    account: int
    code: str
    text: str
    subject: str = ""


class Check:
    def __init__(self, records: Records, blobs: Blobs) -> None:
        """:param blobs: those of the raw messages, and of nothing else."""
        self._records = records
        self._blobs = blobs

    async def all(self, *, deep: bool = False) -> AsyncIterator[Finding]:
        """:param deep: read every message and compare it with the hash that it lies under."""
        async for account in self.accounts():
            async for finding in self.account(account):
                yield finding
        for check in (self._lost(), self._references(), self._stored(deep), self._orphans()):
            async for finding in check:
                yield finding

    async def accounts(self) -> AsyncIterator[int]:
        last = 0
        while rows := await self._rows(
            "SELECT number FROM account WHERE number > $1 AND state <> 'deleted' ORDER BY number LIMIT $2", last, _PAGE
        ):
            for (last,) in rows:
                yield last

    async def account(self, number: int) -> AsyncIterator[Finding]:
        last = await self._last_numbers(number)
        for invariant in EVERY:
            starts = range(0, last[invariant.over] + 1, _NUMBERS) if invariant.over else [None]
            for start in starts:
                bounds = () if start is None else (start, start + _NUMBERS - 1)
                for row in await self._rows(invariant.sql, number, ANSWERS, *bounds):
                    yield Finding(number, invariant.code, invariant.sentence.format(*row))
        async for finding in self._keys(number):
            yield finding

    async def _last_numbers(self, account: int) -> dict[str, int]:
        """Also those that the account's counters do not know of."""
        found: dict[str, int] = {}
        for table in ("email", "thread"):
            statement = f"SELECT coalesce(max(id), 0) FROM {table} WHERE account = $1"  # noqa: S608 - two constants
            found[table] = (await self._rows(statement, account))[0][0]
        return found

    async def _keys(self, account: int) -> AsyncIterator[Finding]:
        """Each email is found by its keys."""
        last = 0
        while True:
            rows, lost = await self._records.read(lambda tx, last=last: _lost_keys(tx, account, last))
            for email, problem in lost:
                yield Finding(account, "thread_key_missing", f"email {email}: {problem}", str(email))
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    async def _lost(self) -> AsyncIterator[Finding]:
        """Whatever was acknowledged and is not done has a job."""
        last = ""
        while rows := await self._rows(_WITHOUT_JOB, last, _PAGE):
            for (last,) in rows:
                yield Finding(0, "inbound_without_job", f"{last} is not stored, and no job is there to do it", last)

    async def _references(self) -> AsyncIterator[Finding]:
        """Contents are counted by who refers to them: emails, arrivals that are not done,
        and what was handed to the sending flow."""
        row = await self._rows("SELECT coalesce(sum(emails), 0) FROM account")
        parts = min(_PARTS_AT_MOST, int(row[0][0]) // _EMAILS_IN_PART + 1)
        bounds = [f"{part * 256 // parts:02x}" for part in range(parts)]
        for start, end in zip(bounds, [*bounds[1:], "g"], strict=True):
            for key, refs, referred in await self._rows(_REFERENCES, start, end, ANSWERS):
                if refs is None:
                    yield Finding(0, "content_missing", f"content {key} is referred to {referred} times and lost", key)
                else:
                    text = f"content {key} counts {refs} references; there are {referred}"
                    yield Finding(0, "content_refs", text, key)

    async def _stored(self, deep: bool) -> AsyncIterator[Finding]:
        last = ""
        while rows := await self._rows(_CONTENTS, last, _PAGE):
            for key, small in rows:
                last = key
                problem = await self._problem(key, small=bool(small), deep=deep)
                if problem:
                    yield Finding(0, "content_broken", f"content {key} {problem}", key)

    async def _problem(self, key: str, *, small: bool, deep: bool) -> str:
        if not deep:
            return "" if small or await self._blobs.exists(key) else "is not in the blob store"
        try:
            data = (await self._rows("SELECT data FROM content WHERE key = $1", key))[0][0] if small else None
            found = key_of(data if data is not None else await self._blobs.get(key))
        except Error as error:
            return f"cannot be read: {error.public}"
        return "" if found == key else "holds other octets"

    async def _orphans(self) -> AsyncIterator[Finding]:
        page: list[str] = []
        async for key in self._blobs.keys():
            page.append(key)
            if len(page) == _PAGE:
                for orphan in await self._unknown(page):
                    yield _orphan(orphan)
                page = []
        for orphan in await self._unknown(page):
            yield _orphan(orphan)

    async def _unknown(self, keys: Sequence[str]) -> list[str]:
        if not keys:
            return []
        rows = await self._records.read(lambda tx: tx.each(_UNKNOWN, [(key,) for key in keys]))
        return [key for (key,) in rows]

    async def _rows(self, sql: str, *params: str | int) -> list[Row]:
        return await self._records.read(lambda tx: tx.rows(sql, *params))


def _orphan(key: str) -> Finding:
    return Finding(0, "blob_orphan", f"blob {key} belongs to no content (one that comes in now is no fault)", key)


async def _lost_keys(tx: Tx, account: int, last: int) -> tuple[list[Row], list[tuple[int, str]]]:
    rows = await tx.rows(_THREADING, account, last, _PAGE)
    wanted: list[Row] = []
    problems: list[tuple[int, str]] = []
    for email, stored in rows:
        try:
            wanted += [(account, key, email) for key in threading.decode(stored).keys]
        except msgspec.MsgspecError:
            problems.append((email, "what is kept to place others by cannot be read"))
    if wanted:
        missing = await tx.each(_NOT_THERE, wanted)
        problems += [(email, "it is not found by a key of its own") for email in sorted({row[0] for row in missing})]
    return rows, problems


_THREADING = "SELECT id, threading FROM email WHERE account = $1 AND id > $2 ORDER BY id LIMIT $3"
_NOT_THERE = """
SELECT v.email FROM {v(account int, key bytes, email int)}
WHERE NOT EXISTS (SELECT 1 FROM thread_key k WHERE k.account = v.account AND k.key = v.key AND k.email = v.email)"""
# No joins here: two long lists side by side are grouped, which each engine does in one pass.
_WITHOUT_JOB = """
SELECT id FROM (
    SELECT inbound_id AS id, 1 AS waits, 0 AS held FROM inbound_rcpt WHERE state = 'accepted' AND inbound_id > $1
    UNION ALL SELECT id, 0, 1 FROM job WHERE stage = 'store' AND id > $1
    UNION ALL SELECT id, 0, 1 FROM job_buried WHERE stage = 'store' AND id > $1) a
GROUP BY id HAVING max(waits) = 1 AND max(held) = 0 ORDER BY id LIMIT $2"""
_REFERENCES = """
SELECT key, max(refs), sum(n) FROM (
    SELECT key, refs, 0 AS n FROM content WHERE key >= $1 AND key < $2
    UNION ALL SELECT content, NULL, 1 FROM email WHERE content >= $1 AND content < $2
    UNION ALL SELECT i.content, NULL, 1 FROM inbound i WHERE i.content >= $1 AND i.content < $2 AND EXISTS
        (SELECT 1 FROM inbound_rcpt r WHERE r.inbound_id = i.id AND r.state = 'accepted')
    UNION ALL SELECT content, NULL, 1 FROM relayed WHERE content >= $1 AND content < $2) a
GROUP BY key HAVING max(refs) IS NULL OR max(refs) <> sum(n) LIMIT $3"""
_CONTENTS = """
SELECT key, CASE WHEN data IS NULL THEN 0 ELSE 1 END FROM content
WHERE key > $1 AND condemned_at IS NULL ORDER BY key LIMIT $2"""
_UNKNOWN = "SELECT v.key FROM {v(key text)} WHERE NOT EXISTS (SELECT 1 FROM content c WHERE c.key = v.key)"
