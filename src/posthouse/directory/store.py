"""The SQL of tables `mail_domain`, `account` (what the directory keeps of it) and `alias`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from posthouse.directory.model import Account, AccountSettings, Alias, AliasKind, DomainSettings, MailDomain
from posthouse.storage.records.base import Row, Tx, Value

_DOMAIN = "name, tenant_id, settings, created_at"
_ACCOUNT = (
    "a.number, a.id, a.tenant_id, a.address, a.name, a.state, a.quota, a.settings, a.created_at, a.used, a.emails"
)
_ALIAS = "address, tenant_id, kind, targets, created_at"
_encode = msgspec.json.Encoder().encode
_domain_settings = msgspec.json.Decoder(DomainSettings).decode
_account_settings = msgspec.json.Decoder(AccountSettings).decode
_targets = msgspec.json.Decoder(tuple[str, ...]).decode


def _domain(row: Row) -> MailDomain:
    return MailDomain(row[0], row[1], _domain_settings(row[2]), row[3])


def _account(row: Row) -> Account:
    number, id_, tenant_id, address, name, state, quota, settings, created_at, used, emails = row
    decoded = _account_settings(settings)
    return Account(number, id_, tenant_id, address, name, state, quota, decoded, created_at, used, emails)


def _alias(row: Row) -> Alias:
    return Alias(row[0], row[1], AliasKind(row[2]), _targets(row[3]), row[4])


# Domains


async def insert_domain(tx: Tx, domain: MailDomain) -> bool:
    """False when somebody has it."""
    touched = await tx.run(
        "INSERT INTO mail_domain (name, tenant_id, settings, created_at) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT (name) DO NOTHING",
        domain.name,
        domain.tenant_id,
        _encode(domain.settings).decode(),
        domain.created_at,
    )
    return touched == 1


async def hold_domain(tx: Tx, name: str) -> MailDomain | None:
    """The domain, and its row until the transaction ends: whoever adds an address holds it,
    so that no address is given twice and no domain goes with an address in it."""
    rows = await tx.rows(
        f"UPDATE mail_domain SET created_at = created_at WHERE name = $1 RETURNING {_DOMAIN}",  # noqa: S608
        name,
    )
    return _domain(rows[0]) if rows else None


async def domains(tx: Tx, names: Sequence[str]) -> dict[str, MailDomain]:
    rows = await tx.rows(f"SELECT {_DOMAIN} FROM mail_domain WHERE name = ANY($1)", names)  # noqa: S608
    return {row[0]: _domain(row) for row in rows}


async def domain_page(tx: Tx, tenant_id: str, after: str, limit: int) -> list[MailDomain]:
    rows = await tx.rows(
        f"SELECT {_DOMAIN} FROM mail_domain WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3",  # noqa: S608
        tenant_id,
        after,
        limit,
    )
    return [_domain(row) for row in rows]


async def oldest_domain(tx: Tx) -> str | None:
    row = await tx.row("SELECT name FROM mail_domain ORDER BY created_at, name LIMIT 1")
    return row[0] if row else None


async def save_domain(tx: Tx, domain: MailDomain) -> None:
    await tx.run("UPDATE mail_domain SET settings = $2 WHERE name = $1", domain.name, _encode(domain.settings).decode())


async def domain_in_use(tx: Tx, name: str) -> bool:
    row = await tx.row(
        "SELECT EXISTS (SELECT 1 FROM account WHERE domain = $1) OR EXISTS (SELECT 1 FROM alias WHERE domain = $1)",
        name,
    )
    return row is not None and bool(row[0])


async def delete_domain(tx: Tx, name: str) -> None:
    await tx.run("DELETE FROM mail_domain WHERE name = $1", name)


async def used_of_domains(tx: Tx, names: Sequence[str]) -> dict[str, int]:
    """Octets of all accounts of each. Walks the domain's accounts."""
    rows = await tx.rows("SELECT domain, sum(used) FROM account WHERE domain = ANY($1) GROUP BY domain", names)
    return {name: int(used) for name, used in rows}


# Accounts


async def next_number(tx: Tx) -> int:
    """Of an account, never given before."""
    row = await tx.row(
        "INSERT INTO counter (name, value) VALUES ('account', 1) "
        "ON CONFLICT (name) DO UPDATE SET value = counter.value + 1 RETURNING value"
    )
    assert row is not None
    return row[0]


async def insert_account(tx: Tx, account: Account, domain: str, password_hash: str | None) -> None:
    await tx.run(
        "INSERT INTO account (number, id, tenant_id, address, domain, name, password_hash, state, quota, settings, "
        "created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        account.number,
        account.id,
        account.tenant_id,
        account.address,
        domain,
        account.name,
        password_hash,
        account.state,
        account.quota,
        _encode(account.settings).decode(),
        account.created_at,
    )


