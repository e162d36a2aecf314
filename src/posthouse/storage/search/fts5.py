"""Search in SQLite's FTS5: a file of its own, `search.db`, that may be deleted.

The full-text table keeps no contents (`content=''`): only the index is stored. Such a table
cannot delete in SQLite 3.40, so a removed message stays as a row of `search_doc` without its
id, is passed over, and its room is regained by a rebuild. Messages are numbered in order of
arrival: close numbers are short in the index (a third of the size that numbers made of account
and time had), and every batch is appended. Whose message it is, is one more word (`@12`).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from posthouse import errors
from posthouse.storage.records.address import SqliteAddress
from posthouse.storage.records.base import Tx
from posthouse.storage.records.sqlite import SqliteRecords
from posthouse.storage.search import blocks as walk
from posthouse.storage.search.base import Capabilities, Size, Unbuilt, unavailable
from posthouse.storage.search.blocks import Block, Fetch, Hit, ranges
from posthouse.storage.search.query import All, Node, Not, Some, Term
from posthouse.storage.search.tables import Placed, TableSearch, reason, set_reason
from posthouse.storage.search.tokens import MARKS, MARKS_USED

T = TypeVar("T")

_SCHEMA = (
    "CREATE TABLE search_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE search_account (no INTEGER PRIMARY KEY, account TEXT NOT NULL UNIQUE, last_block INTEGER)",
    """CREATE TABLE search_block (account_no INTEGER, no INTEGER, emails INTEGER, earliest INTEGER, latest INTEGER,
        low INTEGER, high INTEGER, PRIMARY KEY (account_no, no)) WITHOUT ROWID""",
    "CREATE TABLE search_doc (id INTEGER PRIMARY KEY, account_no INTEGER, received_at INTEGER, email TEXT)",
    "CREATE UNIQUE INDEX search_doc_email ON search_doc (email, account_no)",
    # `ascii` takes every character beyond ASCII as part of a word: words come divided by spaces.
    f"""CREATE VIRTUAL TABLE search_text USING fts5 (body, head, scope, content='', columnsize=0, detail=full,
        tokenize="ascii tokenchars '{MARKS_USED}'")""",
    "INSERT INTO search_text (search_text, rank) VALUES ('hashsize', 67108864)",
    "INSERT INTO search_text (search_text, rank) VALUES ('automerge', 4)",
    "INSERT INTO search_text (search_text, rank) VALUES ('pgsz', 2000)",
    "INSERT INTO search_meta (key, value) VALUES ('schema', '1')",
)
"""`hashsize`: octets of new postings held before they are written within one transaction; more
than a batch has, so that a batch is one segment. `automerge` and `pgsz`: at a million messages
4 and 2000 leave 12 segments where 8 and 4050 (the page's size) leave 20; a query that finds
nothing in the cache takes half the time, and writing takes a twelfth longer."""

_INSERT_DOC = """
    INSERT INTO search_doc (id, account_no, received_at, email)
    SELECT v.id, v.account_no, v.received_at, v.email FROM {v(id int, account_no int, received_at int, email text)}"""
_INSERT_TEXT = """
    INSERT INTO search_text (rowid, body, head, scope)
    SELECT v.id, v.body, v.head, v.scope FROM {v(id int, body text, head text, scope text)}"""
_REMOVE = """
    UPDATE search_doc SET email = NULL FROM {v(email text, account_no int)}
    WHERE search_doc.email = v.email AND search_doc.account_no = v.account_no"""
_MATCHES = """
    SELECT d.received_at, d.email FROM search_text JOIN search_doc d ON d.id = search_text.rowid
    WHERE search_text MATCH $1 AND search_text.rowid BETWEEN $2 AND $3
      AND d.account_no = $4 AND d.email IS NOT NULL AND (d.received_at, d.email) < ($5, $6)
    ORDER BY search_text.rowid DESC LIMIT $7"""
_MOST_OF_IT = 4
"""An account with a fourth of all messages is told by their rows alone: its own word is in so
long a list that going along it costs more than looking at rows in vain."""
_DAMAGE = ("the database file is corrupt", "the file is not a database")
"""What `sqlite_engine` says of it."""
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
    }
)
"""Trouble that is not the file's own."""
_ALL = (0, (1 << 63) - 1)
_REMOVED_AT_LEAST = 10_000
"""Before removed messages ask for a rebuild."""


class Fts5Search(TableSearch):
    """`base.Search` over one file. Made by `open`."""

    capabilities = Capabilities(engine="sqlite", batch=500)

    def __init__(self, path: Path, records: SqliteRecords, *, read_only: bool) -> None:
        super().__init__(records)
        self._path = path
        self._read_only = read_only
        self._identity = _identity(path)
        self._clearing = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, *, read_only: bool = False) -> Fts5Search:
        """Makes the file where there is none. One that is damaged is set aside as
        `<path>.broken` (one at a time is kept) and a new one made.

        :raises Misconfigured: the directory cannot be written.
        :raises StorageUnavailable: `search_unavailable`.
        """
        set_aside = False if read_only else await asyncio.to_thread(_set_aside_if_broken, path)
        try:
            records = await _open(path, "broken" if set_aside else "new", read_only=read_only)
        except errors.StorageUnavailable as error:
            raise unavailable(error.detail) from error
        return cls(path, records, read_only=read_only)

    async def _remove(self, tx: Tx, account: str, emails: Sequence[str]) -> None:
        row = await tx.row("SELECT no FROM search_account WHERE account = $1", account)
        if row is not None:
            await tx.run_each(_REMOVE, [(email, row[0]) for email in emails])

    async def clear(self) -> None:
        async with self._clearing:
            if self._read_only:
                raise unavailable("SQLite: opened read-only")
            old = self._records
            await old.close()
            await asyncio.to_thread(_delete, self._path)
            self._records = await super()._guarded(_open(self._path, "rebuilding"))
            self._identity = _identity(self._path)

    async def size(self) -> Size:
        async def work(tx: Tx) -> tuple[int, int, Unbuilt | None]:
            row = await tx.row("SELECT count(*), count(email) FROM search_doc")
            assert row is not None
            return row[1], row[0] - row[1], await reason(tx)

        emails, removed, why = await self._read(work)
        if why is None and removed > max(emails, _REMOVED_AT_LEAST):
            why = "removed"
        return Size(emails, removed, await asyncio.to_thread(_octets, self._path), why)

    async def ready(self) -> None:
        await self._guarded(self._records.ready())

    async def _first_number(self, tx: Tx) -> int:
        row = await tx.row("SELECT coalesce(max(id), 0) + 1 FROM search_doc")
        assert row is not None
        return row[0]

    async def _insert(self, tx: Tx, placed: Sequence[Placed]) -> None:
        await tx.run_each(
            _INSERT_DOC, [(each.number, each.account_no, each.received_at, each.email) for each in placed]
        )
        await tx.run_each(
            _INSERT_TEXT,
            [
                (each.number, " ".join(each.tokens.body), " ".join(each.tokens.head), f"@{each.account_no}")
                for each in placed
            ],
        )

    def _fetcher(self, tx: Tx, account_no: int, holds: int, root: Node, before: Hit) -> Fetch:
        scope = f"@{account_no}"
        match = ""

        async def fetch(blocks: Sequence[Block] | None) -> list[Hit] | None:
            nonlocal match
            if not match:
                of_all = await self._first_number(tx) - 1
                match = expression(root, scope, scoped=holds * _MOST_OF_IT < of_all)
            if blocks is None:
                rows = await tx.rows(_MATCHES, match, *_ALL, account_no, *before, walk.FEW + 1)
                return [(at, email) for at, email in rows] if len(rows) <= walk.FEW else None
            hits: list[Hit] = []
            for low, high in ranges(blocks):
                rows = await tx.rows(_MATCHES, match, low, high, account_no, *before, -1)
                hits += [(at, email) for at, email in rows]
            return hits

        return fetch

    async def _guarded(self, answer: Coroutine[Any, Any, T]) -> T:
        """Notices that the file is gone or damaged: connections to a deleted file go on."""
        if _identity(self._path) != self._identity:
            answer.close()
            raise unavailable(f"{self._path} is gone or was replaced; rebuild it")
        try:
            return await super()._guarded(answer)
        except errors.StorageUnavailable as error:
            if not self._read_only and any(sign in error.detail for sign in _DAMAGE):
                _mark_damaged(self._path)
            raise


