"""The SQL of tables `template` and `template_version`."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse.storage.records.base import Row, Tx
from posthouse.templates.model import Key, Template, VersionSummary

_COLUMNS = "id, tenant_id, name, latest_version, published_version, created_at, updated_at"


async def insert(tx: Tx, template: Template) -> bool:
    """False when the tenant has one of this name."""
    touched = await tx.run(
        f"INSERT INTO template ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7) "  # noqa: S608
        "ON CONFLICT (tenant_id, name) DO NOTHING",
        template.id,
        template.tenant_id,
        template.name,
        template.latest_version,
        template.published_version,
        template.created_at,
        template.updated_at,
    )
    return touched == 1


async def insert_version(tx: Tx, key: Key, sources: tuple[str, str | None, str | None], now: int) -> None:
    """:param sources: subject, html, text."""
    await tx.run(
        "INSERT INTO template_version (template_id, version, subject, html, text, created_at) "
        "VALUES ($1, $2, $3, $4, $5, $6)",
        key.template_id,
        key.version,
        *sources,
        now,
    )


async def next_version(tx: Tx, tenant_id: str, name: str, publish: bool, now: int) -> Template | None:
    """Counts up, which holds the row until the transaction ends."""
    row = await tx.row(
        f"""UPDATE template SET latest_version = latest_version + 1, updated_at = $3,
            published_version = CASE WHEN $4 = 1 THEN latest_version + 1 ELSE published_version END
        WHERE tenant_id = $1 AND name = $2 RETURNING {_COLUMNS}""",  # noqa: S608
        tenant_id,
        name,
        now,
        int(publish),
    )
    return Template(*row) if row else None


async def publish(tx: Tx, tenant_id: str, name: str, version: int, now: int) -> Template | None:
    """None when there is no such template or it has no such version."""
    row = await tx.row(
        f"""UPDATE template SET published_version = $3, updated_at = $4
        WHERE tenant_id = $1 AND name = $2 AND latest_version >= $3 RETURNING {_COLUMNS}""",  # noqa: S608
        tenant_id,
        name,
        version,
        now,
    )
    return Template(*row) if row else None


async def by_names(tx: Tx, tenant_id: str, names: Sequence[str]) -> list[Template]:
    rows = await tx.rows(
        f"SELECT {_COLUMNS} FROM template WHERE tenant_id = $1 AND name = ANY($2)",  # noqa: S608
        tenant_id,
        names,
    )
    return [Template(*row) for row in rows]


async def page(tx: Tx, tenant_id: str, after: str, limit: int) -> list[Template]:
    rows = await tx.rows(
        f"SELECT {_COLUMNS} FROM template WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3",  # noqa: S608
        tenant_id,
        after,
        limit,
    )
    return [Template(*row) for row in rows]


async def summaries(tx: Tx, template_id: str, limit: int) -> list[VersionSummary]:
    """Newest first."""
    rows = await tx.rows(
        "SELECT version, subject, created_at FROM template_version WHERE template_id = $1 "
        "ORDER BY version DESC LIMIT $2",
        template_id,
        limit,
    )
    return [VersionSummary(*row) for row in rows]


async def sources(tx: Tx, keys: Sequence[Key]) -> list[Row]:
    """(template_id, version, subject, html, text, created_at) of those that exist."""
    return await tx.each(
        """SELECT t.template_id, t.version, t.subject, t.html, t.text, t.created_at
        FROM {v(template_id text, version int)}
        JOIN template_version t ON t.template_id = v.template_id AND t.version = v.version""",
        keys,
    )


async def delete(tx: Tx, tenant_id: str, name: str) -> bool:
    """The name only: versions stay, because messages refer to them by (template_id, version)."""
    return await tx.run("DELETE FROM template WHERE tenant_id = $1 AND name = $2", tenant_id, name) == 1
