"""Full-text search beside the records, on PostgreSQL only: on SQLite it has a file of its own.

Nothing here is the truth: it is made from the records and contents, and made again by a
rebuild. `search_doc.words` is a message's words in order, divided by spaces; among them stand
whose it is and in which block (`@12`, `@12/3`), so that one GIN index answers for an account
without a second condition.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Text = sa.Text(collation="C")
Int = sa.BigInteger()

_LZ4 = """
    DO $$ BEGIN
        ALTER TABLE search_doc ALTER COLUMN words SET COMPRESSION lz4;
    EXCEPTION WHEN OTHERS THEN NULL;
    END $$"""
"""A tenth of the time of pglz and smaller; not every server is built with it."""


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.create_table("search_meta", sa.Column("key", Text, primary_key=True), sa.Column("value", Text, nullable=False))
    op.create_table(
        "search_account",
        sa.Column("no", Int, sa.Identity(always=True), primary_key=True),
        sa.Column("account", Text, nullable=False, unique=True),
        sa.Column("last_block", Int),
    )
    op.create_table(
        "search_block",
        *(sa.Column(name, Int, primary_key=True, autoincrement=False) for name in ("account_no", "no")),
        *(sa.Column(name, Int, nullable=False) for name in ("emails", "earliest", "latest", "low", "high")),
    )
    op.create_table(
        "search_doc",
        sa.Column("email", Text, primary_key=True),
        sa.Column("account_no", Int, primary_key=True, autoincrement=False),
        sa.Column("received_at", Int, nullable=False),
        sa.Column("words", Text, nullable=False),
    )
    op.execute(_LZ4)
    # An index of an expression: a vector that is stored would take twice the room of the words.
    # New entries wait in a list that every query reads through, so it is kept short.
    op.execute(
        "CREATE INDEX search_doc_words ON search_doc"
        " USING gin (array_to_tsvector(string_to_array(words, ' '))) WITH (gin_pending_list_limit = 2048)"
    )
    op.execute("ALTER TABLE search_block SET (fillfactor = 70)")
    op.execute("INSERT INTO search_meta (key, value) VALUES ('needs_rebuild', 'new')")


def downgrade() -> None:
    raise RuntimeError("migrations only go up; restore a backup instead")
