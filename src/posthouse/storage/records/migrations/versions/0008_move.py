"""How far a move from another database has come: its state, and the chunks that are compared."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Int = sa.BigInteger()
Bytes = sa.LargeBinary()


def upgrade() -> None:
    # One row on a database that was moved to; none elsewhere.
    op.create_table(
        "move_state",
        sa.Column("name", Text, nullable=False),
        sa.Column("source", Text, nullable=False),
        sa.Column("state", Text, nullable=False),  # copying, ready
        sa.Column("changed_at", Int, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "move_chunk",
        sa.Column("relation", Text, nullable=False),
        sa.Column("upper", Bytes, nullable=False),  # the last key in it, msgpack
        sa.Column("hash", Bytes, nullable=False),  # of its rows; empty: not known
        sa.Column("row_count", Int, nullable=False),
        sa.Column("verified", Int, nullable=False),  # 1: read back here
        sa.PrimaryKeyConstraint("relation", "upper"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    raise RuntimeError("migrations only go up; restore a backup instead")
