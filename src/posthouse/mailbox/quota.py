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

Mark = tuple[str, int]
"""Of an import: its source and how far this message's end is in it."""

_MARKED = """
SELECT m.source, m.position FROM {v(account int, source text)} CROSS JOIN import_mark m
WHERE m.account = v.account AND m.source = v.source"""
_ADVANCE = """
INSERT INTO import_mark (account, source, position, updated_at)
SELECT v.account, v.source, v.position, v.now FROM {v(account int, source text, position int, now int)} WHERE true
ON CONFLICT (account, source) DO UPDATE SET position = excluded.position, updated_at = excluded.updated_at"""


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


async def marked(tx: Tx, account: int, sources: Sequence[str]) -> dict[str, int]:
    """How far each has come; those that never began are left out."""
    keys = [(account, source) for source in dict.fromkeys(sources)]
    return dict(await tx.each(_MARKED, keys)) if keys else {}


async def advance(tx: Tx, account: int, marks: Sequence[Mark], now: int) -> list[bool]:
    """Whether each goes beyond where its source has come; the sources are marked with the last.
    The account's row has to be held."""
    reached = await marked(tx, account, [source for source, _ in marks])
    new: list[bool] = []
    moved: set[str] = set()
    for source, position in marks:
        new.append(position > reached.get(source, -1))
        if new[-1]:
            reached[source] = position
            moved.add(source)
    if moved:
        await tx.run_each(_ADVANCE, [(account, source, reached[source], now) for source in sorted(moved)])
    return new


async def keep(tx: Tx, contents: Contents, put: Sequence[Content]) -> None:
    """Write the contents, without counting: their emails count them.

    :raises Unavailable: one is being collected.
    """
    if await contents.keep(tx, [(content, 0) for content in put]):
        raise Unavailable("A message like this is being removed; try again", code="content_condemned")
