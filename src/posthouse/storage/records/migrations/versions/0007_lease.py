"""Leases with a fence for what one process does at a time; which releases may run on this schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Int = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "lease",
        sa.Column("name", Text, nullable=False),
        sa.Column("holder", Text, nullable=False),
        sa.Column("fence", Int, nullable=False),  # grows with each holder
        sa.Column("until", Int, nullable=False),  # by the database's clock
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
    # One row: the oldest revision whose code works on the schema as it is. A migration that
    # takes something away raises it; one that adds leaves it.
    op.create_table("schema_floor", sa.Column("revision", Text, primary_key=True), sqlite_with_rowid=False)
    op.execute("INSERT INTO schema_floor (revision) VALUES ('0003')")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE lease SET (fillfactor = 50)")  # renewed in place, every few seconds


def downgrade() -> None:
    raise RuntimeError("migrations only go up; restore a backup instead")
