"""When a session is overdue. Looked at once a tick; a busy session only counts up two numbers."""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.smtp.answers import simple
from posthouse.smtp.reply import Reply
from posthouse.smtpd.gateway.dialogue import Dialogue
from posthouse.smtpd.gateway.options import Pace, Timeouts


@dataclass(frozen=True, slots=True)
class Overdue:
    name: str
    reply: Reply


IDLE = Overdue("idle", simple(421, "4.4.2", "Nothing heard for too long"))
SLOW = Overdue("slow", simple(421, "4.4.2", "The message comes too slowly"))
CHOKED = Overdue("choked", simple(421, "4.4.2", "Our replies are not read"))
OLD = Overdue("old", simple(421, "4.3.2", "This connection is old; connect again"))


class Clocks:
    """`octets` and `turns` (commands answered) only ever grow.

    :param born: when the connection came, in seconds of the loop's clock, as all times here.
    """

    __slots__ = (
        "_octets", "_pace", "_since", "_times", "_turns", "_window_at", "_window_octets", "born", "octets", "turns",
    )  # fmt: skip

    def __init__(self, times: Timeouts, pace: Pace, born: float) -> None:
        self._times = times
        self._pace = pace
        self.born = self._since = born
        self.octets = self.turns = 0
        self._octets = self._turns = 0  # as seen at `_since`
        self._window_at: float | None = None
        self._window_octets = 0

    def overdue(self, now: float, dialogue: Dialogue, *, choked: bool) -> Overdue | None:
        """Why the session has to end now."""
        if now - self.born > self._times.life and self._old(now, dialogue):
            return OLD
        if dialogue.core.waiting or dialogue.busy:
            self._since, self._window_at = now, None
            return None
        if dialogue.in_body:
            return self._in_body(now)
        self._window_at = None
        if self.turns != self._turns and not choked:  # a whole command, not just some octets of it
            self._turns, self._since = self.turns, now
            return None
        if now - self._since > self._times.command:
            return CHOKED if choked else IDLE
        return None

    def _old(self, now: float, dialogue: Dialogue) -> bool:
        return dialogue.quiet or (now - self.born > 2 * self._times.life and not dialogue.core.waiting)

    def _in_body(self, now: float) -> Overdue | None:
        if self.octets != self._octets:
            self._octets, self._since, self._turns = self.octets, now, self.turns
        elif now - self._since > self._times.data:
            return IDLE
        if self._window_at is None:
            self._window_at, self._window_octets = now, self.octets
        elif now - self._window_at >= self._pace.window:
            if self.octets - self._window_octets < self._pace.octets * (now - self._window_at):
                return SLOW
            self._window_at, self._window_octets = now, self.octets
        return None
