"""The emails of one account's batch, placed one after the other, each seen by those behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from posthouse.mail.threads.keys import Candidate, Keys
from posthouse.mail.threads.overrides import Override
from posthouse.mail.threads.place import Placement, choose, place


class Batch:
    """One account's candidates, fetched at once for all emails of a batch by their look-ups.

    batch = Batch(rows)                      # (index key, Candidate) as found
    placement = batch.place(email_id, keys)
    batch.put(email_id, keys, placement, placement.thread or new_thread_id)
    """

    __slots__ = ("_by_email", "_by_key", "_overrides")

    def __init__(self, rows: Iterable[tuple[bytes, Candidate]], overrides: Sequence[Override] = ()) -> None:
        self._by_key: dict[bytes, list[Candidate]] = {}
        self._by_email: dict[str, Candidate] = {}
        self._overrides = overrides
        for key, candidate in rows:
            one = self._by_email.setdefault(candidate.email_id, candidate)
            self._by_key.setdefault(key, []).append(one)

    def place(self, email_id: str, keys: Keys) -> Placement:
        """Where the email belongs. Nothing is changed."""
        found = {one.email_id: one for key in keys.lookups for one in self._by_key.get(key, ())}
        email = Candidate(email_id, "", keys.facts)
        return place(email, choose(keys.facts, list(found.values())), self._overrides)

    def put(self, email_id: str, keys: Keys, placement: Placement, thread: str) -> None:
        """Notes where it went, and which threads ended in it."""
        if placement.merge:
            ended = set(placement.merge)
            for one in self._by_email.values():
                if one.thread_id in ended:
                    one.thread_id = thread
        email = Candidate(email_id, thread, keys.facts)
        self._by_email[email_id] = email
        for key in keys.index:
            self._by_key.setdefault(key, []).append(email)

    def regroup(self, threads: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Notes a review's outcome: each thread's id and its emails."""
        for thread, emails in threads:
            for email_id in emails:
                one = self._by_email.get(email_id)
                if one is not None:
                    one.thread_id = thread
