"""The transitions of a message. docs/reference/events.md is made from this file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Type(StrEnum):
    ACCEPTED = "accepted"
    """Durable: the answer 202 was given after this was on disk."""
    RENDERED = "rendered"
    """Filled, built and signed; the data name the version, the size and the signatures."""
    DEFERRED = "deferred"
    """An attempt failed for now; the data hold the peer's reply and the next time."""
    DELIVERED = "delivered"
    """The peer took responsibility: 250 after the data. Final."""
    BOUNCED = "bounced"
    """The peer refused for good, or kept on refusing for now too long. Final."""
    SUPPRESSED = "suppressed"
    """Not attempted: the address is on the suppression list. Final."""
    CANCELED = "canceled"
    """Taken back through the API before an attempt. Final."""
    FAILED = "failed"
    """Could not be rendered or routed, or grew too old before a peer decided. Final."""
    RESCHEDULED = "rescheduled"
    """`send_at` was changed through the API."""
    RECOVERED = "recovered"
    """It was under way and no job carried it on (after a restore, say), so its job was put again."""


@dataclass(frozen=True, slots=True)
class Event:
    """`at` in µs; `stage` is submit, render, send or api; `data` is a JSON object or None."""

    message_id: str
    rcpt: int
    id: str
    at: int
    type: str
    stage: str
    data: str | None = None
