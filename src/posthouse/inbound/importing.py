"""Mail that a person brings along: stored as it is, placed in conversations like mail that arrives.

Each message may carry a mark: its source and how far its end is in it. What was stored and its
marks are one transaction, so an import that is killed goes on where it was, and nothing is twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from posthouse.clock import DAY, Clock
from posthouse.directory.model import Account
from posthouse.inbound.examine import start
from posthouse.mail.parse import header_fields, parse, unfold
from posthouse.mail.parse.dates import parse_date
from posthouse.mail.parsed import Parsed
from posthouse.mail.threads import thread_keys
from posthouse.mailbox import quota
from posthouse.mailbox.model import Delivered, Delivery, Role
from posthouse.mailbox.record import record
from posthouse.mailbox.service import Mailboxes
from posthouse.storage.contents import Content, Contents
from posthouse.storage.records.base import Records

_AT_ONCE = 16
"""Messages parsed before other tasks get their turn."""
_LARGE = 256 * 1024


class Item(msgspec.Struct, frozen=True):
    """One message. `mailboxes`: numbers or roles. `received_at` None: as its header says.
    `source`, `position`: its mark; '' for none."""

    raw: bytes
    mailboxes: tuple[int | str, ...] = (Role.INBOX.value,)
    keywords: tuple[str, ...] = ()
    received_at: int | None = None
    source: str = ""
    position: int = 0


class Importing:
    def __init__(self, records: Records, mailboxes: Mailboxes, contents: Contents, clock: Clock) -> None:
        self._records = records
        self._mailboxes = mailboxes
        self._contents = contents
        self._clock = clock

    async def marks(self, account: int, sources: Sequence[str]) -> Mapping[str, int]:
        """How far each has come; those that never began are left out."""
        return await self._records.read(lambda tx: quota.marked(tx, account, sources))

    async def store(self, account: Account, items: Sequence[Item]) -> list[Delivered | None]:
        """All of them in one transaction; None for what was stored before.

        :raises Limited: code `over_quota`. :raises Unavailable: code `content_condemned`; repeat.
        """
        marked = all(item.source for item in items)
        prepared: list[tuple[Delivery, Content]] = []
        for n, item in enumerate(items):
            if n and n % _AT_ONCE == 0:
                await asyncio.sleep(0)
            prepared.append(await self._prepare(account, item))
        marks = [(item.source, item.position) for item in items] if marked else None
        return await self._mailboxes.append(account.number, prepared, marks=marks)

    async def _prepare(self, account: Account, item: Item) -> tuple[Delivery, Content]:
        raw = item.raw
        parsed = await asyncio.to_thread(parse, raw) if len(raw) > _LARGE else parse(raw)
        at = item.received_at if item.received_at is not None else arrived(raw, parsed, self._clock())
        delivery = Delivery(
            account.number,
            "",
            at,
            record(parsed),
            thread_keys(parsed, received_at=at, text=start(raw, parsed), own={account.address}),
            item.mailboxes,
            item.keywords,
        )
        content = await self._contents.put(raw)
        return msgspec.structs.replace(delivery, content=content.key), content


def arrived(raw: bytes, parsed: Parsed, now: int) -> int:
    """µs: when the last server took it (the first Received field), else its Date; now when
    neither says, or says what cannot be."""
    for name, value, _, _ in header_fields(raw[: parsed.header_length]):
        if name.lower() == b"received":
            stamp = unfold(value).rpartition(b";")[2].strip().decode("latin-1")
            at, _, _ = parse_date(stamp)
            if at is not None and 0 <= at <= now + DAY:
                return at
            break
    return parsed.date if parsed.date is not None and 0 <= parsed.date <= now + DAY else now
