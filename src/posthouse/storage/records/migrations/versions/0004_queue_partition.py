"""The queue on Kafka: what of each partition is done, in the transaction of the outcome.

A partition's row is written with the outcomes of its jobs, so an offset is done if and only if
its outcome is committed; `epoch` keeps out an owner that was replaced.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Int = sa.BigInteger()
Bytes = sa.LargeBinary()


def upgrade() -> None:
    op.create_table(
        "queue_partition",
        sa.Column("topic", Text, nullable=False),
        sa.Column("number", Int, nullable=False),
        sa.Column("topic_id", Text, nullable=False),  # offsets of a topic made anew begin at 0
        sa.Column("epoch", Int, nullable=False),
        sa.Column("owner", Text, nullable=False),
        sa.Column("leased_until", Int, nullable=False),  # µs; 0: nothing is held
        sa.Column("low", Int, nullable=False),  # every offset below it is done
        sa.Column("done", Text, nullable=False),  # those above it: storage.queue.kafka.progress
        sa.Column("claimed", Int, nullable=False),  # every offset below it was claimed at least once
        sa.Column("retries", Text, nullable=False),  # JSON: offset → claims, where more than once
        sa.Column("held", Bytes, nullable=False),  # CRC-32 of each id that is held, 4 octets each
        sa.Column("oldest", Int, nullable=True),  # due_at of the job at `low`, when it was known
        sa.PrimaryKeyConstraint("topic", "number"),
        sqlite_with_rowid=False,
    )
    # Jobs taken back while they lie in a topic: dropped when they are claimed.
    op.create_table(
        "queue_withdrawn",
        sa.Column("id", Text, nullable=False),
        sa.Column("stage", Text, nullable=False),
        sa.Column("due_at", Int, nullable=False),
        sa.PrimaryKeyConstraint("id", "stage", "due_at"),
        sqlite_with_rowid=False,
    )
    # What of a job decides its partition, where that is not its id.
    op.add_column("job", sa.Column("key", Text, nullable=True))
    op.add_column("job_buried", sa.Column("key", Text, nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE queue_partition SET (fillfactor = 20, autovacuum_vacuum_scale_factor = 0.02)")


def downgrade() -> None:
    raise RuntimeError("migrations only go up; restore a backup instead")
