"""The receiving flow: who receives here, what arrived, what the mailboxes hold.

Below an account everything is named by small integers (`account.number`, and mailbox, email
and thread numbers counted within the account under its row's lock), so that the rows and
indexes of an account are short, lie together, and sort by arrival.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Int = sa.BigInteger()
Bytes = sa.LargeBinary()


def _table(
    name: str, key: tuple[str, ...], *columns: sa.Column[object] | sa.UniqueConstraint, heap: bool = False
) -> None:
    """`heap`: rows lie in the order of arrival (wide rows); else, on SQLite, in the key's tree."""
    op.create_table(name, *columns, sa.PrimaryKeyConstraint(*key), sqlite_with_rowid=heap)


def _required(name: str, kind: object = Text, default: str | None = None) -> sa.Column[object]:
    return sa.Column(name, kind, nullable=False, server_default=default)  # type: ignore[arg-type]


def _optional(name: str, kind: object = Text) -> sa.Column[object]:
    return sa.Column(name, kind, nullable=True)  # type: ignore[arg-type]


def upgrade() -> None:
    _directory()
    _contents()
    _arrivals()
    _mailboxes()
    _emails()
    _threads()
    _marks()
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE content ALTER COLUMN data SET STORAGE EXTERNAL")  # mail hardly compresses
        op.execute("ALTER TABLE account SET (fillfactor = 50)")  # counters change with each batch
        op.execute("ALTER TABLE mailbox SET (fillfactor = 50)")
        op.execute("ALTER TABLE thread SET (fillfactor = 80)")


