"""How well a partition agrees with labels, and the simple rules to compare with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from posthouse.mail.threads import (
    ROWS_OF_A_KEY,
    Batch,
    Candidate,
    Keys,
    Override,
    decode,
    encode,
    rethread,
    thread_keys,
)
from posthouse.mail.threads.subject import read_subject
from tests.corpus.conversations import OWNER, Sample

OWN = frozenset({OWNER.address})


def agreement(found: Sequence[Hashable], labels: Sequence[Hashable]) -> tuple[float, float]:
    """Precision and recall over pairs of mails in one thread."""
    hits = _pairs(Counter(zip(found, labels, strict=True)))
    return hits / max(1, _pairs(Counter(found))), hits / max(1, _pairs(Counter(labels)))


def _pairs(counts: Counter[Hashable]) -> int:
    return sum(n * (n - 1) // 2 for n in counts.values())


class Account:
    """What the store keeps of an account, and what it does with a batch."""

    def __init__(self, overrides: Sequence[Override] = ()) -> None:
        self.emails: dict[str, Candidate] = {}
        self.rows: dict[bytes, list[str]] = {}
        self.overrides = overrides
        self.reviews = 0

    def deliver(self, mails: Sequence[tuple[str, Keys]]) -> None:
        keys = dict.fromkeys(key for _, one in mails for key in one.lookups)
        found = [
            (key, self.emails[email_id])
            for key in keys
            for email_id in self.rows.get(key, [])[-ROWS_OF_A_KEY[chr(key[0])] :]
        ]
        batch = Batch(
            [(key, Candidate(c.email_id, c.thread_id, decode(encode(c.facts)))) for key, c in found], self.overrides
        )
        for email_id, one in mails:
            placement = batch.place(email_id, one)
            thread = placement.thread or "thr_" + email_id
            batch.put(email_id, one, placement, thread)
            self._write(email_id, one, thread, placement.merge)
            if placement.review:
                self._review(batch, set(placement.review), email_id)

    def _write(self, email_id: str, one: Keys, thread: str, ended: Sequence[str]) -> None:
        for other in self.emails.values():
            if other.thread_id in ended:
                other.thread_id = thread
        self.emails[email_id] = Candidate(email_id, thread, one.facts)
        for key in one.index:
            self.rows.setdefault(key, []).append(email_id)

    def _review(self, batch: Batch, threads: set[str], last: str) -> None:
        self.reviews += 1
        groups = rethread([one for one in self.emails.values() if one.thread_id in threads], self.overrides)
        named = [(group.thread or f"thr_{last}_{at}", group.emails) for at, group in enumerate(groups)]
        batch.regroup(named)
        for thread, emails in named:
            for email_id in emails:
                self.emails[email_id].thread_id = thread

    def partition(self) -> dict[str, str]:
        """The first email of each one's thread."""
        first: dict[str, str] = {}
        for email_id, one in self.emails.items():
            first.setdefault(one.thread_id, email_id)
        return {email_id: first[one.thread_id] for email_id, one in self.emails.items()}


def read(mail: Sample) -> Keys:
    return thread_keys(mail.parsed, received_at=mail.received_at, text=mail.text, own=OWN)


def posthouse(mails: Sequence[Sample], batch: int = 20) -> list[str]:
    """The threads that Posthouse puts the mails into, a batch at a time."""
    house = Account()
    numbered = [(f"eml_{number:08d}", read(mail)) for number, mail in enumerate(mails)]
    for at in range(0, len(numbered), batch):
        house.deliver(numbered[at : at + batch])
    return [one.thread_id for one in house.emails.values()]


def ids_only(mails: Sequence[Sample]) -> list[int]:
    return _joined(mails, lambda mail, one: one)


def ids_and_subject(mails: Sequence[Sample]) -> list[int]:
    """RFC 8621 §3."""
    return _joined(mails, lambda mail, one: (one, read_subject(mail.parsed.subject).key))


def subject_only(mails: Sequence[Sample]) -> list[int]:
    return [read_subject(mail.parsed.subject).key for mail in mails]


RULES: dict[str, Callable[[Sequence[Sample]], Sequence[Hashable]]] = {
    "posthouse": posthouse,
    "ids only": ids_only,
    "ids and subject": ids_and_subject,
    "subject only": subject_only,
}


def _joined(mails: Sequence[Sample], key: Callable[[Sample, str], Hashable]) -> list[int]:
    parent = list(range(len(mails)))

    def find(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    seen: dict[Hashable, int] = {}
    for number, mail in enumerate(mails):
        parsed = mail.parsed
        for one in (parsed.message_id, *parsed.references, *parsed.in_reply_to):
            if one:
                parent[find(number)] = find(seen.setdefault(key(mail, one), number))
    return [find(number) for number in range(len(mails))]
