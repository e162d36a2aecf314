"""What both backends share: accounts, blocks and messages in tables, the index beside them.

search_account (no, account, last_block)
search_block   (account_no, no, emails, earliest, latest, low, high)    see blocks.py
search_doc     (account_no, received_at, email, …)
search_meta    (key, value)                                             needs_rebuild
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from posthouse import errors
from posthouse.storage.records.base import Records, Row, Tx, Work
from posthouse.storage.search import base
from posthouse.storage.search.base import LIMIT_AT_MOST, Doc, Page, parse_position, position, unavailable
from posthouse.storage.search.blocks import Block, Fetch, Hit, extend, newest
from posthouse.storage.search.prepare import Prepared, batches, prepare
from posthouse.storage.search.query import Node, Query
from posthouse.storage.search.tokens import Tokens

T = TypeVar("T")

NEWER_THAN_ALL: Hit = ((1 << 63) - 1, "")

_ACCOUNTS = (
    "INSERT INTO search_account (account) SELECT v.account FROM {v(account text)} WHERE true ON CONFLICT DO NOTHING"
)
_LOCK = (
    "SELECT a.no FROM {v(account text)} JOIN search_account a ON a.account = v.account ORDER BY a.no FOR UPDATE OF a"
)
_LAST = """
    SELECT a.account, a.no, b.no, b.emails, b.earliest, b.latest, b.low, b.high
    FROM {v(account text)} JOIN search_account a ON a.account = v.account
    LEFT JOIN search_block b ON b.account_no = a.no AND b.no = a.last_block"""
_PRESENT = """
    SELECT d.account_no, d.email FROM {v(email text, account_no int)}
    JOIN search_doc d ON d.email = v.email AND d.account_no = v.account_no"""
_SET_BLOCKS = """
    INSERT INTO search_block (account_no, no, emails, earliest, latest, low, high)
    SELECT v.account_no, v.no, v.emails, v.earliest, v.latest, v.low, v.high
    FROM {v(account_no int, no int, emails int, earliest int, latest int, low int, high int)} WHERE true
    ON CONFLICT (account_no, no) DO UPDATE SET emails = excluded.emails, earliest = excluded.earliest,
        latest = excluded.latest, high = excluded.high"""
_SET_LAST = "UPDATE search_account SET last_block = v.last FROM {v(no int, last int)} WHERE search_account.no = v.no"
_BLOCKS = "SELECT no, emails, earliest, latest, low, high FROM search_block WHERE account_no = $1"


@dataclass(frozen=True, slots=True)
class Placed:
    """A message on its way into the tables."""

    account_no: int
    block: int
    number: int
    received_at: int
    email: str
    tokens: Tokens


class TableSearch(ABC):
    """`index` and `query` over a Records; a backend adds how words are kept and asked for."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def index(self, docs: Sequence[Doc]) -> int:
        added = 0
        for batch in batches(docs):
            prepared = await prepare(batch)
            added += await self._write(lambda tx, prepared=prepared: self._index(tx, prepared))
        return added

    async def remove(self, account: str, emails: Sequence[str]) -> None:
        known = [email for email in dict.fromkeys(emails) if email.isprintable()]
        if known and account.isprintable():
            await self._write(lambda tx: self._remove(tx, account, known))

    async def query(self, account: str, query: Query, *, limit: int = 50, before: str | None = None) -> Page:
        start = parse_position(before) if before is not None else None
        root = query.root
        if root is None or not account.isprintable():
            return Page((), total=0)
        most = max(1, min(limit, LIMIT_AT_MOST))
        try:
            async with asyncio.timeout(base.SECONDS_AT_MOST):
                return await self._read(lambda tx: self._page(tx, account, root, most, start))
        except TimeoutError:
            raise unavailable("the query took too long") from None

    async def rebuilt(self) -> None:
        await self._write(_forget_reason)

    async def close(self) -> None:
        await self._records.close()

    # A backend's own.

    @abstractmethod
    async def _first_number(self, tx: Tx) -> int | None:
        """The number of the next message, where messages are numbered."""

    @abstractmethod
    async def _insert(self, tx: Tx, placed: Sequence[Placed]) -> None: ...

    @abstractmethod
    async def _remove(self, tx: Tx, account: str, emails: Sequence[str]) -> None: ...

    @abstractmethod
    def _fetcher(self, tx: Tx, account_no: int, holds: int, root: Node, before: Hit) -> Fetch:
        """`holds`: how many messages the account has had."""

    # Shared.

    async def _read(self, work: Work[T]) -> T:
        return await self._guarded(self._records.read(work))

    async def _write(self, work: Work[T]) -> T:
        return await self._guarded(self._records.write(work))

    async def _guarded(self, answer: Coroutine[Any, Any, T]) -> T:
        try:
            return await answer
        except errors.StorageUnavailable as error:
            if error.code == "search_unavailable":
                raise
            raise unavailable(error.detail) from error

    async def _index(self, tx: Tx, prepared: Sequence[Prepared]) -> int:
        accounts = [(account,) for account in sorted({doc.account for doc, _ in prepared})]
        await tx.run_each(_ACCOUNTS, accounts)
        await tx.each(_LOCK, accounts)
        last: dict[int, Block | None] = {}
        numbers: dict[str, int] = {}
        for account, no, *block in await tx.each(_LAST, accounts):
            numbers[account] = no
            last[no] = Block(*block) if block[0] is not None else None
        asked = [(doc.email, numbers[doc.account]) for doc, _ in prepared]
        present = {(no, email) for no, email in await tx.each(_PRESENT, asked)}
        fresh = [(numbers[doc.account], doc, found) for doc, found in prepared]
        fresh = [each for each in fresh if (each[0], each[1].email) not in present]
        if fresh:
            placed, blocks = _place(fresh, last, await self._first_number(tx))
            await self._insert(tx, placed)
            await tx.run_each(_SET_BLOCKS, blocks)
            await tx.run_each(_SET_LAST, [(no, block) for no, block in {row[0]: row[1] for row in blocks}.items()])
        return len(fresh)

    async def _page(self, tx: Tx, account: str, root: Node, limit: int, before: Hit | None) -> Page:
        row = await tx.row("SELECT no FROM search_account WHERE account = $1", account)
        if row is None:
            return Page((), total=0)
        blocks = [Block(*block) for block in await tx.rows(_BLOCKS, row[0])]
        holds = sum(block.emails for block in blocks)
        fetch = self._fetcher(tx, row[0], holds, root, before or NEWER_THAN_ALL)
        found = await newest(blocks, fetch, limit + 1, before)
        hits = found.hits[:limit]
        following = position(*hits[-1]) if len(found.hits) > limit else None
        return Page(tuple(email for _, email in hits), following, found.total if before is None else None)


