"""The SQL of the ledger: submissions and messages. Nobody else writes these tables."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from posthouse.outbound.model import Filter, State
from posthouse.storage.records.base import Row, Tx

NewMessage = tuple[str, int, str, str, str, int, str, str | None, str, int, int, int, int, str | None, str | None, int]
"""A row as submit writes it, in the order of `_COLUMNS`."""

NewSubmission = tuple[str, str, int, str | None, str]
"""id, tenant_id, created_at, tags, spec."""

_COLUMNS = """id text, rcpt int, tenant_id text, submission_id text, stream_id text, lane int, address text,
    name text, state text, created_at int, due_at int, expires_at int, updated_at int, variables text,
    metadata text, next_at int"""
_NAMES = ", ".join(column.split()[0] for column in _COLUMNS.split(","))

_INSERT_SUBMISSIONS = """
INSERT INTO submission (id, tenant_id, created_at, tags, spec)
SELECT v.id, v.tenant_id, v.created_at, v.tags, v.spec
FROM {v(id text, tenant_id text, created_at int, tags text, spec text)}
WHERE true ON CONFLICT DO NOTHING"""

_INSERT_MESSAGES = (
    f"INSERT INTO message ({_NAMES}) SELECT {_NAMES} FROM {{v({_COLUMNS})}} WHERE true ON CONFLICT DO NOTHING"  # noqa: S608
)

# CROSS JOIN, which SQLite takes as the order to go in: for the sake of ORDER BY its planner
# would walk all messages and look each one up among the ids.
_LOAD = """
SELECT m.id, m.rcpt, m.tenant_id, m.submission_id, m.stream_id, m.lane, m.address, m.name, m.created_at,
       m.due_at, m.expires_at, m.attempts, m.variables, m.next_at, m.reply IS NOT NULL
FROM {v(id text)} CROSS JOIN message m
WHERE m.id = v.id AND m.state IN ('queued', 'scheduled', 'deferred')
ORDER BY m.id, m.rcpt"""

_FIRST = """
SELECT id, rcpt, tenant_id, submission_id, stream_id, lane, address, name, created_at, due_at, expires_at,
       attempts, variables, next_at, reply IS NOT NULL
FROM message WHERE id = $1 ORDER BY rcpt LIMIT 1"""

_SPECS = "SELECT id, spec FROM submission WHERE id = ANY($1)"

_SETTLE = """
UPDATE message SET state = v.state, attempts = v.attempts, updated_at = v.at,
       reply = coalesce(v.reply, message.reply), next_at = v.next_at
