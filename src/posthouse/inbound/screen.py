"""The filter in the session, for domains that refuse spam: the sender is told at once, and nobody
is bounced to later. Everything else is judged behind the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

from posthouse.clock import Clock
from posthouse.directory.model import AccountSettings
from posthouse.inbound.filter.weigh import Judged
from posthouse.inbound.model import Arrival, Evidence, Recipient, Verdict, Via
from posthouse.mail.parse import parse
from posthouse.mail.parsed import Parsed
from posthouse.storage.records.base import Records

MOST = 1 << 20
"""Octets of a message that is screened: spam is small, and a sender waits for the answer."""
_SETTINGS = "SELECT number, settings FROM account WHERE number = ANY($1)"
_settings = lru_cache(maxsize=1024)(msgspec.json.Decoder(AccountSettings).decode)


class Judge(Protocol):
    """`inbound.filter.Filter`."""

    async def judge(
        self, batch: Sequence[tuple[Arrival, Parsed]], accounts: Mapping[int, AccountSettings]
    ) -> Sequence[Judged]: ...


class Screen:
    def __init__(self, records: Records, judge: Judge, clock: Clock) -> None:
        self._records = records
        self._judge = judge
        self._clock = clock

    async def __call__(
        self, message: bytes, evidence: Evidence, reverse_path: str, whom: Sequence[tuple[str, str, int]]
    ) -> list[Verdict]:
        """For each of (tenant, address, account number), as each account sees it.

        :raises Unavailable: a scanner that is required, or storage, is away.
        """
        numbers = sorted({account for _, _, account in whom})
        rows = await self._records.read(lambda tx: tx.rows(_SETTINGS, numbers))
        recipients = tuple(
            Recipient(n, tenant, address, account, Via()) for n, (tenant, address, account) in enumerate(whom)
        )
        arrival = Arrival("", self._clock(), "", len(message), reverse_path, evidence, b"", recipients, message)
        accounts = {number: _settings(settings) for number, settings in rows}
        (judged,) = await self._judge.judge([(arrival, parse(message))], accounts)
        return list(judged.recipients)
