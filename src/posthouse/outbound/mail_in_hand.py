"""A message between its claim and its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import finalize

from posthouse.egress.site import Site
from posthouse.outbound.ledger import Due
from posthouse.outbound.settle import Entry, Outcome
from posthouse.outbound.spec import Spec
from posthouse.storage.queue.base import Job, Lane

LARGE = 256 * 1024
LARGE_IN_HAND = 128 * 1024 * 1024
"""Octets that the large messages (over `LARGE` each) of a lane may have in memory together."""

EarlierEvent = tuple[str, int, int, str, str, str | None]
"""message_id, rcpt, at, type, stage, data: written with the outcome that follows."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class InHand:
    """One claimed message: its job, what its request shares, and its recipients by site."""

    job: Job
    spec: Spec
    groups: list[tuple[Site, list[Due]]] = field(default_factory=list)
    open: int = 0
    """Parts (a site's recipients) that have no outcome yet."""
    waits_until: list[int] = field(default_factory=list)
    """When recipients that are not final are due again."""
    earlier: list[EarlierEvent] = field(default_factory=list)

    @property
    def first(self) -> Due:
        return self.groups[0][1][0]

    def end(self, outcomes: Sequence[Outcome]) -> Entry:
        """One part has ended; the last one ends the job or says when it is due again."""
        self.open -= 1
        earlier, self.earlier = self.earlier, []
        self.waits_until.extend(outcome.next_at for outcome in outcomes if outcome.next_at)
        return Entry(
            self.job,
            outcomes,
            again_at=min(self.waits_until, default=None),
            open=self.open > 0,
            relayed=self.spec.relayed is not None,
            events=earlier,
        )


class LargeMail:
    """How much of large messages is in memory, by lane. Counted until the message is let go,
    so no way out of the flow can forget to give its room back."""

    def __init__(self) -> None:
        self._in_hand = [0 for _ in Lane]

    def take(self, mail: InHand, octets: int) -> bool:
        """False: it has to wait. One alone is never too large."""
        lane = mail.job.lane
        if octets < LARGE:
            return True
        if self._in_hand[lane] and self._in_hand[lane] + octets > LARGE_IN_HAND:
            return False
        self._in_hand[lane] += octets
        finalize(mail, self._give_back, lane, octets)
        return True

    def _give_back(self, lane: int, octets: int) -> None:
        self._in_hand[lane] -= octets
