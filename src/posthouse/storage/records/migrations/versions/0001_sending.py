"""The sending flow: accounts, templates, domains, the ledger, events, the queue.

Times are microseconds since 1970 (UTC). JSON lies in text columns. Keys that begin with a
time-sorted id keep inserts at the end of the tree; on SQLite such tables have no rowid, so
a row is stored once.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Ids, names and addresses compare by bytes on both engines.
Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Int = sa.BigInteger()
Bytes = sa.LargeBinary()


def _table(name: str, key: tuple[str, ...], *columns: sa.Column[object] | sa.UniqueConstraint) -> None:
    op.create_table(name, *columns, sa.PrimaryKeyConstraint(*key), sqlite_with_rowid=False)


def _required(name: str, kind: object = Text, default: str | None = None) -> sa.Column[object]:
    return sa.Column(name, kind, nullable=False, server_default=default)  # type: ignore[arg-type]


def _optional(name: str, kind: object = Text) -> sa.Column[object]:
    return sa.Column(name, kind, nullable=True)  # type: ignore[arg-type]


def upgrade() -> None:
    _accounts()
    _features()
    _ledger()
    _queue()
    if op.get_bind().dialect.name == "postgresql":
        # A lease moves a job's key, so the table turns over; a message's state is updated in place.
        op.execute(
            "ALTER TABLE job SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,"
            " autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0)"
        )
        op.execute("ALTER TABLE message SET (fillfactor = 80)")


def _accounts() -> None:
    _table(
        "tenant",
        ("id",),
        _required("id"),
        _required("name"),
        _required("created_at", Int),
        _optional("suspended_at", Int),
        _required("rate_per_second", Int),  # messages
        _required("burst", Int),  # messages
        _required("daily_quota", Int),  # messages; 0: none
        sa.UniqueConstraint("name"),
    )
    _table(
        "app_user",
        ("id",),
        _required("id"),
        _required("tenant_id"),
        _required("email"),
        _required("name"),
        _required("role"),
        _optional("password_hash"),
        _required("created_at", Int),
        sa.UniqueConstraint("tenant_id", "email"),
    )
    _table(
        "api_key",
        ("id",),
        _required("id"),
        _required("tenant_id"),
        _required("name"),
        _required("secret_hash"),
        _required("hint"),  # the secret's last four characters
        _required("scopes"),  # JSON list
        _optional("domain"),  # may send from this domain only
        _required("created_at", Int),
        _optional("expires_at", Int),
        _optional("revoked_at", Int),
        _optional("last_used_at", Int),
    )
    op.create_index("api_key_tenant", "api_key", ["tenant_id", "id"])
    _table("usage", ("tenant_id", "day"), _required("tenant_id"), _required("day", Int), _required("messages", Int))
    _table(
        "idempotency",
        ("tenant_id", "key"),
        _required("tenant_id"),
        _required("key"),
        _required("body_hash"),
        _required("created_at", Int),
        _required("status", Int),
        _required("answer", Bytes),
    )
    op.create_index("idempotency_age", "idempotency", ["created_at"])


def _features() -> None:
    _table(
        "stream",
        ("id",),
        _required("id"),
        _required("tenant_id"),
        _required("name"),
        _required("kind"),  # transactional | broadcast
        _required("lane", Int),  # storage.queue.base.Lane
        _required("max_age", Int),  # seconds
        _required("settings", Text, "{}"),
        _required("created_at", Int),
        sa.UniqueConstraint("tenant_id", "name"),
    )
    _table(
        "domain",
        ("id",),
        _required("id"),
        _required("tenant_id"),
        _required("name"),
        _required("state"),  # pending | verified | failing
        _required("checks", Text, "{}"),
        _required("created_at", Int),
        _optional("checked_at", Int),
        _optional("verified_at", Int),
        sa.UniqueConstraint("tenant_id", "name"),
    )
    _table(
        "dkim_key",
        ("id",),
        _required("id"),
        _required("domain_id"),
        _required("selector"),
        _required("algorithm"),  # rsa-sha256 | ed25519-sha256
        _required("private_key", Bytes),  # sealed with the master key
        _required("public_key"),  # base64, as in the DNS record
        _required("active", Int),
        _required("created_at", Int),
        sa.UniqueConstraint("domain_id", "selector"),
    )
    _table(
        "template",
        ("id",),
        _required("id"),
        _required("tenant_id"),
        _required("name"),
        _required("latest_version", Int),
        _optional("published_version", Int),
        _required("created_at", Int),
        _required("updated_at", Int),
        sa.UniqueConstraint("tenant_id", "name"),
    )
    _table(
        "template_version",
        ("template_id", "version"),
        _required("template_id"),
        _required("version", Int),
        _required("subject"),
        _optional("html"),
        _optional("text"),
        _required("created_at", Int),
    )
    _table(
        "suppression",
        ("tenant_id", "address", "stream_id"),
        _required("tenant_id"),
        _required("address"),
        _required("stream_id"),  # '': every stream of the tenant
        _required("reason"),  # bounce | complaint | unsubscribe | manual
        _required("source"),  # who or what added it
        _optional("evidence"),
        _required("created_at", Int),
        _optional("expires_at", Int),
    )


def _ledger() -> None:
    # What the messages of one request share: headers, content, template and version, tags.
    _table(
        "submission",
        ("id",),
        _required("id"),
        _required("tenant_id"),
        _required("created_at", Int),
        _optional("tags"),  # ",a,b,": each between commas
        _required("spec"),  # JSON, see outbound.spec.Spec; large ones lie in a blob
    )
    # The ledger: one row per recipient; its state is the truth about it.
    _table(
        "message",
        ("id", "rcpt"),
        _required("id"),
        _required("rcpt", Int),  # 0, 1, … within the message
        _required("tenant_id"),
        _required("submission_id"),
        _required("stream_id"),
        _required("lane", Int),
        _required("address"),
        _optional("name"),  # the recipient's display name
        _required("state"),
        _required("created_at", Int),
        _required("due_at", Int),
        _required("expires_at", Int),
        _required("updated_at", Int),
        _required("attempts", Int, "0"),
        _optional("variables"),  # of this recipient
        _optional("metadata"),
        _optional("reply"),  # JSON: the peer's last answer
        _required("next_at", Int),  # when the next attempt is due; the waiting job's due_at
    )
    op.create_index("message_tenant", "message", ["tenant_id", "id", "rcpt"])
    op.create_index("message_address", "message", ["tenant_id", "address", "id"])
    # Append only; clustered by message, in order of time.
    _table(
        "event",
        ("message_id", "rcpt", "id"),
        _required("message_id"),
        _required("rcpt", Int),
        _required("id"),
        _required("at", Int),
        _required("type"),
        _required("stage"),
        _optional("data"),
    )


def _queue() -> None:
    _table(
        "job",
        ("stage", "lane", "tenant", "due_at", "id"),
        _required("stage"),
        _required("lane", Int),
        _required("tenant"),
        _required("due_at", Int),
        _required("id"),
        _required("attempts", Int, "0"),
        _required("leased", Int, "0"),  # 1: due_at is a lease's end
        _optional("payload"),
    )
    _table(
        "job_buried",
        ("id", "stage"),
        _required("id"),
        _required("stage"),
        _required("lane", Int),
        _required("tenant"),
        _required("attempts", Int),
        _optional("payload"),
        _required("buried_at", Int),
        _required("reason"),
    )


def downgrade() -> None:
    raise RuntimeError("migrations only go up; restore a backup instead")
