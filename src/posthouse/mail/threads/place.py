"""Where a new email belongs, decided from the emails that its look-ups found.

The partition into threads is a function of the set of emails, not of their order. Emails that
ids join are one thread. A reply with no ancestor here joins the one mail that it was most likely
written after. When a late mail changes what a reply was thought to answer, the union can no longer
be mended by adding to it: `Placement.review` names the threads to make anew with `rethread`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from posthouse.mail.threads.evidence import REPEATED_WITHIN, begins, kin, linked, overlap, seeks, target
from posthouse.mail.threads.keys import REPORT, Candidate, Facts, joins_by_subject
from posthouse.mail.threads.overrides import Override, touched

MAX_CANDIDATES = 200


class Placement(msgspec.Struct, frozen=True, gc=False):
    """`thread`: where it goes; None: a new thread. `merge`: threads that become part of `thread`.
    `related`: the thread it answers under another subject. `why`: a sentence for people.

    `review`: rarely, threads (`thread` and `merge` included) of which all emails must be loaded and
    given to `rethread` together with this one, in the same transaction; its groups then hold.
    `thread` and `merge` are what can be said without."""

    thread: str | None
    why: str
    merge: tuple[str, ...] = ()
    related: str | None = None
    review: tuple[str, ...] = ()


_FIRST = Placement(None, "It answers nothing that is here, so it begins a thread.")


def place(email: Candidate, candidates: Sequence[Candidate], overrides: Sequence[Override] = ()) -> Placement:
    """
    :param email: its `thread_id` is not read.
    :param candidates: what its look-ups found, each once, at most `MAX_CANDIDATES` (see `choose`).
    :param overrides: those that name an email of the candidates' threads.
    """
    if not candidates:
        return _FIRST
    facts = email.facts
    proven: list[Candidate] = []
    family: list[Candidate] = []
    subject = facts.subject if joins_by_subject(facts) else 0
    for one in candidates:
        if linked(facts, one.facts):
            proven.append(one)
        if subject and one.facts.subject == subject and joins_by_subject(one.facts):
            family.append(one)
    guess = target(email, family) if family else None
    joined, disturbed = _late(email, family)
    threads = {one.thread_id for one in proven}
    if guess is not None:
        threads.add(guess.thread_id)
    threads.update(joined)
    if disturbed or (overrides and touched(overrides, [one.email_id for one in candidates])):
        threads.update(disturbed)
        return _placement(email, proven, guess, threads, candidates, review=True)
    return _placement(email, proven, guess, threads, candidates, review=False)


def choose(email: Facts, found: Sequence[Candidate]) -> Sequence[Candidate]:
    """The candidates to compare when more were found than `MAX_CANDIDATES`: those that ids link,
    then the nearest in time."""
    if len(found) <= MAX_CANDIDATES:
        return found
    ranked = sorted(found, key=lambda one: (not linked(email, one.facts), abs(one.facts.at - email.at), one.email_id))
    return ranked[:MAX_CANDIDATES]


def _late(email: Candidate, family: list[Candidate]) -> tuple[set[str], set[str]]:
    """What an email means for replies that were here before it: the threads of those that now turn
    out to be written after it, and the threads of those that were thought to answer another."""
    joined: set[str] = set()
    disturbed: set[str] = set()
    for reply in family:
        if not _concerns(email.facts, reply.facts):
            continue
        before = target(reply, family)
        after = target(reply, [*family, email])
        if after is before:
            continue
        if before is not None:
            disturbed.update(one.thread_id for one in family)
        elif after is email:
            joined.add(reply.thread_id)
    return joined, disturbed


def _concerns(email: Facts, reply: Facts) -> bool:
    """Whether an email can change what an earlier arrived reply is thought to answer."""
    if not seeks(reply):
        return False
    if email.at <= reply.at or (email.message and email.message in reply.refs):
        return True
    # A later one counts by a wrong clock, or as one more conversation with this subject.
    return begins(email) and email.at <= reply.at + REPEATED_WITHIN


def _placement(
    email: Candidate,
    proven: Sequence[Candidate],
    guess: Candidate | None,
    threads: set[str],
    candidates: Sequence[Candidate],
    *,
    review: bool,
) -> Placement:
    ordered = sorted(threads)
    related = None
    if email.facts.parent:
        parents = [one for one in candidates if one.facts.message == email.facts.parent]
        related = next((one.thread_id for one in parents if one.thread_id not in threads), None)
    if not ordered:
        if related is None:
            return _FIRST
        return Placement(None, "It answers a mail here, but has another subject, so it begins a thread.", (), related)
    return Placement(
        ordered[0],
        _why(email, proven, guess, len(ordered)),
        tuple(ordered[1:]),
        related,
        tuple(ordered) if review else (),
    )


def _why(email: Candidate, proven: Sequence[Candidate], guess: Candidate | None, threads: int) -> str:
    if threads > 1:
        return f"It links {threads} threads, which are one from now on."
    if proven:
        return _proof(email.facts, proven)
    if guess is None:
        return "A reply that is here was written after it."
    facts = guess.facts
    if overlap(email.facts.quoted, facts.own):
        return "It has the subject of a mail here and quotes it."
    if kin(email.facts, facts) and email.facts.list_id and email.facts.list_id == facts.list_id:
        return "It is a reply with the subject of a recent mail to the same list."
    return "It is a reply with the subject of a recent mail among the same people."


def _proof(facts: Facts, proven: Sequence[Candidate]) -> str:
    for one in proven:
        other = one.facts
        if other.message and other.message in facts.refs:
            if facts.flags & REPORT and facts.subject != other.subject:
                return "It reports on a mail here."
            return "It refers to a mail here by its Message-ID."
        if other.message and other.message == facts.message:
            return "A mail with the same Message-ID and subject is here."
        if facts.message and facts.message in other.refs:
            return "A mail here refers to it by its Message-ID."
    return "It refers to the same mail as one that is here."
