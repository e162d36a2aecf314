"""The SQL of tables `domain` and `dkim_key`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from posthouse.domains.model import Check, Domain, KeyState
from posthouse.storage.records.base import Row, Tx

_DOMAIN = "d.id, d.tenant_id, d.name, d.state, d.checks, d.created_at, d.checked_at, d.verified_at"
_KEY = "k.id, k.selector, k.algorithm, k.public_key, k.active, k.created_at"
_STATUS = {0: "waiting", 1: "active", 2: "retired"}
_ACTIVE = {status: code for code, status in _STATUS.items()}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Check, ...]).decode


class NewKey(NamedTuple):
    id: str
    selector: str
    algorithm: str
    sealed: bytes
    public_key: str


class Sealed(NamedTuple):
    """An active key as the signer asks for it."""

    domain: str
    key_id: str
    selector: str
    algorithm: str
    sealed: bytes


async def insert(tx: Tx, domain: Domain) -> bool:
    """False when the tenant has it."""
    touched = await tx.run(
        "INSERT INTO domain (id, tenant_id, name, state, checks, created_at) VALUES ($1, $2, $3, $4, '[]', $5) "
        "ON CONFLICT (tenant_id, name) DO NOTHING",
        domain.id,
        domain.tenant_id,
        domain.name,
        str(domain.state),
        domain.created_at,
    )
    return touched == 1


async def insert_keys(tx: Tx, domain_id: str, keys: Sequence[NewKey], status: str, now: int) -> None:
    await tx.each(
        """INSERT INTO dkim_key (id, domain_id, selector, algorithm, private_key, public_key, active, created_at)
        SELECT v.id, $1, v.selector, v.algorithm, v.private_key, v.public_key, $2, $3
        FROM {v(id text, selector text, algorithm text, private_key bytes, public_key text)}""",
        keys,
        domain_id,
        _ACTIVE[status],
        now,
    )


async def by_name(tx: Tx, tenant_id: str, name: str) -> Domain | None:
    found = await _load(tx, "d.tenant_id = $1 AND d.name = $2", tenant_id, name)
    return found[0] if found else None


async def verified_elsewhere(tx: Tx, tenant_id: str, name: str) -> Domain | None:
    found = await _load(tx, "d.name = $1 AND d.tenant_id <> $2 AND d.state = 'verified'", name, tenant_id)
    return found[0] if found else None


async def of_tenant(tx: Tx, tenant_id: str) -> list[Domain]:
    return await _load(tx, "d.tenant_id = $1", tenant_id)


async def page(tx: Tx, tenant_id: str, after: str, limit: int) -> list[Domain]:
    return await _load(
        tx,
        "d.tenant_id = $1 AND d.name IN "
        "(SELECT name FROM domain WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3)",
        tenant_id,
        after,
        limit,
    )


async def _load(tx: Tx, where: str, *params: str | int) -> list[Domain]:
    """With their keys, in one statement, in order of name."""
    rows = await tx.rows(
        f"SELECT {_DOMAIN}, {_KEY} FROM domain d LEFT JOIN dkim_key k ON k.domain_id = d.id "  # noqa: S608
        f"WHERE {where} ORDER BY d.name, d.id, k.id",
        *params,
    )
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    return [_domain(group) for group in grouped.values()]


def _domain(rows: Sequence[Row]) -> Domain:
    identity, tenant_id, name, state, checks, created_at, checked_at, verified_at = rows[0][:8]
    keys = tuple(
        KeyState(row[8], row[9], row[10], row[11], _STATUS[row[12]], row[13]) for row in rows if row[8] is not None
    )
    return Domain(
        identity,
        tenant_id,
        name,
        state,
        _decode(checks) if checks != "{}" else (),
        keys,
        created_at,
        checked_at,
        verified_at,
    )


async def hold(tx: Tx, name: str) -> None:
    """Everyone's rows of this name until the transaction ends."""
    await tx.run("UPDATE domain SET state = state WHERE name = $1", name)


async def save_checks(
    tx: Tx, domain_id: str, state: str, checks: Sequence[Check], *, now: int, verified_at: int | None
) -> None:
    await tx.run(
        "UPDATE domain SET state = $2, checks = $3, checked_at = $4, verified_at = $5 WHERE id = $1",
        domain_id,
        state,
        _encode(checks).decode(),
        now,
        verified_at,
    )


async def save_status(tx: Tx, keys: Iterable[tuple[str, str]]) -> None:
    """Of (key id, status)."""
    rows = [(key_id, _ACTIVE[status]) for key_id, status in keys]
    if rows:
        await tx.each(
            "UPDATE dkim_key SET active = v.active FROM {v(id text, active int)} WHERE dkim_key.id = v.id", rows
        )


async def signing_keys(tx: Tx, tenant_id: str, names: Sequence[str]) -> list[Sealed]:
    rows = await tx.rows(
        """SELECT d.name, k.id, k.selector, k.algorithm, k.private_key
        FROM domain d JOIN dkim_key k ON k.domain_id = d.id
        WHERE d.tenant_id = $1 AND d.name = ANY($2) AND k.active = 1 ORDER BY d.name, k.algorithm DESC, k.id""",
        tenant_id,
        names,
    )
    return [Sealed(*row) for row in rows]


async def delete_retired(tx: Tx, domain_id: str) -> None:
    await tx.run("DELETE FROM dkim_key WHERE domain_id = $1 AND active = $2", domain_id, _ACTIVE["retired"])


async def delete(tx: Tx, tenant_id: str, name: str) -> bool:
    await tx.run(
        "DELETE FROM dkim_key WHERE domain_id IN (SELECT id FROM domain WHERE tenant_id = $1 AND name = $2)",
        tenant_id,
        name,
    )
    return await tx.run("DELETE FROM domain WHERE tenant_id = $1 AND name = $2", tenant_id, name) == 1