FROM {v(id text, rcpt int, state text, attempts int, at int, reply text, next_at int)}
WHERE message.id = v.id AND message.rcpt = v.rcpt
  AND message.state IN ('queued', 'scheduled', 'deferred')"""

_VIEW_COLUMNS = """id, rcpt, submission_id, stream_id, lane, address, name, state, created_at, due_at,
    expires_at, updated_at, attempts, reply, next_at, metadata"""
_GET = f"SELECT {_VIEW_COLUMNS} FROM message WHERE tenant_id = $1 AND id = $2 ORDER BY rcpt"  # noqa: S608
_GET_MANY = f"SELECT {_VIEW_COLUMNS} FROM message WHERE tenant_id = $1 AND id = ANY($2) ORDER BY id, rcpt"  # noqa: S608


class Due(msgspec.Struct, frozen=True, gc=False):
    """A ledger row that is to be rendered and sent now."""

    id: str
    rcpt: int
    tenant_id: str
    submission_id: str
    stream_id: str
    lane: int
    address: str
    name: str | None
    created_at: int
    due_at: int
    expires_at: int
    attempts: int
    variables: str | None
    next_at: int
    answered: bool
    """A peer has refused it for now before."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """A ledger row as it is shown."""

    id: str
    rcpt: int
    submission_id: str
    stream_id: str
    lane: int
    address: str
    name: str | None
    state: str
    created_at: int
    due_at: int
    expires_at: int
    updated_at: int
    attempts: int
    reply: str | None
    next_at: int
    metadata: str | None


Settlement = tuple[str, int, str, int, int, str | None, int]
"""id, rcpt, state, attempts, at, reply (JSON; None keeps the last), next_at."""


async def insert(tx: Tx, submissions: Sequence[NewSubmission], messages: Sequence[NewMessage]) -> None:
    await tx.run_each(_INSERT_SUBMISSIONS, submissions)
    await tx.run_each(_INSERT_MESSAGES, messages)


async def load(tx: Tx, ids: Sequence[str]) -> list[Due]:
    """The recipients of these messages that are not final, by id and place."""
    return [Due(*row) for row in await tx.each(_LOAD, [(i,) for i in ids])]


async def specs(tx: Tx, ids: Sequence[str]) -> list[Row]:
    """(id, JSON text) of submissions."""
    return await tx.rows(_SPECS, list(ids))


async def settle(tx: Tx, settlements: Sequence[Settlement]) -> int:
    """Write outcomes; a row that is final already stays as it is. Returns the rows written."""
    return await tx.run_each(_SETTLE, settlements) if settlements else 0


async def get(tx: Tx, tenant_id: str, message_id: str) -> list[Line]:
    return [Line(*row) for row in await tx.rows(_GET, tenant_id, message_id)]


async def get_many(tx: Tx, tenant_id: str, message_ids: Sequence[str]) -> list[Line]:
    return [Line(*row) for row in await tx.rows(_GET_MANY, tenant_id, list(message_ids))]


async def first(tx: Tx, message_id: str) -> Due:
    """The first recipient's row, whatever its state, as rendering needs it."""
    row = await tx.row(_FIRST, message_id)
    assert row is not None
    return Due(*row)


async def page(tx: Tx, tenant_id: str, wanted: Filter, *, before: str | None, limit: int) -> list[str]:
    """Ids of messages that match, newest first, older than `before`."""
    where = ["m.tenant_id = $1"]
    params: list[str | int] = [tenant_id]

    def add(condition: str, value: str | int) -> None:
        params.append(value)
        where.append(condition.format(n=len(params)))

    if before is not None:
        add("m.id < ${n}", before)
    if wanted.to is not None:
        add("m.address = ${n}", wanted.to)
    if wanted.status is not None:
        add("m.state = ${n}", wanted.status)
    if wanted.stream is not None:
        add("m.stream_id = ${n}", wanted.stream)
    if wanted.since is not None:
        add("m.id >= ${n}", _id_at(wanted.since))
    if wanted.until is not None:
        add("m.id < ${n}", _id_at(wanted.until))
    source = "message m"
    if wanted.tag is not None:
        source += " JOIN submission s ON s.id = m.submission_id"
        add("s.tags LIKE ${n} ESCAPE '!'", _tag_pattern(wanted.tag))
    params.append(limit)
    rows = await tx.rows(
        f"SELECT DISTINCT m.id FROM {source} WHERE {' AND '.join(where)} ORDER BY m.id DESC LIMIT ${len(params)}",  # noqa: S608
        *params,
    )
    return [row[0] for row in rows]


def _id_at(at: int) -> str:
    """The lowest message id of this moment: ids begin with their millisecond."""
    return f"msg_{at // 1000:012x}"


def _tag_pattern(tag: str) -> str:
    safe = tag.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%,{safe},%"


_CANCEL = """
UPDATE message SET state = 'canceled', updated_at = $3
WHERE tenant_id = $1 AND id = $2 AND state IN ('queued', 'scheduled', 'deferred')"""
_RESCHEDULE = """
UPDATE message SET state = $3, due_at = $4, next_at = $4, expires_at = $5, updated_at = $6
WHERE tenant_id = $1 AND id = $2 AND state IN ('queued', 'scheduled', 'deferred')"""


async def cancel(tx: Tx, tenant_id: str, message_id: str, at: int) -> int:
    return await tx.run(_CANCEL, tenant_id, message_id, at)


async def reschedule(
    tx: Tx, tenant_id: str, message_id: str, state: State, *, due_at: int, expires_at: int, at: int
) -> int:
    return await tx.run(_RESCHEDULE, tenant_id, message_id, str(state), due_at, expires_at, at)