async def account(tx: Tx, tenant_id: str, name: str) -> Account | None:
    """:param name: its id or its folded address."""
    column = "address" if "@" in name else "id"
    rows = await _accounts(tx, f"a.{column} = $1 AND a.tenant_id = $2", name, tenant_id)
    return rows[0] if rows else None


async def account_page(tx: Tx, tenant_id: str, domain: str | None, after: str, limit: int) -> list[Account]:
    if domain is None:
        return await _accounts(
            tx, "a.tenant_id = $1 AND a.address > $2 ORDER BY a.address LIMIT $3", tenant_id, after, limit
        )
    return await _accounts(
        tx,
        "a.tenant_id = $1 AND a.address > $2 AND a.domain = $4 ORDER BY a.address LIMIT $3",
        tenant_id,
        after,
        limit,
        domain,
    )


async def accounts_at(tx: Tx, addresses: Sequence[str]) -> list[Account]:
    rows = await tx.each(
        f"SELECT {_ACCOUNT} FROM {{v(address text)}} CROSS JOIN account a WHERE a.address = v.address",  # noqa: S608
        [(address,) for address in addresses],
    )
    return [_account(row) for row in rows]


async def accounts_numbered(tx: Tx, numbers: Sequence[int]) -> list[Account]:
    rows = await tx.each(
        f"SELECT {_ACCOUNT} FROM {{v(number int)}} CROSS JOIN account a WHERE a.number = v.number",  # noqa: S608
        [(number,) for number in numbers],
    )
    return [_account(row) for row in rows]


async def first_accounts(tx: Tx, names: Sequence[str]) -> dict[str, Account]:
    """The first active account of each domain."""
    rows = await tx.each(
        f"SELECT {_ACCOUNT}, v.name FROM {{v(name text)}} CROSS JOIN account a "  # noqa: S608
        "WHERE a.domain = v.name AND a.number = (SELECT min(b.number) FROM account b "
        "WHERE b.domain = v.name AND b.state = 'active')",
        [(name,) for name in names],
    )
    return {row[-1]: _account(row[:-1]) for row in rows}


async def _accounts(tx: Tx, where: str, *params: Value) -> list[Account]:
    rows = await tx.rows(f"SELECT {_ACCOUNT} FROM account a WHERE {where}", *params)  # noqa: S608
    return [_account(row) for row in rows]


async def password_hash(tx: Tx, address: str) -> tuple[Account, str | None] | None:
    row = await tx.row(f"SELECT {_ACCOUNT}, a.password_hash FROM account a WHERE a.address = $1", address)  # noqa: S608
    return (_account(row[:-1]), row[-1]) if row else None


async def save_account(tx: Tx, account: Account) -> None:
    """Only what the directory keeps: the counters are the mailboxes'."""
    await tx.run(
        "UPDATE account SET name = $2, state = $3, quota = $4, settings = $5 WHERE number = $1",
        account.number,
        account.name,
        account.state,
        account.quota,
        _encode(account.settings).decode(),
    )


async def save_password_hash(tx: Tx, number: int, hashed: str | None) -> None:
    await tx.run("UPDATE account SET password_hash = $2 WHERE number = $1", number, hashed)


async def delete_account(tx: Tx, number: int) -> None:
    await tx.run("DELETE FROM account WHERE number = $1", number)


# Aliases


async def put_alias(tx: Tx, alias: Alias, domain: str) -> None:
    await tx.run(
        "INSERT INTO alias (address, tenant_id, domain, kind, targets, created_at) VALUES ($1, $2, $3, $4, $5, $6) "
        "ON CONFLICT (address) DO UPDATE SET kind = excluded.kind, targets = excluded.targets",
        alias.address,
        alias.tenant_id,
        domain,
        str(alias.kind),
        _encode(alias.targets).decode(),
        alias.created_at,
    )


async def aliases_at(tx: Tx, addresses: Sequence[str]) -> list[Alias]:
    rows = await tx.each(
        "SELECT a.address, a.tenant_id, a.kind, a.targets, a.created_at "
        "FROM {v(address text)} CROSS JOIN alias a WHERE a.address = v.address",
        [(address,) for address in addresses],
    )
    return [_alias(row) for row in rows]


async def alias(tx: Tx, tenant_id: str, address: str) -> Alias | None:
    row = await tx.row(f"SELECT {_ALIAS} FROM alias WHERE address = $1 AND tenant_id = $2", address, tenant_id)  # noqa: S608
    return _alias(row) if row else None


async def alias_page(tx: Tx, tenant_id: str, after: str, limit: int) -> list[Alias]:
    rows = await tx.rows(
        f"SELECT {_ALIAS} FROM alias WHERE tenant_id = $1 AND address > $2 ORDER BY address LIMIT $3",  # noqa: S608
        tenant_id,
        after,
        limit,
    )
    return [_alias(row) for row in rows]


async def delete_alias(tx: Tx, address: str) -> None:
    await tx.run("DELETE FROM alias WHERE address = $1", address)