def expression(root: Node, scope: str, *, scoped: bool = True) -> str:
    """FTS5's text for the query, within the messages that have the word `scope` if `scoped`."""
    every = f'"{scope}"'
    return f"{_part(root, every)} AND {every}" if scoped else _part(root, every)


def _part(node: Node, every: str) -> str:
    match node:
        case Term():
            return _term(node)
        case Some(parts):
            return f"({' OR '.join(_part(part, every) for part in parts)})"
        case Not(part):
            return f"({every} NOT {_part(part, every)})"
        case All(parts):
            wanted = [_part(part, every) for part in parts if not isinstance(part, Not)]
            unwanted = [_part(part.part, every) for part in parts if isinstance(part, Not)]
            both = f"({' AND '.join(wanted or [every])})"
            return f"({both} NOT ({' OR '.join(unwanted)}))" if unwanted else both


def _term(term: Term) -> str:
    if term.field is None or term.field == "body":
        text = " ".join(term.words)
    else:
        mark = MARKS[term.field]
        text = mark + term.whole if term.whole else " ".join(mark + word for word in term.words)
    column = "{body} : " if term.field == "body" else ""
    quoted = text.replace('"', '""')
    return f'({column}"{quoted}"{" *" if term.prefix else ""})'


async def _open(path: Path, why: Unbuilt, *, read_only: bool = False) -> SqliteRecords:
    records = await SqliteRecords.open(SqliteAddress(path), read_only=read_only)

    async def create(tx: Tx) -> None:
        if await tx.row("SELECT 1 FROM sqlite_schema WHERE name = 'search_meta'") is None:
            for statement in _SCHEMA:
                await tx.run(statement)
            await set_reason(tx, why)

    if not read_only:
        try:
            await records.write(create)
        except BaseException:
            await records.close()
            raise
    return records


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _beside(path: Path) -> list[Path]:
    return [Path(f"{path}{end}") for end in ("-wal", "-shm", ".damaged")]


