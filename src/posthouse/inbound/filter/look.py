"""What is left of a message when the rules have looked at it: little enough to cross between
processes, and all that a verdict needs besides its envelope."""

from __future__ import annotations

from typing import Protocol

import msgspec

from posthouse.inbound.filter.facts import Facts, TextReader, gather
from posthouse.inbound.filter.lists import domains
from posthouse.inbound.filter.rules import apply
from posthouse.inbound.model import Arrival, Reason
from posthouse.mail.parsed import Parsed


class Look(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """`reasons`: of the rules of the message. `address`: the From's, lower case. `proved`: its
    domain is. `doubtful`: its domain asks for mail like this to be put aside or refused.
    `domains`: worth a question to DNS lists. `probability`: the classifier's."""

    reasons: tuple[Reason, ...]
    address: str = ""
    proved: bool = False
    doubtful: bool = False
    domains: tuple[str, ...] = ()
    probability: float | None = None


class Classifier(Protocol):
    """The learned classifier's place. Called once for a message, beside the rules: quick or None."""

    def probability(self, facts: Facts, /) -> float | None:
        """That it is spam, 0 to 1; None: nothing to say, which adds nothing."""
        ...


class Unlearned:
    """No classifier."""

    def probability(self, facts: Facts, /) -> float | None:
        return None


UNLEARNED = Unlearned()


def look(arrival: Arrival, parsed: Parsed, read: TextReader, classifier: Classifier = UNLEARNED) -> Look:
    """Pure. :param read: `mail.parse.text`."""
    facts = gather(arrival, parsed, read)
    return Look(
        tuple(apply(facts)),
        facts.address,
        bool(facts.proof.author),
        facts.proof.policy != "none",
        tuple(domains(facts)),
        classifier.probability(facts),
    )
