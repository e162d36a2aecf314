"""From claimed jobs to arrivals in memory: log rows, recipients that are not done, octets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from posthouse.directory.model import Account, AccountSettings
from posthouse.inbound.decide import names_mailboxes
from posthouse.inbound.decision import Folders
from posthouse.inbound.model import Arrival, Evidence, Recipient, Via
from posthouse.mailbox.folders import DEPTH
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Job
from posthouse.storage.records.base import Records, Row, Tx

_ARRIVALS = """
SELECT i.id, i.received_at, i.content, i.size, i.reverse_path, i.evidence, i.trace
FROM {v(id text)} CROSS JOIN inbound i WHERE i.id = v.id"""
_RECIPIENTS = """
SELECT r.inbound_id, r.n, r.tenant_id, r.address, r.account, r.via
FROM {v(id text)} CROSS JOIN inbound_rcpt r WHERE r.inbound_id = v.id AND r.state = 'accepted'"""
_ACCOUNTS = """
SELECT number, id, tenant_id, address, name, state, quota, settings, created_at, used, emails
FROM account WHERE number = ANY($1) AND state <> 'deleted'"""
_MAILBOXES = "SELECT account, id, parent, name FROM mailbox WHERE account = ANY($1)"

_evidence = msgspec.json.Decoder(Evidence)
_via = lru_cache(maxsize=1024)(msgspec.json.Decoder(Via).decode)
_settings = lru_cache(maxsize=1024)(msgspec.json.Decoder(AccountSettings).decode)


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A job and what it is about, before its octets are read. `row`: of the log."""

    job: Job
    row: Row
    recipients: tuple[Recipient, ...]

    @property
    def size(self) -> int:
        return self.row[3]


class Around(msgspec.Struct, frozen=True):
    """What the directory says: the accounts that exist, and the mailboxes of those whose rules
    name one, by account."""

    accounts: dict[int, Account]
    folders: dict[int, Folders]


class Intake:
    def __init__(self, records: Records, contents: Contents) -> None:
        self._records = records
        self._contents = contents

    async def look(self, jobs: Sequence[Job]) -> tuple[list[Waiting], Around]:
        """In the order of the jobs, and what is around them. A job without a log row, or
        without a recipient that waits, is done already: it has no row in the answer.

        :raises Unavailable:
        """
        rows, recipients, accounts = await self._records.read(lambda tx: _look(tx, [job.id for job in jobs]))
        by_id = {row[0]: row for row in rows}
        of: dict[str, list[Recipient]] = {}
        for inbound, n, tenant, address, account, via in recipients:
            of.setdefault(inbound, []).append(Recipient(n, tenant, address, account, _via(via)))
        waiting = [
            Waiting(job, by_id[job.id], tuple(sorted(of[job.id], key=_n)))
            for job in jobs
            if job.id in by_id and job.id in of
        ]
        known = {row[0]: _account(row) for row in accounts}
        filing = [number for number, account in known.items() if names_mailboxes(account.settings)]
        rows = await self._records.read(lambda tx: tx.rows(_MAILBOXES, filing)) if filing else []
        return waiting, Around(known, _folders(rows))

    async def read(self, waiting: Sequence[Waiting]) -> list[Arrival | None]:
        """With their octets; None where these are not there. :raises Unavailable: :raises Corrupt:"""
        found = await self._contents.get_many([one.row[2] for one in waiting])
        return [_arrival(one, found) for one in waiting]


async def _look(tx: Tx, ids: Sequence[str]) -> tuple[list[Row], list[Row], list[Row]]:
    keys: list[Row] = [(one,) for one in ids]
    rows = await tx.each(_ARRIVALS, keys)
    recipients = await tx.each(_RECIPIENTS, keys)
    numbers = sorted({row[4] for row in recipients} - {0})
    return rows, recipients, await tx.rows(_ACCOUNTS, numbers) if numbers else []


def _folders(rows: Sequence[Row]) -> dict[int, Folders]:
    """Full names; a mailbox whose parents are not there is left out."""
    by_account: dict[int, dict[int, tuple[int, str]]] = {}
    for account, number, parent, name in rows:
        by_account.setdefault(account, {})[number] = (parent, name)
    return {account: _named(boxes) for account, boxes in by_account.items()}


def _named(boxes: Mapping[int, tuple[int, str]]) -> Folders:
    folders: dict[str, int] = {}
    for number in boxes:
        path: list[str] = []
        at = number
        while at in boxes and len(path) < DEPTH:
            at, name = boxes[at]
            path.append(name)
        if not at:
            folders["/".join(reversed(path))] = number
    return folders


def _n(recipient: Recipient) -> int:
    return recipient.n


def _account(row: Row) -> Account:
    number, id_, tenant, address, name, state, quota, settings, created_at, used, emails = row
    return Account(number, id_, tenant, address, name, state, quota, _settings(settings), created_at, used, emails)


def _arrival(one: Waiting, contents: Mapping[str, bytes]) -> Arrival | None:
    id_, received_at, content, size, reverse_path, evidence, trace = one.row
    raw = contents.get(content)
    if raw is None:
        return None
    decoded = _evidence.decode(evidence)
    return Arrival(id_, received_at, content, size, reverse_path, decoded, trace, one.recipients, raw)


def in_parts(waiting: Sequence[Waiting], octets: int) -> Iterator[list[Waiting]]:
    """So that the octets of one part fit in memory; one message may be larger."""
    part: list[Waiting] = []
    size = 0
    for one in waiting:
        if part and size + one.size > octets:
            yield part
            part, size = [], 0
        part.append(one)
        size += one.size
    if part:
        yield part
