"""What arrived and what was refused, for whoever it was for: lists and stories, tenant by tenant.

A message to recipients of several tenants is shown to each with its own recipients only. Lists
look at a bounded number of rows: a page may be short, or empty, with more behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from posthouse.clock import SECOND, Clock, now
from posthouse.errors import NotFound
from posthouse.events.story import Explanation
from posthouse.inbound import explain
from posthouse.inbound.model import Evidence
from posthouse.storage.records.base import Records, Row, Tx, Value

LOOKED_AT: Final = 20_000
"""Rows that one page may cost."""
RECIPIENTS_AT_MOST: Final = 1000
"""Of one message that are told."""
_WRITTEN_WITHIN: Final = 1_500_000
"""µs: refusals are written in the background, in batches."""

_evidence = msgspec.json.Decoder(Evidence)


class Wanted(msgspec.Struct, frozen=True):
    """Which arrivals; None is any. `address`: as it stood in RCPT, without regard to case;
    `account`: its number; times in µs."""

    address: str | None = None
    account: int | None = None
    state: str | None = None
    since: int | None = None
    until: int | None = None


class Recipient(msgspec.Struct, frozen=True):
    """`account`: its address, '' for what only goes elsewhere or whose account is gone."""

    address: str
    account: str
    state: str
    via: str
    done_at: int | None
    outcome: str | None


class Entry(msgspec.Struct, frozen=True):
    """An acknowledged message; `evidence` and `verdict` as their JSON."""

    id: str
    received_at: int
    size: int
    reverse_path: str
    evidence: str
    verdict: str | None
    recipients: tuple[Recipient, ...]


class Refused(msgspec.Struct, frozen=True):
    """Which refusals. `recipient`: without regard to case; `foreign`: those for domains that are nobody's here."""

    recipient: str | None = None
    peer: str | None = None
    since: int | None = None
    until: int | None = None
    foreign: bool = False


class Journal:
    def __init__(self, records: Records, clock: Clock, *, lagging: Records | None = None) -> None:
        """:param lagging: for lists; may be behind `records`, which is taken without it."""
        self._records = records
        self._lagging = lagging or records
        self._clock = clock

    async def arrivals(
        self, tenant_id: str, wanted: Wanted, *, before: str | None = None, limit: int = 50
    ) -> tuple[list[Entry], str | None]:
        """Newest first, and where the next page begins (its `before`), None at the end."""

        async def work(tx: Tx) -> tuple[list[Entry], str | None]:
            newest = _newest("inb", before, wanted.until)
            oldest = _first("inb", wanted.since)
            row = await tx.row(_ARRIVALS_FLOOR, tenant_id, newest, oldest, LOOKED_AT)
            floor = row[0] if row is not None else oldest
            found = await tx.rows(
                _ARRIVALS,
                tenant_id,
                newest,
                floor,
                limit + 1,
                (wanted.address or "").lower(),
                -1 if wanted.account is None else wanted.account,
                wanted.state or "",
            )
            ids = [row[0] for row in found[:limit]]
            entries = await _entries(tx, tenant_id, ids)
            return entries, ids[-1] if len(found) > limit else (floor if row is not None else None)

        return await self._lagging.read(work)

    async def arrival(self, tenant_id: str, id_: str) -> Entry:
        """:raises NotFound: code `arrival_not_found`, also for another tenant's."""
        found = await self._records.read(lambda tx: _entries(tx, tenant_id, [id_]))
        if not found:
            raise NotFound("There is no such arrival", code="arrival_not_found")
        return found[0]

    async def evidence(self, tenant_id: str, id_: str) -> Evidence | None:
        """None when it is not kept any more, or cannot be read."""
        try:
            return _evidence.decode((await self.arrival(tenant_id, id_)).evidence)
        except (NotFound, msgspec.MsgspecError):
            return None

    async def explain(self, tenant_id: str, id_: str) -> Explanation:
        """:raises NotFound: code `arrival_not_found`."""
        entry = await self.arrival(tenant_id, id_)
        message = explain.Received(
            entry.id, entry.received_at, entry.size, entry.reverse_path, entry.evidence, entry.verdict
        )
        deliveries = [
            explain.Delivery(one.address, one.account, one.state, one.via, one.done_at, one.outcome)
            for one in entry.recipients
        ]
        return explain.explain(message, deliveries, self._clock())

    async def refusals(
        self, tenant_id: str, wanted: Refused, *, before: str | None = None, limit: int = 50
    ) -> tuple[list[explain.Refusal], str | None]:
        """Newest first, as `arrivals`."""
        owner = "" if wanted.foreign else tenant_id

        async def work(tx: Tx) -> tuple[list[explain.Refusal], str | None]:
            newest = _newest("rfs", before, wanted.until)
            oldest = _first("rfs", wanted.since)
            row = await tx.row(_REFUSALS_FLOOR, owner, newest, oldest, LOOKED_AT)
            floor = row[0] if row is not None else oldest
            rows = await tx.rows(
                _REFUSALS, owner, newest, floor, limit + 1, (wanted.recipient or "").lower(), wanted.peer or ""
            )
            found = [explain.Refusal(*one) for one in rows[:limit]]
            return found, found[-1].id if len(rows) > limit else (floor if row is not None else None)

        return await self._lagging.read(work)

    async def refusal(self, owners: Sequence[str], id_: str) -> explain.Refusal:
        """One that was told to a peer a moment ago may not be written yet: it is waited for.

        :param owners: tenants whose refusal it may be; '' for domains that are nobody's here.
        :raises NotFound: code `refusal_not_found`.
        """
        row = await self._refusal(owners, id_)
        moment = now()
        if row is None and _first("rfs", moment - _WRITTEN_WITHIN) <= id_ < _first("rfs", moment + SECOND):
            await asyncio.sleep(_WRITTEN_WITHIN / SECOND)
            row = await self._refusal(owners, id_)
        if row is None:
            raise NotFound("There is no such refusal", code="refusal_not_found")
        return explain.Refusal(*row)

    async def _refusal(self, owners: Sequence[str], id_: str) -> Row | None:
        return await self._records.read(lambda tx: tx.row(_REFUSAL, id_, list(owners)))