def _place(
    fresh: Sequence[tuple[int, Doc, Tokens]], last: dict[int, Block | None], first: int | None
) -> tuple[list[Placed], list[Row]]:
    """Numbers and blocks for the messages, which are in ascending order of time."""
    of_account: dict[int, list[int]] = {}
    for at, (no, _, _) in enumerate(fresh):
        of_account.setdefault(no, []).append(at)
    block_of = [0] * len(fresh)
    rows: list[Row] = []
    for no, ats in of_account.items():
        numbered = [first + at for at in ats] if first is not None else None
        blocks, placed = extend(last[no], [fresh[at][1].received_at for at in ats], numbered)
        rows += [(no, b.no, b.emails, b.earliest, b.latest, b.low, b.high) for b in blocks]
        for at, block in zip(ats, placed, strict=True):
            block_of[at] = block
    return [
        Placed(no, block_of[at], (first or 0) + at, doc.received_at, doc.email, found)
        for at, (no, doc, found) in enumerate(fresh)
    ], rows


async def reason(tx: Tx) -> Any:
    row = await tx.row("SELECT value FROM search_meta WHERE key = 'needs_rebuild'")
    return row[0] if row else None


async def set_reason(tx: Tx, value: str) -> None:
    await tx.run(
        "INSERT INTO search_meta (key, value) VALUES ('needs_rebuild', $1)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        value,
    )


async def _forget_reason(tx: Tx) -> None:
    await tx.run("DELETE FROM search_meta WHERE key = 'needs_rebuild'")
