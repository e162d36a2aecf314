"""Tables in parts, on PostgreSQL: the ledger and its events by time, mailboxes by account.

By time: a part holds a week of ids, which begin with their millisecond, so that what has
grown old is dropped as a table and not deleted row by row. The table as it was becomes the
first part, without being copied. By account: rows are copied into 16 parts.

On both engines: when an attachment was last used, so that those of messages that are gone
can be collected.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
import structlog
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

log = structlog.get_logger("migration")

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Int = sa.BigInteger()

_WEEK = 7 * 24 * 3600 * 1000
_AHEAD = 4
_BY_TIME = (
    ("message", "id", "msg", "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05"),
    ("submission", "id", "sub", ""),
    ("event", "message_id", "msg", ""),
    ("inbound_rcpt", "inbound_id", "inb", "fillfactor = 90"),
    ("refusal", "id", "rfs", ""),
)
_PARTS = 16
_BY_ACCOUNT = (
    ("mailbox", "fillfactor = 50"),
    ("membership", ""),
    ("expunged", ""),
    ("change", ""),
    ("email", ""),
    ("keyword", ""),
    ("thread", "fillfactor = 80"),
    ("thread_mailbox", ""),
    ("thread_key", ""),
)


def upgrade() -> None:
    op.create_table(
        "blob_use",
        sa.Column("key", Text, nullable=False),
        sa.Column("last_at", Int, nullable=False),  # not before the last message that names it, less a day
        sa.Column("condemned_at", Int),
        sa.PrimaryKeyConstraint("key"),
        sqlite_with_rowid=False,
    )
    op.create_index("blob_use_age", "blob_use", ["last_at"])
    if op.get_bind().dialect.name != "postgresql":
        return
    # All at once and in one order, or the workers of the release before could deadlock with us.
    names = [name for name, *_ in _BY_TIME] + [name for name, _ in _BY_ACCOUNT]
    op.execute(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE")
    for name, key, prefix, options in _BY_TIME:
        _by_time(name, key, prefix, options)
    for name, options in _BY_ACCOUNT:
        _by_account(name, options)


def _by_time(name: str, key: str, prefix: str, options: str) -> None:
    newest = next(iter(_column(f"SELECT {key} FROM {name} ORDER BY {key} DESC LIMIT 1")), None)  # noqa: S608
    week = time.time_ns() // 1_000_000 // _WEEK * _WEEK
    constraints, indexes = _shape(name)
    op.execute(f"ALTER TABLE {name} RENAME TO {name}_first")
    for index in _column(f"SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = '{name}_first'::regclass"):  # noqa: S608
        op.execute(f"ALTER INDEX {index} RENAME TO {index}_first")
    op.execute(f"CREATE TABLE {name} (LIKE {name}_first INCLUDING DEFAULTS) PARTITION BY RANGE ({key})")
    for statement in (*constraints, *indexes):
        op.execute(statement)
    op.execute(f"CREATE TABLE {name}_default PARTITION OF {name} DEFAULT")
    first = week
    if newest is not None and str(newest) < f"{prefix}_{week + _WEEK:012x}":
        first = week + _WEEK
        op.execute(
            f"ALTER TABLE {name} ATTACH PARTITION {name}_first FOR VALUES FROM (MINVALUE) TO ('{prefix}_{first:012x}')"
        )
    for n in range(_AHEAD + 1):
        _week_of(name, prefix, first + n * _WEEK, options)
    if newest is None or first == week:
        _copy(name, empty=newest is None, source=f"{name}_first")


def _week_of(name: str, prefix: str, lower: int, options: str) -> None:
    day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=lower)
    op.execute(
        f"CREATE TABLE {name}_{day:%Y%m%d} PARTITION OF {name}"
        f" FOR VALUES FROM ('{prefix}_{lower:012x}') TO ('{prefix}_{lower + _WEEK:012x}')"
        + (f" WITH ({options})" if options else "")
    )


def _by_account(name: str, options: str) -> None:
    constraints, indexes = _shape(name)
    empty = not _value(f"SELECT EXISTS (SELECT 1 FROM {name})")  # noqa: S608
    op.execute(f"ALTER TABLE {name} RENAME TO {name}_before")
    op.execute(f"CREATE TABLE {name} (LIKE {name}_before INCLUDING DEFAULTS) PARTITION BY HASH (account)")
    for n in range(_PARTS):
        op.execute(
            f"CREATE TABLE {name}_{n:02} PARTITION OF {name} FOR VALUES WITH (MODULUS {_PARTS}, REMAINDER {n})"
            + (f" WITH ({options})" if options else "")
        )
    _copy(name, empty=empty, source=f"{name}_before")
    for statement in (*constraints, *indexes):
        op.execute(statement)


def _copy(name: str, *, empty: bool, source: str) -> None:
    if not empty:
        log.info("migration_copies", table=name)
        op.execute(f"INSERT INTO {name} SELECT * FROM {source}")  # noqa: S608
        # Not of empty ones: a plan is made for little rather than for nothing.
        op.execute(f"ANALYZE {name}")
    op.execute(f"DROP TABLE {source}")


def _shape(name: str) -> tuple[list[str], list[str]]:
    """The statements that make the constraints and the other indexes of a table of this name."""
    constraints = _column(
        f"SELECT 'ALTER TABLE {name} ADD CONSTRAINT ' || conname || ' ' || pg_get_constraintdef(oid)"  # noqa: S608
        f" FROM pg_constraint WHERE conrelid = '{name}'::regclass AND contype IN ('p', 'u') ORDER BY conname"
    )
    indexes = _column(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index i"  # noqa: S608
        f" WHERE indrelid = '{name}'::regclass"
        " AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = i.indexrelid) ORDER BY 1"
    )
    return constraints, indexes


def _value(sql: str) -> object:
    return op.get_bind().execute(sa.text(sql)).scalar()


def _column(sql: str) -> list[str]:
    return [str(row[0]) for row in op.get_bind().execute(sa.text(sql))]


def downgrade() -> None:
    raise RuntimeError("migrations only go up; restore a backup instead")
