"""The threads of an account, or of a few threads, made anew from what is kept of their emails.

Agrees with placing the emails one by one in any order, and honours what people decided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from posthouse.mail.threads.evidence import linked, moment, target
from posthouse.mail.threads.keys import Candidate, joins_by_subject
from posthouse.mail.threads.overrides import Override

_NEAR = 100
"""Mails of one subject, before and after a reply, among which its parent is sought."""


class Group(msgspec.Struct, frozen=True, gc=False):
    """One thread: its emails in order of time, and its id; None: a new one is needed."""

    thread: str | None
    emails: tuple[str, ...]


def rethread(emails: Iterable[Candidate], overrides: Iterable[Override] = ()) -> tuple[Group, ...]:
    """
    :param emails: all of the threads in question; an empty `thread_id` for one that has none yet.
    :param overrides: all that may name them; names of other emails are ignored.
    :return: every email in exactly one group, groups by their first email. Of several old threads
        the oldest id stays; of one that parts, the group with its first email keeps the id.
    """
    ordered = sorted(emails, key=moment)
    rules = sorted(overrides, key=lambda one: one.seq)
    sets = _Sets(one.email_id for one in ordered)
    sides = _sides(ordered, rules) if rules else {}
    for one, other in [*_proven(ordered), *_suspected(ordered)]:
        if sides.get(one.email_id, 0) == sides.get(other.email_id, 0):
            sets.join(one.email_id, other.email_id)
    _decided(sets, rules)
    return _named(ordered, sets)


class _Sets:
    """Disjoint sets with path halving."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def __contains__(self, name: str) -> bool:
        return name in self._parent

    def find(self, name: str) -> str:
        parent = self._parent
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    def join(self, one: str, other: str) -> None:
        self._parent[self.find(other)] = self.find(one)


def _proven(emails: Sequence[Candidate]) -> Iterable[tuple[Candidate, Candidate]]:
    """Pairs enough to connect all that ids join."""
    topics: dict[tuple[int, int], Candidate] = {}
    named: defaultdict[int, list[Candidate]] = defaultdict(list)
    for one in emails:
        facts = one.facts
        for mark in (facts.message, *facts.refs):
            if mark:
                first = topics.setdefault((facts.subject, mark), one)
                if first is not one:
                    yield first, one
        if facts.message:
            named[facts.message].append(one)
    for one in emails:
        for parent in named.get(one.facts.parent, ()) if one.facts.parent else ():
            if parent.facts.subject != one.facts.subject and linked(parent.facts, one.facts):
                yield parent, one


def _suspected(emails: Sequence[Candidate]) -> Iterable[tuple[Candidate, Candidate]]:
    families: defaultdict[int, list[Candidate]] = defaultdict(list)
    for one in emails:
        if joins_by_subject(one.facts):
            families[one.facts.subject].append(one)
    for family in families.values():
        if len(family) == 1:
            continue
        for at, one in enumerate(family):
            near = family if len(family) <= 2 * _NEAR else family[max(0, at - _NEAR) : at + _NEAR]
            parent = target(one, near)
            if parent is not None:
                yield parent, one


def _sides(emails: Sequence[Candidate], rules: Sequence[Override]) -> dict[str, int]:
    """On which side of the splits an email is: 0, or the split that took it or the mail it answers."""
    sides = {email: rule.seq for rule in rules if rule.kind == "split" for email in rule.emails}
    by_message = {one.facts.message: one for one in reversed(emails) if one.facts.message}
    for one in emails:
        if one.email_id in sides:
            continue
        for mark in (one.facts.parent, *reversed(one.facts.refs)):
            ancestor = by_message.get(mark)
            if ancestor is not None and ancestor is not one and ancestor.facts.subject == one.facts.subject:
                sides[one.email_id] = sides.get(ancestor.email_id, 0)
                break
    return sides


def _decided(sets: _Sets, rules: Sequence[Override]) -> None:
    """Joins what was merged by hand, unless a later split parted it again."""
    parted: dict[str, int] = {}
    for rule in rules:
        if rule.kind == "split":
            parted.update(dict.fromkeys(rule.emails, rule.seq))
    for rule in rules:
        if rule.kind == "split":
            together = [email for email in rule.emails if email in sets and parted[email] == rule.seq]
        else:
            together = [email for email in rule.emails if email in sets and parted.get(email, -1) < rule.seq]
        for one, other in pairwise(together):
            sets.join(one, other)


def _named(emails: Sequence[Candidate], sets: _Sets) -> tuple[Group, ...]:
    members: dict[str, list[Candidate]] = {}
    heads: dict[str, str] = {}
    for one in emails:
        root = sets.find(one.email_id)
        members.setdefault(root, []).append(one)
        if one.thread_id:
            heads.setdefault(one.thread_id, root)
    kept: dict[str, str] = {}
    for thread in sorted(heads):
        kept.setdefault(heads[thread], thread)
    return tuple(Group(kept.get(root), tuple(one.email_id for one in of)) for root, of in members.items())
