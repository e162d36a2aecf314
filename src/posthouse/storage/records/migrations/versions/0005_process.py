"""Which processes there are: a row each, renewed every two seconds. Nothing here is the truth."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Text = sa.Text(collation="C")
Int = sa.BigInteger()


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    text = Text if postgres else sa.Text()
    op.create_table(
        "process",
        sa.Column("id", text, primary_key=True),  # prc_…
        sa.Column("host", text, nullable=False),
        sa.Column("pid", Int, nullable=False),
        sa.Column("roles", text, nullable=False),  # divided by commas
        sa.Column("version", text, nullable=False),
        sa.Column("started_at", Int, nullable=False),  # µs, by its own clock
        sa.Column("seen_at", Int, nullable=False),  # µs, by the database's clock
        sa.Column("state", text, nullable=False),  # app.presence.State
    )
    if postgres:
        op.execute("ALTER TABLE process SET (fillfactor = 50)")
