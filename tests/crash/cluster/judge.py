"""The judge of a fault run: it knows the promise and nothing of how it is kept.

- Every message of a 202 ends in exactly one final state, and is at the sink exactly if that is
  `delivered`; its history begins once and ends once.
- A message is there twice only where a fault struck in between, and then for at most one open
  SMTP transaction a connection of the processes that it struck.
- Every letter of a 250 lies in exactly one mailbox of each of its recipients, whole, and the
  mailboxes' own proof finds nothing.
- In calm, a critical message waits for nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posthouse.smtpd.sink.journal import Entry
from tests.crash.load import Single
from tests.product import message_id

CRITICAL_SECONDS = 10.0
"""The longest that a critical message may wait for its first attempt while all is well."""
_AFTERMATH = 12.0
"""Seconds after a fault that are not calm yet: leases run out, what waited is caught up with."""


@dataclass(frozen=True, slots=True)
class Happening:
    """A fault, from its begin until what it struck was ready again (seconds since 1970)."""

    name: str
    begin: float
    end: float
    hits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeat:
    """A message that was taken at `first` and again at `second`."""

    message: str
    first: float
    second: float


def repeats(log: Sequence[Entry]) -> list[Repeat]:
    """Of messages that the sink answered 250 more than once, the earliest first."""
    times: dict[str, list[float]] = {}
    for entry in log:
        if entry.outcome.startswith("250"):
            times.setdefault(message_id(entry), []).append(entry.at)
    found = [
        Repeat(name, *pair) for name, at in times.items() for pair in zip(sorted(at)[:-1], sorted(at)[1:], strict=True)
    ]
    return sorted(found, key=lambda one: one.second)


def judge_repeats(found: Sequence[Repeat], happenings: Sequence[Happening], connections: int) -> list[str]:
    """Each needs a fault that explains it, and a fault explains so many: a largest matching."""
    seats = [(number, seat) for number, one in enumerate(happenings) for seat in range(connections * len(one.hits))]
    taken: dict[tuple[int, int], int] = {}

    def seated(which: int, seen: set[tuple[int, int]]) -> bool:
        one = found[which]
        for place in seats:
            about = happenings[place[0]]
            if place in seen or about.begin > one.second or about.end < one.first:
                continue
            seen.add(place)
            if place not in taken or seated(taken[place], seen):
                taken[place] = which
                return True
        return False

    return [
        f"{one.message}: at the sink twice, {one.first:.3f} and {one.second:.3f}, and no fault explains it"
        for which, one in enumerate(found)
        if not seated(which, set())
    ]


def judge_critical(
    singles: Mapping[str, Single], log: Sequence[Entry], happenings: Sequence[Happening]
) -> tuple[list[str], int]:
    """What is wrong, and how many messages could be judged."""
    first: dict[str, float] = {}
    for entry in log:
        for address in entry.to:
            first.setdefault(address, entry.at)
    wrong: list[str] = []
    judged = 0
    for name, single in singles.items():
        attempt = first.get(single.address, float("inf"))
        if single.stream != "critical" or _disturbed(happenings, single.at, min(attempt, single.at + CRITICAL_SECONDS)):
            continue
        judged += 1
        waited = attempt - single.at
        if waited > CRITICAL_SECONDS:
            wrong.append(f"{name}: critical, and waited {waited:.1f} s in calm")
    return wrong, judged


def _disturbed(happenings: Sequence[Happening], begin: float, end: float) -> bool:
    return any(one.begin < end and begin < one.end + _AFTERMATH for one in happenings)


def twice_by_fault(found: Sequence[Repeat], happenings: Sequence[Happening]) -> Counter[str]:
    """For the reader: repeats by the faults that lay between."""
    return Counter(
        "+".join(about.name for about in happenings if about.begin <= one.second and about.end >= one.first) or "?"
        for one in found
    )
