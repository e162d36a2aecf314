"""What the edges are told: answers to requests that send, and messages as they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from posthouse.clock import rfc3339
from posthouse.errors import Error, Fault, Invalid
from posthouse.events.types import Event
from posthouse.outbound.check import Checked
from posthouse.outbound.compose import Composed
from posthouse.outbound.ledger import Line
from posthouse.outbound.model import EventView, MessageView, RecipientView, State
from posthouse.outbound.spec import Spec
from posthouse.storage.queue.base import Lane

_PROGRESS = (State.SCHEDULED, State.QUEUED, State.DEFERRED)


def accepted_single(composed: Composed, checked: Checked) -> dict[str, Any]:
    return {
        "id": composed.message_ids[0],
        "status": composed.state.value,
        "recipients": [{"address": r.address, "status": composed.state.value} for r in checked.recipients],
    }


def batch_answer(results: list[dict[str, Any]], refused: int) -> dict[str, Any]:
    return {"accepted": len(results) - refused, "refused": refused, "results": results}


def problem(error: Error) -> dict[str, Any]:
    """An item's error, in the words of a problem (RFC 9457)."""
    faults = [{"pointer": fault.pointer, "message": fault.message} for fault in error.faults]
    return {"error": {"code": error.code, "detail": error.public, "errors": faults}}


def together(bad: dict[int, Error]) -> Invalid:
    faults = [fault for error in bad.values() for fault in error.faults][:50]
    return Invalid("Nothing was accepted: some items are not valid", code="batch_refused", faults=tuple(faults))


_R = TypeVar("_R", bound=Composed | Error)


def below(result: _R, at: str) -> _R:
    """An item's error with pointers that start at the batch."""
    if isinstance(result, Error):
        result.faults = tuple(Fault(at + fault.pointer, fault.message) for fault in result.faults)
    return result


def overall(states: Sequence[str]) -> str:
    """The message's status: what its recipients share, else what is least final."""
    for state in _PROGRESS:
        if state.value in states:
            return state.value
    return states[0] if len(set(states)) == 1 else next(s for s in _BY_WEIGHT if s in states)


_BY_WEIGHT = ("failed", "bounced", "suppressed", "canceled", "delivered")


def view(lines: Sequence[Line], spec: Spec) -> MessageView:
    first = lines[0]
    return MessageView(
        id=first.id,
        status=overall([line.state for line in lines]),
        from_=_shown(spec.from_),
        stream=spec.stream,
        lane=Lane(first.lane).name.lower(),
        created_at=rfc3339(first.created_at),
        send_at=rfc3339(first.due_at),
        expires_at=rfc3339(first.expires_at),
        recipients=[_recipient(line) for line in lines],
        subject=spec.subject or None,
        template=spec.template,
        template_version=spec.template_version,
        tags=list(spec.tags),
        metadata=msgspec.json.decode(first.metadata) if first.metadata else {},
    )


def _recipient(line: Line) -> RecipientView:
    waits = line.state in (State.DEFERRED, State.SCHEDULED)
    return RecipientView(
        address=line.address,
        status=line.state,
        attempts=line.attempts,
        updated_at=rfc3339(line.updated_at),
        next_attempt_at=rfc3339(line.next_at) if waits else None,
        reply=msgspec.json.decode(line.reply) if line.reply else None,
    )


def _shown(named: tuple[str, str]) -> str:
    return f"{named[0]} <{named[1]}>" if named[0] else named[1]


_TIMES = ("next_at", "since", "to")
"""Members of an event's data that are times: µs in the log, RFC 3339 in public."""


def event_view(event: Event, recipient: str) -> EventView:
    data: dict[str, Any] = msgspec.json.decode(event.data) if event.data else {}
    for name in _TIMES:
        if isinstance(data.get(name), int):
            data[name] = rfc3339(data[name])
    return EventView(event.id, event.type, rfc3339(event.at), event.stage, recipient, data)
