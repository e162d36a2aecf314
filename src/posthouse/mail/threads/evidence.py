"""Two emails: do they belong together, and how surely?

`linked` is proof and needs nothing but the two. `weigh` is suspicion, for a reply whose parent is
not here: it is used by `place` and `rethread`, which know all that could be meant.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from posthouse.mail.threads.keys import (
    FORWARD,
    OPEN,
    OURS,
    RECURRING,
    REPLY,
    REPORT,
    TICKET,
    Candidate,
    Facts,
    joins_by_subject,
)

ENOUGH = 1
"""The least weight that joins two emails."""
SKEW = 12 * 3600
"""Seconds by which a first mail's clock may be ahead of its reply's."""
_DAY = 86_400
REPEATED_WITHIN = 60 * _DAY
_REPEATED = -3
_SHORT = 8  # letters of a subject that many conversations share (`Lunch?`, `Hallo`)
_RARE = 12  # letters of a subject that few share
_ALIKE = 0.9
_NUMBERS = re.compile(r"\d+")


def linked(a: Facts, b: Facts) -> bool:
    """Whether ids prove it: they share one and have the same subject, or one answers the other
    directly and its subject differs only as clients and gateways make it differ."""
    if a.subject == b.subject:
        return shares_id(a, b)
    if a.message and b.parent == a.message:
        return _same_talk(b, a)
    return bool(b.message) and a.parent == b.message and _same_talk(a, b)


def shares_id(a: Facts, b: Facts) -> bool:
    """One's Message-ID is the other's or among its references, or they refer to the same mail."""
    if a.message and (a.message == b.message or a.message in b.refs):
        return True
    if b.message and b.message in a.refs:
        return True
    return overlap(a.refs, b.refs)


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two short tuples have a member in common."""
    return bool(a and b) and not set(a).isdisjoint(b)


def kin(a: Facts, b: Facts) -> bool:
    """Whether they went among the same people: a list or a person in common, the account's owner
    aside. Archives that leave the recipients out are taken as one circle."""
    if a.list_id and a.list_id == b.list_id:
        return True
    if a.flags & b.flags & OPEN:
        return True
    if not a.people or not b.people:
        return not a.people and not b.people
    return overlap(a.people, b.people)


def seeks(b: Facts) -> bool:
    """Whether it says that it answers something, so that a missing parent may be sought."""
    if not joins_by_subject(b):
        return False
    return bool(b.flags & (REPLY | FORWARD | TICKET) or b.refs or b.quoted)


def begins(a: Facts) -> bool:
    """Whether it looks like the first mail of a conversation."""
    return not a.flags & (REPLY | FORWARD) and not a.refs


def anchors(a: Candidate, b: Candidate) -> bool:
    """Whether `b` needs no search because of `a`: its ancestor, or an earlier mail of the same talk."""
    if a.facts.message and a.facts.message in b.facts.refs:
        return True
    return shares_id(a.facts, b.facts) and earlier(a, b) and b.facts.message not in a.facts.refs


def moment(a: Candidate) -> tuple[object, ...]:
    """What an account's emails are ordered by: time, and within a second what they say. Their ids
    tell of the order in which they came, so those decide only between mails that are alike."""
    f = a.facts
    return (f.at, f.message, f.author, f.flags, f.parent, f.list_id, f.refs, f.people, f.quoted, f.own, a.email_id)


def earlier(a: Candidate, b: Candidate) -> bool:
    """Whether `a` stands before `b`."""
    if a.facts.at != b.facts.at:
        return a.facts.at < b.facts.at
    return moment(a) < moment(b)


def target(b: Candidate, family: list[Candidate]) -> Candidate | None:
    """Which mail `b` was most likely written after.

    :param family: all emails with its subject that are at hand; `b` may be among them.
    :return: None when `b` seeks nothing, is anchored, or nothing is sure enough.
    """
    if not seeks(b.facts) or any(anchors(a, b) for a in family if a is not b):
        return None
    best: tuple[int, tuple[object, ...]] | None = None
    found = None
    repeated = _is_repeated(b, family)
    doubt = _REPEATED if repeated and b.facts.refs else 0
    rare = not repeated and not b.facts.refs and len(b.facts.text) >= _RARE
    for a in family:
        if a is b:
            continue
        weight = weigh(b, a, rare=rare) + doubt
        if weight < ENOUGH:
            continue
        rank = (weight, moment(a))
        if best is None or rank > best:
            best, found = rank, a
    return found


