"""What must hold before a person's own emails are stored."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from posthouse.directory.model import DomainSettings
from posthouse.errors import Limited, Unavailable
from posthouse.mailbox.entries import Account
from posthouse.storage.contents import Content, Contents
from posthouse.storage.records.base import Tx

_settings = msgspec.json.Decoder(DomainSettings)

_ADVANCE = """
INSERT INTO import_mark (account, source, position, updated_at)
SELECT v.account, v.source, v.position, v.now FROM {v(account int, source text, position int, now int)} WHERE true
ON CONFLICT (account, source) DO UPDATE SET position = excluded.position, updated_at = excluded.updated_at
WHERE import_mark.position < excluded.position
RETURNING position"""


async def check(tx: Tx, account: Account, octets: int) -> None:
    """:raises Limited: code `over_quota`."""
    if account.quota and account.used + octets > account.quota:
        raise Limited("The account is full", code="over_quota")
    row = await tx.row("SELECT settings FROM mail_domain WHERE name = $1", account.domain)
    most = _settings.decode(row[0]).quota_all if row is not None else 0
    if most:
        used = await tx.row("SELECT sum(used) FROM account WHERE domain = $1", account.domain)
        if used is not None and int(used[0]) + octets > most:
            raise Limited("The domain is full", code="over_quota")


async def advance(tx: Tx, account: int, mark: tuple[str, int], now: int) -> bool:
    """Whether the import has come further with this; its mark is set then."""
    return bool(await tx.each(_ADVANCE, [(account, *mark, now)]))


async def keep(tx: Tx, contents: Contents, put: Sequence[Content]) -> None:
    """Write the contents, without counting: their emails count them.

    :raises Unavailable: one is being collected.
    """
    if await contents.keep(tx, [(content, 0) for content in put]):
        raise Unavailable("A message like this is being removed; try again", code="content_condemned")
