"""The event table: appended in batches, read by message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from posthouse.events.types import Event
from posthouse.storage.records.base import Row, Tx

Line = tuple[str, int, str, int, str, str, str | None]
"""An event as a row: message_id, rcpt, id, at, type, stage, data."""

_APPEND = """
INSERT INTO event (message_id, rcpt, id, at, type, stage, data)
SELECT v.message_id, v.rcpt, v.id, v.at, v.type, v.stage, v.data
FROM {v(message_id text, rcpt int, id text, at int, type text, stage text, data text)}
WHERE true ON CONFLICT DO NOTHING"""

_OF_MESSAGE = """
SELECT message_id, rcpt, id, at, type, stage, data FROM event
WHERE message_id = $1 ORDER BY id LIMIT $2"""

MOST_EVENTS = 2000
"""Of one message in one answer."""


async def append(tx: Tx, lines: Sequence[Line]) -> None:
    """One statement for all of them; the same id twice is written once."""
    if lines:
        await tx.run_each(_APPEND, cast(Sequence[Row], lines))


async def of_message(tx: Tx, message_id: str) -> list[Event]:
    """Oldest first, at most `MOST_EVENTS`."""
    return [Event(*row) for row in await tx.rows(_OF_MESSAGE, message_id, MOST_EVENTS)]