def _is_repeated(b: Candidate, family: list[Candidate]) -> bool:
    """Whether several conversations began with this subject around that time: then a mail that
    answers a missing one may belong to any of them, or to another that is missing too."""
    head: Facts | None = None
    for one in family:
        a = one.facts
        if one is not b and begins(a) and abs(a.at - b.facts.at) <= REPEATED_WITHIN:
            if head is not None and not shares_id(head, a):
                return True
            head = a
    return False


def weigh(child: Candidate, parent: Candidate, *, rare: bool = False) -> int:
    """How much speaks for `child` having been written after `parent`, same subject presumed.

    :param rare: hardly two conversations have this subject, so an old one may be meant.
    """
    b, a = child.facts, parent.facts
    if b.subject != a.subject or not joins_by_subject(a) or not kin(a, b):
        return -9
    gap = b.at - a.at
    if not earlier(parent, child):
        # A later one is its parent only by a wrong clock, and only if it began something.
        if gap < -SKEW or not begins(a):
            return -9
        gap = SKEW
    quotes = overlap(b.quoted, a.own)
    cites = bool(b.cited) and (a.author in b.cited or a.name in b.cited)
    weight = _nearness(gap, rare, bool(b.refs)) + 3 * quotes + 2 * cites + _addressed(a, b) + _doubts(a, b)
    if b.refs or b.flags & REPLY:
        return weight
    return weight - 1 if b.flags & FORWARD else weight + _without_prefix(a, b, quotes)


def _nearness(gap: int, rare: bool, dangling: bool) -> int:
    if gap <= (2 if dangling else 4) * _DAY:
        return 3
    if gap <= 14 * _DAY:
        return 2
    if gap <= 60 * _DAY:
        return 1 if rare else -1
    if gap <= 400 * _DAY:
        return -1 if rare else -3
    return -9


def _addressed(a: Facts, b: Facts) -> int:
    """Written to the other's author; to the account's owner everything is."""
    return int(a.author != b.author and not a.flags & OURS and a.author in b.people)


def _doubts(a: Facts, b: Facts) -> int:
    doubt = -1 if len(b.text) < _SHORT else 0
    if len(b.text) < 3:
        doubt -= 2
    if b.refs and b.flags & RECURRING:
        doubt -= 2
    if b.refs and a.message and begins(a):
        # It refers to something, and not to this first mail: a chain would have named it.
        doubt -= 4 if len(b.refs) > 1 else 1
    elif b.refs and a.refs:
        doubt -= 3 if len(b.refs) > 1 and len(a.refs) > 1 else 1
    return doubt


def _without_prefix(a: Facts, b: Facts, quotes: bool) -> int:
    """No `Re:` and no ids: only a quotation, or a ticket that the same sender writes about again."""
    if quotes:
        return 0
    if b.flags & TICKET and (a.author == b.author or (b.list_id and a.list_id == b.list_id)):
        return 0
    return -9


def _same_talk(child: Facts, parent: Facts) -> bool:
    """A direct answer with another subject: a report, none at all, a client's label before it, or a
    few letters' difference among the same people."""
    if child.flags & REPORT or not child.subject or not parent.subject:
        return True
    if not kin(child, parent):
        return False
    label, colon, rest = child.text.partition(":")
    if colon and label and rest.replace(":", "") == parent.text.replace(":", ""):
        return True  # `Accepted: …`, `Automatic reply: …`, in any language
    if _NUMBERS.findall(child.text) != _NUMBERS.findall(parent.text):
        return False
    matcher = SequenceMatcher(None, child.text, parent.text, autojunk=False)
    return matcher.quick_ratio() >= _ALIKE and matcher.ratio() >= _ALIKE
