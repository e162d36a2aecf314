"""How much a site is given ahead of what it sends, and when what finds no room is to come again."""

from __future__ import annotations

import random

from posthouse.clock import SECOND, Clock
from posthouse.storage.queue.base import Lane

_SECONDS = 5.0
_LEAST = 256
_OF_A_SLOW_ONE = 16
"""Parcels worth holding before a rate is known, and of a site where they grew stale: each of
those was rendered in vain."""
_KNOWN_AFTER = 10 * SECOND
"""µs of sending after which the rate says when there will be room."""
_LINE_LONGEST = (60 * SECOND, 60 * SECOND, 300 * SECOND)
"""µs, by lane, for which a parcel without room is sent away at most: so long may a site that has
become faster be given too little. Of bulk a million may wait for one slow site, and each that
comes again in vain is work that mail for others waits for."""
_BEST_HALVES = 60.0
"""Seconds in which the best rate seen counts half."""


class Room:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._least = _LEAST
        self._settled = 0
        self._rate = self._best = 0.0
        self._rate_at = clock()
        self._sending_since = 0
        self._line = [0 for _ in Lane]

    def stale(self) -> None:
        """A parcel came too late to be sent."""
        self._least = max(_OF_A_SLOW_ONE, self._least // 2)

    def fresh(self) -> None:
        """A parcel was in time."""
        self._least = min(_LEAST, self._least + 1)

    def settled(self) -> None:
        self._settled += 1

    def left(self, waiting: int) -> int:
        """How many parcels more are worth holding: what the site sends in a few seconds."""
        return max(self._least, int(self._measured() * _SECONDS)) - waiting

    def wait(self, lane: int) -> int:
        """µs after which there should be room: a place in a line that moves twice as fast as the
        site has lately, so that a long queue is not taken and put back all the time. It is not the
        rate of this moment, which is low where the site was given too little."""
        now = self._clock()
        jitter = random.uniform(0.5, 1.0)  # noqa: S311
        self._measured()
        pace = 2 * max(self._best, _LEAST / _SECONDS)
        if not self._sending_since or now - self._sending_since < _KNOWN_AFTER:
            return int(_SECONDS * SECOND * jitter)
        place = max(self._line[lane], now + int(_SECONDS / 2 * SECOND)) + int(SECOND / pace)
        if place - now > _LINE_LONGEST[lane]:
            return int(_LINE_LONGEST[lane] * jitter)
        self._line[lane] = place
        return place - now

    def _measured(self) -> float:
        """Parcels a second, over the last seconds."""
        now = self._clock()
        elapsed = (now - self._rate_at) / SECOND
        if elapsed >= 0.25:
            fresh = self._settled / elapsed
            self._rate = fresh if self._rate == 0 else 0.5 * self._rate + 0.5 * fresh
            self._best = max(self._rate, self._best * 0.5 ** (elapsed / _BEST_HALVES))
            if self._settled and not self._sending_since:
                self._sending_since = now
            self._settled, self._rate_at = 0, now
        return self._rate
