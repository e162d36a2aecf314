"""What the receiving flow hands to the sending flow: a whole message and its envelope.

The two flows meet only here: a row in `relayed` (which holds the content) and a job of the
stage `relay`, both written in the receiving side's own transaction. The row lives until the
message has ended for all its recipients.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from posthouse.errors import StorageUnavailable
from posthouse.storage.contents import Content, Contents
from posthouse.storage.queue.base import Job, Lane, Queue
from posthouse.storage.records.base import Tx

RELAY = "relay"
"""The queue's name."""


class Kind(StrEnum):
    FORWARD = "forward"
    """A rule or an alias sends it on, bytes unchanged but for trace fields before it."""
    ANSWER = "answer"
    """An automatic answer (RFC 3834)."""
    REPORT = "report"
    """A delivery status notification (RFC 3464)."""


class Handover(msgspec.Struct, frozen=True, omit_defaults=True):
    """`content`: key in `storage.contents`, kept with one reference for this row; `size` in
    octets. `reverse_path` is '' for the null path. `sender`: address of the From field, whose
    domain signs when `sign`. `origin`: the incoming message it comes from. `report_to`: who is
    told when it fails for good; only ever an address that the envelope proved, and None for
    what must not be answered. For that report: `domain`, ours that it comes from; `written_to`,
    what the sender had written to, since it need not know of `recipients`; `arrived_at`, µs;
    `header`, the message's own header fields."""

    id: str
    """`msg_…`: of the message that it becomes."""
    tenant_id: str
    kind: Kind
    content: str
    size: int
    reverse_path: str
    sender: str
    recipients: tuple[str, ...]
    origin: str
    sign: bool = False
    utf8: bool = False
    """A header field is not ASCII: the peer needs SMTPUTF8."""
    report_to: str | None = None
    subject: str = ""
    domain: str = ""
    written_to: str = ""
    arrived_at: int = 0
    header: bytes = b""


async def hand_over(tx: Tx, queue: Queue, handovers: Sequence[Handover], now: int) -> frozenset[str]:
    """In the transaction that keeps the contents and ends the incoming job. The same id twice
    is a repeat and changes nothing; the answer names those that are not."""
    rows = [(one.id, one.content, msgspec.json.encode(one).decode(), now) for one in handovers]
    fresh = {name for (name,) in await tx.each(_INSERT, rows)}
    jobs = [Job(RELAY, Lane.TRANSACTIONAL, one.tenant_id, now, one.id) for one in handovers if one.id in fresh]
    await queue.put(jobs, tx=tx)
    return frozenset(fresh)


async def keep_and_hand_over(
    tx: Tx, queue: Queue, contents: Contents, given: Sequence[tuple[Content, Handover]], now: int
) -> None:
    """`hand_over`, with one reference to the content of each that is new.

    :raises StorageUnavailable: a content like it is being removed.
    """
    fresh = await hand_over(tx, queue, [one for _, one in given], now)
    kept = {one.id: content for content, one in given if one.id in fresh}
    if kept and await contents.keep(tx, [(content, 1) for content in kept.values()]):
        raise StorageUnavailable(detail="a content like this is being removed")


async def load(tx: Tx, ids: Sequence[str]) -> list[Handover]:
    rows = await tx.rows(_LOAD, list(ids))
    return [msgspec.json.decode(text, type=Handover) for (text,) in rows]


async def forget(tx: Tx, ids: Sequence[str]) -> list[str]:
    """Ended; the contents whose reference is to be released."""
    return [key for (key,) in await tx.rows(_FORGET, list(ids))]


async def ended(tx: Tx, most: int) -> list[str]:
    """Those whose message has no recipient under way: canceled through the API, say."""
    return [name for (name,) in await tx.rows(_ENDED, most)]


_INSERT = """
INSERT INTO relayed (id, content, handover, created_at)
SELECT v.id, v.content, v.handover, v.now FROM {v(id text, content text, handover text, now int)} WHERE true
ON CONFLICT (id) DO NOTHING RETURNING id
"""
_LOAD = "SELECT handover FROM relayed WHERE id = ANY($1) ORDER BY id"
_FORGET = "DELETE FROM relayed WHERE id = ANY($1) RETURNING content"
_ENDED = """
SELECT r.id FROM relayed r
WHERE EXISTS (SELECT 1 FROM message m WHERE m.id = r.id)
  AND NOT EXISTS (SELECT 1 FROM message m WHERE m.id = r.id AND m.state IN ('queued', 'scheduled', 'deferred'))
LIMIT $1
"""
