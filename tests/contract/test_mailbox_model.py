"""Any sequence of what people and senders do, beside a model of dictionaries: lists, counts,
threads and changes agree, and every invariant holds at the end."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from posthouse.errors import Conflict
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.records.factory import open_records
from tests.conftest import ManualClock
from tests.mailboxes import House, findings, letter

PICK = st.integers(0, 10**6)
BOXES = ["inbox", "archive", "trash"]


class Machine(RuleBasedStateMachine):
    """The model: email → (mailboxes, keywords), and what changed since the start was last read."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="model-"))
        shutil.copy(self.template, self.directory / "p.db")
        self.loop = asyncio.new_event_loop()
        self.emails: dict[int, tuple[set[str], set[str]]] = {}
        self.number = 0
        self.folders: list[str] = []
        self.run(self.open())

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def open(self) -> None:
        self.records = await open_records(f"sqlite:///{self.directory / 'p.db'}")
        self.blobs = await open_blobs(f"file://{self.directory / 'blobs'}")
        self.house = House(self.records, self.blobs, ManualClock())
        await self.house.account()
        self.state = await self.house.reading.modseq(1)

    def teardown(self) -> None:
        try:
            assert self.run(findings(self.records, self.blobs)) == []
            self.run(self.told())
        finally:
            self.run(self.records.close())
            self.loop.close()
            shutil.rmtree(self.directory)

    async def box(self, name: str) -> int:
        return (await self.house.boxes())[name].id

    def some(self, pick: int, most: int = 3) -> list[int]:
        every = sorted(self.emails)
        return sorted({every[(pick >> (8 * n)) % len(every)] for n in range(1 + pick % most)})

    @rule(
        answers=st.one_of(st.none(), st.integers(1, 12)),
        box=st.sampled_from(BOXES),
        old=st.booleans(),
        two=st.booleans(),
    )
    def append(self, answers: int | None, box: str, old: bool, two: bool) -> None:
        raws = []
        for _ in range(1 + two):
            self.number += 1
            subject = f"S{answers if answers is not None else self.number}"
            raws.append(
                letter(
                    self.number,
                    subject=subject if answers is None else f"Re: {subject}",
                    answers=answers,
                    year=2020 if old else 2026,
                )
            )
        for one in self.run(self.house.append(*raws, mailboxes=(box,))):
            self.emails[one.email] = ({box}, set())

    @precondition(lambda self: self.emails)
    @rule(pick=PICK, word=st.sampled_from(["$seen", "$draft", "$flagged"]), add=st.booleans())
    def mark(self, pick: int, word: str, add: bool) -> None:
        emails = self.some(pick)
        self.run(self.house.mailboxes.set_keywords(1, emails, **{"add" if add else "remove": [word]}))
        for email in emails:
            (set.add if add else set.discard)(self.emails[email][1], word)

    @precondition(lambda self: self.emails)
    @rule(pick=PICK, box=st.sampled_from(BOXES), out=st.sampled_from(BOXES))
    def label(self, pick: int, box: str, out: str) -> None:
        emails = self.some(pick)
        number = self.run(self.box(out))
        self.run(self.house.mailboxes.set_mailboxes(1, emails, add=[box], remove=[number]))
        for email in emails:
            boxes = self.emails[email][0]
            boxes.discard(out)
            boxes.add(box)

    @precondition(lambda self: self.emails)
    @rule(pick=PICK)
    def destroy(self, pick: int) -> None:
        emails = self.some(pick)
        self.run(self.house.mailboxes.destroy(1, emails))
        for email in emails:
            del self.emails[email]

    @precondition(lambda self: self.emails)
    @rule(pick=PICK)
    def split(self, pick: int) -> None:
        emails = self.some(pick)
        thread = self.run(self.house.mailboxes.split(1, emails))
        assert self.run(self.house.reading.threads(1, [thread]))[0].members == tuple(emails)

    @precondition(lambda self: self.emails)
    @rule(pick=PICK)
    def merge(self, pick: int) -> None:
        threads = sorted({email.thread for email in self.run(self.house.reading.emails(1, self.some(pick)))})
        assert self.run(self.house.mailboxes.merge(1, threads)) == threads[0]

    @rule(name=st.sampled_from(["Work", "Home"]))
    def folder(self, name: str) -> None:
        try:
            self.run(self.house.mailboxes.create_mailbox(1, name))
        except Conflict:
            assert name in self.folders
            self.run(self.house.mailboxes.remove_mailbox(1, self.run(self.box(name)), emails="trash"))
            self.folders.remove(name)
        else:
            self.folders.append(name)

    @invariant()
    def lists_and_counts_agree(self) -> None:
        boxes = self.run(self.house.boxes())
        threads = self.run(self.threads())
        unread = {n for n, (_, words) in self.emails.items() if not words & {"$seen", "$draft"}}
        open_threads = {threads[n] for n in unread}
        for name in BOXES:
            here = {n for n, (places, _) in self.emails.items() if name in places}
            box = boxes[name]
            assert (box.total, box.unread) == (len(here), len(here & unread))
            within = {threads[n] for n in here}
            assert (box.threads, box.unread_threads) == (len(within), len(within & open_threads))
            page = self.run(self.house.reading.page(1, box.id, limit=500))
            assert [line.id for line in page.lines] == sorted(here, reverse=True)
            newest = {thread: max(n for n in here if threads[n] == thread) for thread in within}
            page = self.run(self.house.reading.page(1, box.id, limit=500, threads=True))
            assert [line.id for line in page.lines] == sorted(newest.values(), reverse=True)

    async def threads(self) -> dict[int, int]:
        return dict(await self.house.query("SELECT id, thread FROM email"))

    async def told(self) -> None:
        """A client that began with nothing and read only the changes has what is there."""
        told: dict[str, set[int]] = defaultdict(set)
        at = 0
        while True:
            changes = await self.house.reading.changes(1, at, limit=40)
            for change in changes.changes:
                (set.discard if change.op == "destroyed" else set.add)(told[change.kind], change.id)
            at = changes.until
            if not changes.more:
                break
        assert told["email"] == set(self.emails)
        assert told["thread"] == set((await self.threads()).values())
        assert told["mailbox"] == {box.id for box in (await self.house.boxes()).values()}


def test_any_sequence_agrees_with_the_model(sqlite_template: Path) -> None:
    Machine.template = sqlite_template
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
