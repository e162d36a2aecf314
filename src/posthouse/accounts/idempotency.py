"""The first answer to an `Idempotency-Key`, kept for a day.

1. `InFlight.hold` refuses a second request with the same key while the first runs here.
2. `lookup`, in the transaction, finds the first answer; `replay` compares the bodies.
3. `save`, in the same transaction, keeps the answer: what was accepted and what was answered
   are one durable step, so a crash between them cannot happen. A second process that wrote
   the key meanwhile makes it fail, and nothing is accepted twice.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from posthouse import errors
from posthouse.clock import DAY, SECOND
from posthouse.storage.records.base import Tx

LIFE = DAY
EXPIRE_BATCH = 5000
MAX_KEY = 256


class Stored(NamedTuple):
    body_hash: str
    status: int
    answer: bytes


class First(NamedTuple):
    """A first answer to keep."""

    tenant_id: str
    key: str
    body_hash: str
    created_at: int
    status: int
    answer: bytes


def check_key(key: str) -> str:
    """1 to 256 printable ASCII characters.

    :raises Invalid: code `idempotency_key_invalid`.
    """
    if 1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable():
        return key
    raise errors.Invalid(
        f"An Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters", code="idempotency_key_invalid"
    )


async def lookup(tx: Tx, tenant_id: str, keys: Sequence[str], *, now: int) -> dict[str, Stored]:
    """The answers of the last day to these keys; a key without one is left out."""
    rows = await tx.rows(
        "SELECT key, body_hash, status, answer FROM idempotency"
        " WHERE tenant_id = $1 AND key = ANY($2) AND created_at > $3",
        tenant_id,
        keys,
        now - LIFE,
    )
    return {row[0]: Stored(row[1], row[2], bytes(row[3])) for row in rows}


def replay(stored: Stored, body_hash: str) -> Stored:
    """The first answer; `CLAIMED` as its status: there is none yet.

    :raises Conflict: code `idempotency_key_reused`: the first request was another one."""
    if stored.body_hash != body_hash:
        raise errors.Conflict("This Idempotency-Key came with another request before", code="idempotency_key_reused")
    return stored


async def save(tx: Tx, rows: Sequence[First]) -> None:
    """:raises Conflict: code `idempotency_in_flight`: another process has just answered one of them."""
    kept = await tx.each(
        "INSERT INTO idempotency (tenant_id, key, body_hash, created_at, status, answer)"
        " SELECT tenant_id, key, body_hash, created_at, status, answer"
        " FROM {v(tenant_id text, key text, body_hash text, created_at int, status int, answer bytes)} WHERE true"
        " ON CONFLICT (tenant_id, key) DO UPDATE SET body_hash = excluded.body_hash,"
        " created_at = excluded.created_at, status = excluded.status, answer = excluded.answer"
        " WHERE idempotency.created_at <= excluded.created_at - $1 RETURNING key",
        rows,
        LIFE,
    )
    if len(kept) != len(rows):
        raise in_flight()


CLAIMED = 0
"""The status of a key that was claimed before what it answers for was durable."""
ABANDONED = 15 * SECOND
"""A claim that was not answered for so long was left by a process that died."""


async def claim(tx: Tx, rows: Sequence[First]) -> dict[tuple[str, str], Stored]:
    """Take each (tenant, key) before the work is done; `complete` it afterwards. A claim that a
    process died with is taken over: with its answer, which the work must lead to again.

    :raises Conflict: code `idempotency_in_flight`: one of them is another's, or was answered.
    """
    claims = [row._replace(status=CLAIMED) for row in rows]
    taken = await tx.each(
        "INSERT INTO idempotency (tenant_id, key, body_hash, created_at, status, answer)"
        " SELECT tenant_id, key, body_hash, created_at, status, answer"
        " FROM {v(tenant_id text, key text, body_hash text, created_at int, status int, answer bytes)} WHERE true"
        " ON CONFLICT (tenant_id, key) DO UPDATE SET created_at = excluded.created_at,"
        " body_hash = excluded.body_hash, status = excluded.status,"
        " answer = CASE WHEN idempotency.created_at <= excluded.created_at - $1 THEN excluded.answer"
        " ELSE idempotency.answer END"
        " WHERE idempotency.created_at <= excluded.created_at - $1"
        " OR (idempotency.status = 0 AND idempotency.body_hash = excluded.body_hash"
        " AND idempotency.created_at <= excluded.created_at - $2)"
        " RETURNING tenant_id, key, body_hash, status, answer",
        claims,
        LIFE,
        ABANDONED,
    )
    if len(taken) != len(rows):
        raise in_flight()
    return {(tenant, key): Stored(body_hash, status, bytes(answer)) for tenant, key, body_hash, status, answer in taken}


async def complete(tx: Tx, rows: Sequence[First]) -> None:
    """What was claimed is done: from now on it is answered."""
    await tx.run_each(
        "UPDATE idempotency SET status = v.status FROM {v(tenant_id text, key text, status int)}"
        " WHERE idempotency.tenant_id = v.tenant_id AND idempotency.key = v.key AND idempotency.status = 0",
        [(row.tenant_id, row.key, row.status) for row in rows],
    )


async def abandon(tx: Tx, rows: Sequence[First]) -> None:
    """Whoever asks again may take these claims over at once."""
    await tx.run_each(
        "UPDATE idempotency SET created_at = idempotency.created_at - $1 FROM {v(tenant_id text, key text)}"
        " WHERE idempotency.tenant_id = v.tenant_id AND idempotency.key = v.key AND idempotency.status = 0",
        [(row.tenant_id, row.key) for row in rows],
        ABANDONED,
    )


async def expire(tx: Tx, *, now: int, most: int = EXPIRE_BATCH) -> int:
    """Forget up to `most` answers older than a day; how many."""
    return await tx.run(
        "DELETE FROM idempotency WHERE (tenant_id, key) IN"
        " (SELECT tenant_id, key FROM idempotency WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
        now - LIFE,
        most,
    )


class InFlight:
    """The keys of the requests that run in this process now."""

    def __init__(self) -> None:
        self._held: set[tuple[str, str]] = set()

    @contextmanager
    def hold(self, tenant_id: str, key: str) -> Generator[None, None, None]:
        """:raises Conflict: code `idempotency_in_flight`: the first request still runs."""
        mark = tenant_id, key
        if mark in self._held:
            raise in_flight()
        self._held.add(mark)
        try:
            yield
        finally:
            self._held.discard(mark)


def in_flight() -> errors.Conflict:
    return errors.Conflict(
        "A request with this Idempotency-Key is under way; try again", code="idempotency_in_flight", retry_after=1
    )
