"""Search in PostgreSQL: a tsvector for each message, under a GIN index.

GIN gives all matches in no order, so the newest of many are found by blocks (blocks.py): a
message's vector also holds its account and block as words (`@12`, `@12/3`), and GIN meets
short lists with long ones by skipping in the long. Vectors are written here word by word,
never parsed by the server, so that both backends have the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posthouse.storage.records.address import PostgresAddress
from posthouse.storage.records.base import Tx
from posthouse.storage.records.postgres import PostgresRecords
from posthouse.storage.search.base import Capabilities, Size
from posthouse.storage.search.blocks import Block, Fetch, Hit
from posthouse.storage.search.query import All, Node, Not, Some, Term
from posthouse.storage.search.tables import Placed, TableSearch, reason, set_reason
from posthouse.storage.search.tokens import BOUNDARY, MARKS, Tokens

_LAST_POSITION = 16_383
_POSITIONS_AT_MOST = 255
"""Of one word; PostgreSQL keeps no more (documentation, 12.11 Limitations)."""
_OCTETS_AT_MOST = 900_000
"""Of one vector: words and positions must stay under 1 MB."""

_INSERT = """
    INSERT INTO search_doc (email, account_no, received_at, words)
    SELECT v.email, v.account_no, v.received_at, v.words::tsvector
    FROM {v(email text, account_no int, received_at int, words text)}"""
_MATCHES = """
    SELECT received_at, email FROM search_doc
    WHERE words @@ ($1::text)::tsquery AND (received_at, email) < ($2, $3) LIMIT $4"""
_EVERY = 1 << 62
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

    async def remove(self, account: str, emails: Sequence[str]) -> None:
        known = [email for email in dict.fromkeys(emails) if "\0" not in email]
        if known and "\0" not in account:
            await self._write(lambda tx: tx.run(_REMOVE, account, known))

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
                    vector(each.tokens, _scopes(each.account_no, each.block)),
                )
                for each in placed
            ],
        )

    def _fetcher(self, tx: Tx, account_no: int, root: Node, before: Hit) -> Fetch:
        asked = _part(root)
        allowed = False

        async def fetch(blocks: Sequence[Block] | None, most: int | None) -> list[Hit]:
            nonlocal allowed
            if not allowed:  # GIN has no other plan; the pool's connections are set against it
                await tx.run("SET LOCAL enable_bitmapscan = on")
                allowed = True
            scopes = [f"@{account_no}"] if blocks is None else [f"@{account_no}/{block.no}" for block in blocks]
            query = f"({' | '.join(map(_quoted, scopes))}) & {asked}"
            rows = await tx.rows(_MATCHES, query, *before, _EVERY if most is None else most)
            return [(received_at, email) for received_at, email in rows]

        return fetch


def vector(tokens: Tokens, scopes: Sequence[str]) -> str:
    """The words as a tsvector's text: those of the head weigh A, those of the body D."""
    places: dict[str, list[str]] = {scope: [] for scope in scopes}
    octets = 0
    for word, place in _placed(tokens):
        found = places.get(word)
        if found is None:
            octets += 4 * len(word) + 8
            if octets > _OCTETS_AT_MOST:
                break
            places[word] = [place]
        elif len(found) < _POSITIONS_AT_MOST:
            octets += 2
            found.append(place)
    return " ".join([f"'{word}':{','.join(at)}" if at else f"'{word}'" for word, at in places.items()])


def _placed(tokens: Tokens) -> Iterator[tuple[str, str]]:
    for at, word in enumerate(tokens.head, 1):
        if word != BOUNDARY:
            yield word, f"{min(at, _LAST_POSITION)}A"
    for at, word in enumerate(tokens.body, len(tokens.head) + 2):
        yield word, str(min(at, _LAST_POSITION))


def _scopes(account_no: int, block: int) -> tuple[str, str]:
    return f"@{account_no}", f"@{account_no}/{block}"


def _part(node: Node) -> str:
    match node:
        case Term():
            return _term(node)
        case Some(parts):
            return f"({' | '.join(_part(part) for part in parts)})"
        case Not(part):
            return f"!({_part(part)})"
        case All(parts):
            return f"({' & '.join(_part(part) for part in parts)})"


def _term(term: Term) -> str:
    label = "D" if term.field == "body" else ""
    mark = MARKS[term.field] if term.field is not None and term.field != "body" else ""
    if term.whole and mark:
        return _quoted(mark + term.whole)
    parts = [_quoted(mark + word) + (f":{label}" if label else "") for word in term.words]
    if term.prefix:
        parts[-1] = f"{_quoted(mark + term.words[-1])}:*{label}"
    return f"({' <-> '.join(parts)})"


def _quoted(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
