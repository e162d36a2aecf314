"""Search in PostgreSQL: a message's words in a text column, under a GIN index of a vector of them.

GIN gives all matches in no order, so the newest of many are found by blocks (blocks.py): among
a message's words are its account and block (`@12`, `@12/3`), and GIN meets short lists with
long ones by skipping in the long. The index knows which words a message has, not where; a
phrase, or a word of the body alone, is looked for in the words of what the index found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posthouse.storage.records.address import PostgresAddress
from posthouse.storage.records.base import Tx
from posthouse.storage.records.postgres import PostgresRecords
from posthouse.storage.search import blocks as walk
from posthouse.storage.search.base import Capabilities, Size
from posthouse.storage.search.blocks import Block, Fetch, Hit
from posthouse.storage.search.query import All, Node, Not, Some, Term
from posthouse.storage.search.tables import Placed, TableSearch, reason, set_reason
from posthouse.storage.search.tokens import BOUNDARY, MARKS, Tokens
from posthouse.storage.search.words import LONGEST

_OCTETS_AT_MOST = 900_000
"""Of different words of one message: a vector is less than 1 MB (PostgreSQL, 12.11)."""
_BODY = "|"
"""Stands before the words of the body."""

_INSERT = """
    INSERT INTO search_doc (email, account_no, received_at, words)
    SELECT v.email, v.account_no, v.received_at, v.words
    FROM {v(email text, account_no int, received_at int, words text)}"""
_MATCHES = """
    SELECT received_at, email FROM search_doc
    WHERE array_to_tsvector(string_to_array(words, ' ')) @@ ($1::text)::tsquery AND (received_at, email) < ($2, $3)"""
_REMOVE = """
    DELETE FROM search_doc d USING search_account a
    WHERE a.account = $1 AND d.account_no = a.no AND d.email = ANY($2)"""
_OCTETS = "SELECT pg_total_relation_size('search_doc')"


class PostgresSearch(TableSearch):
    """`base.Search` over a pool of its own, so that slow queries keep nothing else waiting."""

    capabilities = Capabilities(engine="postgresql", batch=500)

    @classmethod
    async def open(
        cls, address: PostgresAddress, *, read_only: bool = False, connections: int = 4, statement_timeout: float = 10.0
    ) -> PostgresSearch:
        """Connects at the first use. The tables are made by the records' migration.

        :raises Misconfigured: the URL cannot be understood.
        """
        return cls(
            await PostgresRecords.open(
                address, read_only=read_only, connections=connections, statement_timeout=statement_timeout
            )
        )

    async def _remove(self, tx: Tx, account: str, emails: Sequence[str]) -> None:
        await tx.run(_REMOVE, account, emails)

    async def clear(self) -> None:
        async def work(tx: Tx) -> None:
            await tx.run("TRUNCATE search_doc, search_block, search_account")
            await set_reason(tx, "rebuilding")

        await self._write(work)

    async def size(self) -> Size:
        async def work(tx: Tx) -> Size:
            emails = await tx.row("SELECT count(*) FROM search_doc")
            octets = await tx.row(_OCTETS)
            assert emails is not None
            assert octets is not None
            return Size(emails[0], 0, octets[0], await reason(tx))

        return await self._read(work)

    async def ready(self) -> None:
        async def work(tx: Tx) -> None:
            await tx.row("SELECT 1 FROM search_doc LIMIT 1")

        await self._read(work)

    async def _first_number(self, tx: Tx) -> int | None:
        return None

    async def _insert(self, tx: Tx, placed: Sequence[Placed]) -> None:
        await tx.run_each(
            _INSERT,
            [
                (
                    each.email,
                    each.account_no,
                    each.received_at,
                    text(each.tokens, each.account_no, each.block),
                )
                for each in placed
            ],
        )

    def _fetcher(self, tx: Tx, account_no: int, holds: int, root: Node, before: Hit) -> Fetch:
        asked = loose(root)
        exactly, sought = exact(root) if not _is_exact(root) else ("", [])
        condition = f" AND {exactly}" if exactly else ""
        allowed = False

        async def fetch(blocks: Sequence[Block] | None) -> list[Hit] | None:
            nonlocal allowed
            if not allowed:  # GIN has no other plan; the pool's connections are set against it
                await tx.run("SET LOCAL enable_bitmapscan = on")
                allowed = True
            scopes = [f"@{account_no}"] if blocks is None else [f"@{account_no}/{block.no}" for block in blocks]
            query = f"({' | '.join(map(_quoted, scopes))})" + (f" & {asked}" if asked else "")
            if blocks is None:  # what the index lets through counts: looking into its words is what costs
                rows = await tx.rows(f"{_MATCHES} LIMIT $4", query, *before, walk.FEW + 1)
                if len(rows) > walk.FEW or not condition:
                    return [(at, email) for at, email in rows] if len(rows) <= walk.FEW else None
            rows = await tx.rows(_MATCHES + condition, query, *before, *sought)
            return [(at, email) for at, email in rows]

        return fetch


def text(tokens: Tokens, account_no: int, block: int) -> str:
    """The words in order, a space between any two. The first and the last are none of the message's."""
    every = [f"@{account_no}", f"@{account_no}/{block}", *tokens.head, _BODY, *tokens.body, BOUNDARY]
    if 4 * LONGEST * len(every) > _OCTETS_AT_MOST:
        every = [*_bounded(every), BOUNDARY]
    return " ".join(every)


