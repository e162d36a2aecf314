"""What was found out a moment ago about who sends: a peer that sends a thousand messages is asked
about once. Nothing of a message's own (its signatures, its seals) is in it."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from posthouse.mailauth.dmarc import Policy
from posthouse.mailauth.evidence import Authentication, Spf

SECONDS = 5.0
"""Far below what DNS answers are good for; so is what changed there seen soon."""
MOST = 4096

Key = tuple[str, str, str, tuple[str, ...], str]
"""The peer, its HELO name, `@` and the domain of the reverse-path (empty: the null path), the
domains of From, what is wrong there."""


class Facts(msgspec.Struct, frozen=True, gc=False):
    """`policies`: of each domain of From, None where DNS did not answer. `once`: some of it is
    true of this message only. `plain`: all that is known, for a message without signatures."""

    spf: Spf
    helo: Spf
    policies: tuple[Policy | None, ...]
    iprev: str
    once: bool = False
    plain: Authentication | None = None


class Memory:
    """For the calls of one receiver, with the same rules and the same DNS."""

    def __init__(self, *, seconds: float = SECONDS, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._held: dict[Key, tuple[float, Facts]] = {}

    def recall(self, key: Key) -> Facts | None:
        held = self._held.get(key)
        return held[1] if held is not None and held[0] > self._monotonic() else None

    def keep(self, key: Key, facts: Facts, plain: Authentication | None) -> None:
        """Until its seconds since it was found out are over. What DNS did not answer is not kept."""
        if facts.once or "temperror" in (facts.spf.result, facts.helo.result, facts.iprev) or None in facts.policies:
            return
        if plain is not None and plain.dmarc.result == "temperror":
            plain = None
        held = self._held.get(key)
        if held is not None and held[1].policies is facts.policies:  # recalled: only `plain` may be new
            if plain is not None:
                self._held[key] = (held[0], msgspec.structs.replace(facts, plain=plain))
            return
        self._held.pop(key, None)
        self._held[key] = (self._monotonic() + self._seconds, msgspec.structs.replace(facts, plain=plain))
        if len(self._held) > MOST:
            del self._held[next(iter(self._held))]