def _newest(prefix: str, before: str | None, until: int | None) -> str:
    """Ids sort by time, so that times bound them."""
    end = _first(prefix, until) if until is not None else f"{prefix}_g"
    return end if before is None else min(before, end)


def _first(prefix: str, at: int | None) -> str:
    return f"{prefix}_{max(0, at or 0) // 1000:012x}"


async def _entries(tx: Tx, tenant_id: str, ids: Sequence[str]) -> list[Entry]:
    """In the order of `ids`; those that the tenant has a recipient of."""
    if not ids:
        return []
    keys: list[Row] = [(one,) for one in ids]
    most: Value = RECIPIENTS_AT_MOST
    messages = {row[0]: row for row in await tx.each(_MESSAGES, keys)}
    recipients: dict[str, list[Recipient]] = {}
    for id_, *rest in await tx.each(_RECIPIENTS, keys, tenant_id, most):
        recipients.setdefault(id_, []).append(Recipient(*rest))
    return [
        Entry(*messages[one], recipients=tuple(recipients[one])) for one in ids if one in messages and one in recipients
    ]


_ARRIVALS_FLOOR = """SELECT inbound_id FROM inbound_rcpt WHERE tenant_id = $1 AND inbound_id < $2 AND inbound_id >= $3
    ORDER BY inbound_id DESC LIMIT 1 OFFSET $4"""
_ARRIVALS = """SELECT DISTINCT inbound_id FROM inbound_rcpt
    WHERE tenant_id = $1 AND inbound_id < $2 AND inbound_id >= $3
    AND ($5 = '' OR lower(address) = $5) AND ($6 < 0 OR account = $6) AND ($7 = '' OR state = $7)
    ORDER BY inbound_id DESC LIMIT $4"""
_MESSAGES = """SELECT i.id, i.received_at, i.size, i.reverse_path, i.evidence, i.verdict
    FROM {v(id text)} CROSS JOIN inbound i WHERE i.id = v.id"""
_RECIPIENTS = """SELECT r.inbound_id, r.address, coalesce(a.address, ''), r.state, r.via, r.done_at, r.outcome
    FROM {v(id text)} CROSS JOIN inbound_rcpt r LEFT JOIN account a ON a.number = r.account AND a.tenant_id = $1
    WHERE r.inbound_id = v.id AND r.tenant_id = $1 AND r.n < $2 ORDER BY r.inbound_id, r.n"""
_REFUSAL_COLUMNS = "id, at, peer, helo, reverse_path, recipient, stage, reply, reason, evidence"
_REFUSALS_FLOOR = """SELECT id FROM refusal WHERE tenant_id = $1 AND id < $2 AND id >= $3
    ORDER BY id DESC LIMIT 1 OFFSET $4"""
_REFUSALS = f"""SELECT {_REFUSAL_COLUMNS} FROM refusal WHERE tenant_id = $1 AND id < $2 AND id >= $3
    AND ($5 = '' OR lower(recipient) = $5) AND ($6 = '' OR peer = $6) ORDER BY id DESC LIMIT $4"""  # noqa: S608
_REFUSAL = f"SELECT {_REFUSAL_COLUMNS} FROM refusal WHERE id = $1 AND tenant_id = ANY($2)"  # noqa: S608 - constants