def _bounded(every: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    octets = 0
    for word in every:
        if word not in seen:
            seen.add(word)
            octets += len(word.encode()) + 8
        if octets > _OCTETS_AT_MOST:
            return
        yield word


def _is_exact(node: Node) -> bool:
    """Whether the index alone tells: no phrase, and nothing of the body alone."""
    match node:
        case Term():
            return (len(node.words) == 1 or _whole(node) is not None) and node.field != "body"
        case All(parts) | Some(parts):
            return all(map(_is_exact, parts))
        case Not(part):
            return _is_exact(part)


def loose(node: Node) -> str | None:
    """A tsquery that what matches the node also matches; None when there is none."""
    match node:
        case Term():
            return f"({' & '.join(_lexemes(node))})"
        case All(parts):
            known = [part for part in map(loose, parts) if part is not None]
            return f"({' & '.join(known)})" if known else None
        case Some(parts):
            known = [part for part in map(loose, parts) if part is not None]
            return f"({' | '.join(known)})" if len(known) == len(parts) else None
        case Not(part):
            return f"!({loose(part)})" if _is_exact(part) else None


def exact(root: Node) -> tuple[str, list[str]]:
    """A condition on `words` that is the node itself, and its parameters from $4 on."""
    sought: list[str] = []

    def condition(node: Node) -> str:
        match node:
            case Term():
                sought.append(_sought(node))
                where = f"split_part(words, '{_BODY}', 2)" if node.field == "body" else "words"
                return f"strpos({where}, ${3 + len(sought)}) > 0"
            case All(parts):
                return f"({' AND '.join(map(condition, parts))})"
            case Some(parts):
                return f"({' OR '.join(map(condition, parts))})"
            case Not(part):
                return f"NOT ({condition(part)})"

    return condition(root), sought


def _mark(term: Term) -> str:
    return MARKS[term.field] if term.field is not None and term.field != "body" else ""


def _whole(term: Term) -> str | None:
    return _mark(term) + term.whole if term.whole and _mark(term) else None


def _lexemes(term: Term) -> list[str]:
    if (whole := _whole(term)) is not None:
        return [_quoted(whole)]
    lexemes = [_quoted(_mark(term) + word) for word in term.words]
    if term.prefix:
        lexemes[-1] += ":*"
    return lexemes


def _sought(term: Term) -> str:
    """As it stands among the words: after a space, and before one unless a word only begins so."""
    row = _whole(term) or " ".join([_mark(term) + word for word in term.words])
    return f" {row}" if term.prefix else f" {row} "


def _quoted(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