def _directory() -> None:
    _table(
        "mail_domain",
        ("name",),
        _required("name"),  # A-labels
        _required("tenant_id"),
        _required("settings", Text, "{}"),  # directory.model.DomainSettings
        _required("created_at", Int),
    )
    op.create_index("mail_domain_tenant", "mail_domain", ["tenant_id", "name"])
    _table(
        "account",
        ("number",),
        _required("number", Int),
        _required("id"),  # acc_…
        _required("tenant_id"),
        _required("address"),  # the primary one, folded as addresses are compared
        _required("domain"),
        _required("name", Text, ""),
        _optional("password_hash"),
        _required("state"),  # active | disabled
        _required("quota", Int, "0"),  # octets; 0: none
        _required("settings", Text, "{}"),  # directory.model.AccountSettings
        _required("created_at", Int),
        # What the mailboxes maintain, in the transaction of each change.
        _required("modseq", Int, "0"),
        _required("change_floor", Int, "0"),  # changes at or below it are forgotten
        _required("used", Int, "0"),  # octets of its emails
        _required("emails", Int, "0"),
        _required("next_email", Int, "1"),
        _required("next_thread", Int, "1"),
        _required("next_mailbox", Int, "1"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("address"),
    )
    op.create_index("account_domain", "account", ["domain", "number"])
    op.create_index("account_tenant", "account", ["tenant_id", "address"])
    _table(
        "alias",
        ("address",),
        _required("address"),  # local@domain, or @domain: whatever else is sent there
        _required("tenant_id"),
        _required("domain"),
        _required("kind"),  # alias | group | catch_all
        _required("targets"),  # JSON list of addresses, here or elsewhere
        _required("created_at", Int),
    )
    op.create_index("alias_tenant", "alias", ["tenant_id", "address"])
    op.create_index("alias_domain", "alias", ["domain", "address"])
    # Numbers given out and never again: mail may still be on its way to an account that is gone.
    _table("counter", ("name",), _required("name"), _required("value", Int))


def _contents() -> None:
    # Raw messages under the hash of their bytes; large ones lie in the blob store.
    _table(
        "content",
        ("key",),
        _required("key"),  # storage.blobs.base.Key
        _required("size", Int),
        _optional("data", Bytes),  # None: in the blob store
        _required("refs", Int),
        _required("changed_at", Int),  # of refs
        _optional("condemned_at", Int),  # being removed from the blob store
        _optional("removed_at", Int),  # removed from it
        heap=True,
    )
    op.create_index(
        "content_free",
        "content",
        ["changed_at"],
        sqlite_where=sa.text("refs <= 0"),
        postgresql_where=sa.text("refs <= 0"),
    )


def _arrivals() -> None:
    # A message that was acknowledged over SMTP or LMTP: the log of the receiving flow.
    _table(
        "inbound",
        ("id",),
        _required("id"),  # inb_…
        _required("received_at", Int),
        _required("content"),
        _required("size", Int),
        _required("fingerprint"),  # of envelope and bytes: the same twice is a retry
        _required("reverse_path"),  # '' for <>
        _required("evidence"),  # JSON, inbound.model.Evidence
        _required("trace", Bytes),  # the header fields that we put before the message
        _optional("verdict"),  # JSON, inbound.model.Verdict; once filtered
        sa.UniqueConstraint("fingerprint"),
        heap=True,
    )
    _table(
        "inbound_rcpt",
        ("inbound_id", "n"),
        _required("inbound_id"),
        _required("n", Int),
        _required("tenant_id"),
        _required("address"),  # as in RCPT
        _required("account", Int),  # 0: forwarded elsewhere without a mailbox here
        _required("state"),  # accepted; then stored, discarded, forwarded, failed
        _required("via", Text, "{}"),  # JSON: aliases, tag, forward: inbound.model.Via
        _optional("done_at", Int),
        _optional("outcome"),  # JSON: where it went and why
    )
    op.create_index("inbound_rcpt_tenant", "inbound_rcpt", ["tenant_id", "inbound_id", "n"])
    # What was refused in the session: written in the background, kept for a while.
    _table(
        "refusal",
        ("id",),
        _required("id"),  # rfs_…
        _required("at", Int),
        _required("tenant_id", Text, ""),  # of the recipient's domain, '' when it is not ours
        _required("peer"),
        _required("helo"),
        _required("reverse_path"),
        _required("recipient"),
        _required("stage"),  # connect, hello, mail, rcpt, data
        _required("reply"),
        _required("reason"),
        _optional("evidence"),
    )
    op.create_index("refusal_tenant", "refusal", ["tenant_id", "id"])
    # Messages on their way from the receiving to the sending flow; each holds its content.
    _table(
        "relayed",
        ("id",),
        _required("id"),  # of the message that it becomes
        _required("content"),
        _required("handover"),  # JSON, events.handover.Handover
        _required("created_at", Int),
    )
    _table(
        "greylist",
        ("key",),
        _required("key"),
        _required("first_at", Int),
        _required("last_at", Int),
        _required("passed", Int, "0"),
    )
    op.create_index("greylist_age", "greylist", ["last_at"])


def _mailboxes() -> None:
    _table(
        "mailbox",
        ("account", "id"),
        _required("account", Int),
        _required("id", Int),
        _required("parent", Int, "0"),  # 0: at the top
        _required("name"),
        _optional("role"),  # inbox, sent, drafts, trash, junk, archive
        _required("sort_order", Int, "0"),
        _required("subscribed", Int, "1"),
        _required("uidvalidity", Int),
        _required("uidnext", Int, "1"),
        _required("modseq", Int),
        _required("total", Int, "0"),
        _required("unread", Int, "0"),
        _required("threads", Int, "0"),  # with an email here
        _required("unread_threads", Int, "0"),  # of those, with an unread email anywhere (RFC 8621 §2)
        sa.UniqueConstraint("account", "parent", "name"),
    )
    # A label is a mailbox too: an email may lie in several.
    _table(
        "membership",
        ("account", "mailbox", "uid"),
        _required("account", Int),
        _required("mailbox", Int),
        _required("uid", Int),
        _required("email", Int),
        _required("thread", Int),
        _required("received_at", Int),
        _required("modseq", Int),
        _required("seen", Int),
    )
    op.create_index("membership_page", "membership", ["account", "mailbox", "received_at", "email", "thread"])
    op.create_index("membership_email", "membership", ["account", "email", "mailbox"])
    _table(
        "expunged",
        ("account", "mailbox", "modseq", "uid"),
        _required("account", Int),
        _required("mailbox", Int),
        _required("modseq", Int),
        _required("uid", Int),
    )
    # What changed, by the account's modseq: JMAP's /changes, IMAP's CONDSTORE, push.
    _table(
        "change",
        ("account", "modseq", "kind", "id"),
        _required("account", Int),
        _required("modseq", Int),
        _required("kind"),  # email, mailbox, thread
        _required("id", Int),
        _required("op"),  # created, updated, counts (of a mailbox only), destroyed
    )


def _emails() -> None:
    _table(
        "email",
        ("account", "id"),
        _required("account", Int),
        _required("id", Int),
        _required("thread", Int),
        _required("content"),
        _required("size", Int),
        _required("received_at", Int),
        _optional("sent_at", Int),
        _optional("message_id"),
        _required("subject"),
        _required("sender"),  # JSON: From, as mail.parsed.Addr
        _required("preview"),
        _required("keywords", Text, ""),  # sorted, between spaces: " $flagged $seen "; '' for none
        _required("attachments", Int),  # how many
        _required("detail", Bytes),  # msgpack, mailbox.model.Detail: addresses, ids, structure
        _optional("inbound_id"),
        _optional("trace", Bytes),  # header fields before the raw message
        _optional("verdict"),
        _required("threading", Bytes),  # what threads.place must know of it
        _required("modseq", Int),
        _required("created_modseq", Int),
        heap=True,
    )
    op.create_index("email_thread", "email", ["account", "thread", "received_at", "id"])
    _table(
        "keyword",
        ("account", "keyword", "email"),
        _required("account", Int),
        _required("keyword"),
        _required("email", Int),
    )


def _threads() -> None:
    _table(
        "thread",
        ("account", "id"),
        _required("account", Int),
        _required("id", Int),
        _required("emails", Int),
        _required("unread", Int),
        _required("latest_at", Int),
        _required("related", Int, "0"),  # the thread that its ids point to, when the subject changed
        _required("modseq", Int),
    )
    _table(
        "thread_mailbox",
        ("account", "thread", "mailbox"),
        _required("account", Int),
        _required("thread", Int),
        _required("mailbox", Int),
        _required("total", Int),
        _required("unread", Int),
        _required("latest_at", Int),  # of its emails in this mailbox: a list of threads is sorted by it
        _required("latest_email", Int),
    )
    op.create_index(
        "thread_mailbox_page", "thread_mailbox", ["account", "mailbox", "latest_at", "latest_email", "thread"]
    )
    _table(
        "thread_key",
        ("account", "key", "email"),
        _required("account", Int),
        _required("key", Bytes),
        _required("email", Int),
    )
    _table(
        "thread_override",
        ("account", "id"),
        _required("account", Int),
        _required("id"),
        _required("kind"),
        _required("data"),
        _required("created_at", Int),
    )


def _marks() -> None:
    # Whom an account has written to: a credit for their mail.
    _table(
        "correspondent",
        ("account", "address"),
        _required("account", Int),
        _required("address"),
        _required("last_at", Int),
    )
    # To whom an automatic answer went, and when (RFC 3834 §2).
    _table("answered", ("account", "address"), _required("account", Int), _required("address"), _required("at", Int))
    # How far an import has come, in the transaction of each batch.
    _table(
        "import_mark",
        ("account", "source"),
        _required("account", Int),
        _required("source"),
        _required("position", Int),
        _required("updated_at", Int),
    )


def downgrade() -> None:
    raise RuntimeError("migrations only go up; restore a backup instead")