def _delete(path: Path) -> None:
    for each in (path, *_beside(path)):
        each.unlink(missing_ok=True)


def _octets(path: Path) -> int:
    return sum(each.stat().st_size for each in (path, Path(f"{path}-wal")) if each.exists())


def _mark_damaged(path: Path) -> None:
    """The next start sets it aside."""
    with contextlib.suppress(OSError):
        Path(f"{path}.damaged").touch(mode=0o600)


def _set_aside_if_broken(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size or not _is_broken(path):
        return False
    path.replace(f"{path}.broken")
    _delete(path)
    return True


def _is_broken(path: Path) -> bool:
    """By what costs nothing: the header, the length, the schema, one look into the index."""
    if Path(f"{path}.damaged").exists():
        return True
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return _looks_broken(connection, path)
    except sqlite3.DatabaseError as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PASSING


def _looks_broken(connection: sqlite3.Connection, path: Path) -> bool:
    """:raises sqlite3.DatabaseError: it cannot be read."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (octets,) = connection.execute("PRAGMA page_size").fetchone()
    schema = connection.execute("SELECT value FROM search_meta WHERE key = 'schema'").fetchone()
    connection.execute("SELECT rowid FROM search_text WHERE search_text MATCH '\"@0\"' LIMIT 1").fetchall()
    log = Path(f"{path}-wal")
    return schema != ("1",) or path.stat().st_size + (log.stat().st_size if log.exists() else 0) < pages * octets
