"""Forwarded mail that could not be delivered: its sender is told, when the envelope proved it.

Only forwards are reported: about an answer or a report nobody is told (RFC 3834 §2, RFC 3464
§2). The report names the address that the sender wrote to. Where it led is the recipient's
own affair, so that address and its hosts are left out, and taken out of the peer's words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from posthouse.clock import Clock
from posthouse.events.handover import Handover, Kind, keep_and_hand_over
from posthouse.events.notice import Undelivered, report
from posthouse.outbound.model import State
from posthouse.outbound.settle import Outcome
from posthouse.storage.contents import Content, Contents
from posthouse.storage.queue.base import Queue
from posthouse.storage.records.base import Tx

log = structlog.get_logger("outbound")

_FAILED = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}")
_SAID = {
    "too_old": ("4.4.7", "It could not be delivered in the time that mail is tried"),
    "soft_bounce_limit": ("4.4.7", "The server there refused it again and again"),
    "no_such_address": ("5.1.1", "The address that it leads to does not exist"),
}
_SUPPRESSED = ("5.1.1", "The address that it leads to refused earlier mail for good, so it is not tried")
_OTHER = ("5.0.0", "It could not be delivered")


class Report:
    """`outbound.relay.Report`.

    :param host: ours, the Reporting-MTA.
    """

    def __init__(self, queue: Queue, contents: Contents, *, host: str, clock: Clock) -> None:
        self._queue = queue
        self._contents = contents
        self._host = host
        self._clock = clock

    async def __call__(self, tx: Tx, failed: Sequence[tuple[Outcome, Handover]]) -> None:
        """One report for what was written to one address, in the transaction of the outcomes."""
        now = self._clock()
        first: dict[str, tuple[Outcome, Handover]] = {}
        for outcome, one in failed:
            if one.kind is Kind.FORWARD and one.report_to and one.domain:
                first.setdefault(one.id, (outcome, one))
        made: list[tuple[Content, Handover]] = []
        for outcome, one in first.values():
            built = report(_undelivered(outcome, one), host=self._host, now=now)
            if built is None:
                log.warning("report_impossible", message_id=one.id)
            else:
                made.append(built)
        if made:
            await keep_and_hand_over(tx, self._queue, self._contents, made, now)


def _undelivered(outcome: Outcome, one: Handover) -> Undelivered:
    status, diagnostic, smtp = _diagnosis(outcome)
    return Undelivered(
        one.id,
        str(outcome.due.rcpt),
        one.tenant_id,
        one.origin,
        one.domain,
        one.report_to or "",
        one.written_to,
        one.arrived_at or outcome.due.created_at,
        one.header,
        status,
        _discreet(diagnostic, outcome, one) if smtp else diagnostic,
        smtp,
    )


def _diagnosis(outcome: Outcome) -> tuple[str, str, bool]:
    """Status, words, and whether a peer said them."""
    if outcome.state is State.SUPPRESSED:
        return *_SUPPRESSED, False
    data: dict[str, Any] = msgspec.json.decode(outcome.data) if outcome.data else {}
    status, words = _SAID.get(str(data.get("cause")), _OTHER)
    if outcome.reply is None:
        return status, words, False
    reply: dict[str, Any] = msgspec.json.decode(outcome.reply)
    enhanced = str(reply.get("enhanced") or "")
    known = enhanced if _FAILED.fullmatch(enhanced) else status
    text = " ".join(str(word) for word in (reply.get("code"), enhanced, reply.get("text")) if word)
    return known, text, True


def _discreet(text: str, outcome: Outcome, one: Handover) -> str:
    """The peer's words without the address that the mail was sent on to, or the domain."""
    address = outcome.due.address
    for private in (address, address.rpartition("@")[2]):
        text = re.sub(re.escape(private), lambda _: one.written_to, text, flags=re.IGNORECASE)
    return text
