"""The SQL of tenants, users, keys and streams; nobody else's."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from posthouse.accounts.model import ApiKey, Limits, Stream, Tenant, User
from posthouse.storage.queue.base import Lane
from posthouse.storage.records.base import Row, Tx

_TENANT = "tenant.id, tenant.name, tenant.created_at, suspended_at, rate_per_second, burst, daily_quota"
_KEY = "id, tenant_id, name, hint, scopes, domain, created_at, expires_at, revoked_at, last_used_at"
_USER = "id, tenant_id, email, name, role, created_at, password_hash IS NOT NULL"
_STREAM = "id, tenant_id, name, kind, lane, max_age, created_at, settings"


def _tenant(row: Row) -> Tenant:
    return Tenant(row[0], row[1], row[2], row[3], Limits(row[4], row[5], row[6]))


def _key(row: Row) -> ApiKey:
    scopes = frozenset(msgspec.json.decode(row[4], type=list[str]))
    return ApiKey(row[0], row[1], row[2], row[3], scopes, *row[5:10])


def _user(row: Row) -> User:
    return User(*row[:6], has_password=bool(row[6]))


def _stream(row: Row) -> Stream:
    return Stream(row[0], row[1], row[2], row[3], Lane(row[4]), row[5], row[6], msgspec.json.decode(row[7]))


async def add_tenant(tx: Tx, tenant: Tenant) -> None:
    await tx.run(
        "INSERT INTO tenant (id, name, created_at, suspended_at, rate_per_second, burst, daily_quota)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        tenant.id,
        tenant.name,
        tenant.created_at,
        tenant.suspended_at,
        tenant.limits.rate_per_second,
        tenant.limits.burst,
        tenant.limits.daily_quota,
    )


async def tenant(tx: Tx, tenant_id: str) -> Tenant | None:
    row = await tx.row(f"SELECT {_TENANT} FROM tenant WHERE id = $1", tenant_id)  # noqa: S608 columns are ours
    return _tenant(row) if row else None


async def tenant_named(tx: Tx, name: str) -> Tenant | None:
    row = await tx.row(f"SELECT {_TENANT} FROM tenant WHERE name = $1", name)  # noqa: S608 columns are ours
    return _tenant(row) if row else None


async def tenants(tx: Tx, after: str, limit: int) -> list[Tenant]:
    sql = f"SELECT {_TENANT} FROM tenant WHERE id > $1 ORDER BY id LIMIT $2"  # noqa: S608 columns are ours
    return [_tenant(row) for row in await tx.rows(sql, after, limit)]


async def save_tenant(tx: Tx, tenant: Tenant) -> None:
    await tx.run(
        "UPDATE tenant SET name = $2, suspended_at = $3, rate_per_second = $4, burst = $5, daily_quota = $6"
        " WHERE id = $1",
        tenant.id,
        tenant.name,
        tenant.suspended_at,
        tenant.limits.rate_per_second,
        tenant.limits.burst,
        tenant.limits.daily_quota,
    )


async def add_user(tx: Tx, user: User, password_hash: str | None) -> None:
    await tx.run(
        "INSERT INTO app_user (id, tenant_id, email, name, role, password_hash, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        user.id,
        user.tenant_id,
        user.email,
        user.name,
        user.role,
        password_hash,
        user.created_at,
    )


async def user(tx: Tx, tenant_id: str, user_id: str) -> User | None:
    row = await tx.row(
        f"SELECT {_USER} FROM app_user WHERE tenant_id = $1 AND id = $2",  # noqa: S608 columns are ours
        tenant_id,
        user_id,
    )
    return _user(row) if row else None


async def users(tx: Tx, tenant_id: str, after: str, limit: int) -> list[User]:
    sql = f"SELECT {_USER} FROM app_user WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3"  # noqa: S608 columns are ours
    return [_user(row) for row in await tx.rows(sql, tenant_id, after, limit)]


async def user_and_hash(tx: Tx, tenant_id: str, email: str) -> tuple[User, str | None] | None:
    row = await tx.row(
        f"SELECT {_USER}, password_hash FROM app_user WHERE tenant_id = $1 AND email = $2",  # noqa: S608 columns are ours
        tenant_id,
        email,
    )
    return (_user(row), row[7]) if row else None


async def set_password_hash(tx: Tx, user_id: str, password_hash: str | None) -> None:
    await tx.run("UPDATE app_user SET password_hash = $2 WHERE id = $1", user_id, password_hash)


async def add_key(tx: Tx, key: ApiKey, secret_hash: str) -> None:
    await tx.run(
        "INSERT INTO api_key (id, tenant_id, name, secret_hash, hint, scopes, domain, created_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        key.id,
        key.tenant_id,
        key.name,
        secret_hash,
        key.hint,
        msgspec.json.encode(sorted(key.scopes)).decode(),
        key.domain,
        key.created_at,
        key.expires_at,
    )


async def key(tx: Tx, tenant_id: str, key_id: str) -> ApiKey | None:
    row = await tx.row(
        f"SELECT {_KEY} FROM api_key WHERE tenant_id = $1 AND id = $2",  # noqa: S608 columns are ours
        tenant_id,
        key_id,
    )
    return _key(row) if row else None


async def keys(tx: Tx, tenant_id: str, after: str, limit: int) -> list[ApiKey]:
    sql = f"SELECT {_KEY} FROM api_key WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3"  # noqa: S608 columns are ours
    return [_key(row) for row in await tx.rows(sql, tenant_id, after, limit)]


async def key_to_check(tx: Tx, key_id: str) -> tuple[ApiKey, str, Tenant] | None:
    """The key with its secret's hash and its tenant, whoever's it is: for authentication only."""
    columns = "api_key." + _KEY.replace(" name", " api_key.name").replace(" created_at", " api_key.created_at")
    row = await tx.row(
        f"SELECT {columns}, secret_hash, {_TENANT} FROM api_key"  # noqa: S608 columns are ours
        " JOIN tenant ON tenant.id = tenant_id WHERE api_key.id = $1",
        key_id,
    )
    return (_key(row[:10]), row[10], _tenant(row[11:])) if row else None


async def revoke_key(tx: Tx, key_id: str, at: int) -> None:
    await tx.run("UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL", key_id, at)


async def save_last_used(tx: Tx, used: Sequence[tuple[str, int]]) -> None:
    await tx.each(
        "UPDATE api_key SET last_used_at = v.at FROM {v(id text, at int)}"
        " WHERE api_key.id = v.id AND (last_used_at IS NULL OR last_used_at < v.at)",
        used,
    )


async def add_streams(tx: Tx, streams: Sequence[Stream]) -> None:
    await tx.each(
        "INSERT INTO stream (id, tenant_id, name, kind, lane, max_age, settings, created_at)"
        " SELECT id, tenant_id, name, kind, lane, max_age, settings, created_at"
        " FROM {v(id text, tenant_id text, name text, kind text, lane int, max_age int, settings text,"
        " created_at int)}",
        [(s.id, s.tenant_id, s.name, s.kind, int(s.lane), s.max_age, _settings(s), s.created_at) for s in streams],
    )


async def stream(tx: Tx, tenant_id: str, name: str) -> Stream | None:
    row = await tx.row(
        f"SELECT {_STREAM} FROM stream WHERE tenant_id = $1 AND name = $2",  # noqa: S608 columns are ours
        tenant_id,
        name,
    )
    return _stream(row) if row else None


async def streams(tx: Tx, tenant_id: str) -> list[Stream]:
    sql = f"SELECT {_STREAM} FROM stream WHERE tenant_id = $1 ORDER BY name"  # noqa: S608 columns are ours
    return [_stream(row) for row in await tx.rows(sql, tenant_id)]


async def streams_by_id(tx: Tx, ids: Sequence[str]) -> list[Stream]:
    sql = f"SELECT {_STREAM} FROM stream WHERE id = ANY($1)"  # noqa: S608 columns are ours
    return [_stream(row) for row in await tx.rows(sql, ids)]


async def save_stream(tx: Tx, stream: Stream) -> None:
    await tx.run(
        "UPDATE stream SET lane = $2, max_age = $3, settings = $4 WHERE id = $1",
        stream.id,
        int(stream.lane),
        stream.max_age,
        _settings(stream),
    )


def _settings(stream: Stream) -> str:
    return msgspec.json.encode(stream.settings).decode()
