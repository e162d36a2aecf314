"""The SQL of table `suppression`."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse.storage.records.base import Row, Tx
from posthouse.suppression.model import Reason, Suppression

_COLUMNS = "address, stream_id, reason, source, created_at, evidence, expires_at"

# A complaint that still holds is not weakened by what comes later; anything else is replaced.
_PUT = f"""
INSERT INTO suppression (tenant_id, {_COLUMNS})
SELECT v.tenant_id, v.address, v.stream_id, v.reason, v.source, v.created_at, v.evidence, v.expires_at
FROM {{v(tenant_id text, address text, stream_id text, reason text, source text,
        created_at int, evidence text, expires_at int)}}
WHERE true
ON CONFLICT (tenant_id, address, stream_id) DO UPDATE SET
    reason = excluded.reason, source = excluded.source, created_at = excluded.created_at,
    evidence = excluded.evidence, expires_at = excluded.expires_at
WHERE suppression.reason <> '{Reason.COMPLAINT}' OR excluded.reason = '{Reason.COMPLAINT}'
    OR suppression.expires_at <= excluded.created_at
"""  # noqa: S608

_FIND = """
SELECT v.n, s.address, s.stream_id, s.reason, s.source, s.created_at, s.evidence, s.expires_at
FROM {v(n int, tenant_id text, address text, stream_id text)}
JOIN suppression s ON s.tenant_id = v.tenant_id AND s.address = v.address
    AND (s.stream_id = v.stream_id OR s.stream_id = '')
WHERE s.expires_at IS NULL OR s.expires_at > $1
"""

_HELD = """
SELECT s.address, s.stream_id, s.reason, s.source, s.created_at, s.evidence, s.expires_at
FROM {v(address text, stream_id text)}
JOIN suppression s ON s.tenant_id = $1 AND s.address = v.address AND s.stream_id = v.stream_id
"""


async def put(tx: Tx, rows: Sequence[Row]) -> None:
    """Rows of (tenant_id, address, stream_id, reason, source, created_at, evidence, expires_at);
    no key twice."""
    await tx.each(_PUT, rows)


async def find(tx: Tx, rows: Sequence[tuple[int, str, str, str]], now: int) -> list[tuple[int, Suppression]]:
    """Rows of (n, tenant_id, folded address, stream_id); each n that is suppressed, perhaps
    twice (by its stream and by all)."""
    found = await tx.each(_FIND, rows, now)
    return [(row[0], Suppression(*row[1:])) for row in found]


async def held(tx: Tx, tenant_id: str, keys: Sequence[tuple[str, str]]) -> list[Suppression]:
    """Of exact (folded address, stream_id) keys."""
    rows = await tx.each(_HELD, keys, tenant_id)
    return [Suppression(*row) for row in rows]


async def get(tx: Tx, tenant_id: str, address: str, stream_id: str) -> Suppression | None:
    row = await tx.row(
        f"SELECT {_COLUMNS} FROM suppression WHERE tenant_id = $1 AND address = $2 AND stream_id = $3",  # noqa: S608
        tenant_id,
        address,
        stream_id,
    )
    return Suppression(*row) if row else None


async def page(
    tx: Tx,
    tenant_id: str,
    *,
    address: str | None,
    reason: str | None,
    stream_id: str | None,
    after: tuple[str, str],
    limit: int,
) -> list[Suppression]:
    """In order of the key, from behind `after`."""
    rows = await tx.rows(
        f"""SELECT {_COLUMNS} FROM suppression
        WHERE tenant_id = $1 AND (address, stream_id) > ($2, $3)
          AND (CAST($4 AS text) IS NULL OR address = $4)
          AND (CAST($5 AS text) IS NULL OR reason = $5)
          AND (CAST($6 AS text) IS NULL OR stream_id = $6)
        ORDER BY address, stream_id LIMIT $7""",  # noqa: S608
        tenant_id,
        after[0],
        after[1],
        address,
        reason,
        stream_id,
        limit,
    )
    return [Suppression(*row) for row in rows]


async def delete(tx: Tx, tenant_id: str, address: str, stream_id: str) -> int:
    return await tx.run(
        "DELETE FROM suppression WHERE tenant_id = $1 AND address = $2 AND stream_id = $3",
        tenant_id,
        address,
        stream_id,
    )


async def delete_expired(tx: Tx, now: int, limit: int) -> int:
    return await tx.run(
        """DELETE FROM suppression WHERE (tenant_id, address, stream_id) IN
        (SELECT tenant_id, address, stream_id FROM suppression WHERE expires_at <= $1 LIMIT $2)""",
        now,
        limit,
    )
