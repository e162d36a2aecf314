"""Rows of a claim and of an outcome, and what of an entry becomes a job again."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from posthouse.storage.queue.base import Job
from posthouse.storage.queue.kafka import partitions
from posthouse.storage.queue.kafka.partitions import Locked, Name
from posthouse.storage.queue.kafka.progress import Progress
from posthouse.storage.queue.kafka.window import Copy, Entry, Part, Window
from posthouse.storage.records.base import Row, Tx

_json = msgspec.json.Encoder().encode


async def add_done(tx: Tx, locked: Sequence[Locked], copies: Sequence[Copy]) -> list[Locked]:
    """The rows as they are after it."""
    parts = {copy.part.name: copy.part for copy in copies}
    rows: list[tuple[str, int, int, str, int | None]] = []
    after: list[Locked] = []
    for row in locked:
        name = (row.topic, row.number)
        offsets = [copy.offset for copy in copies if copy.part.name == name]
        if not offsets:
            after.append(row)
            continue
        progress = Progress.decode(row.low, row.done)
        progress.add(offsets)
        rows.append((*name, progress.low, progress.encode(), parts[name].oldest(progress.low)))
        after.append(Locked(*name, progress.low, rows[-1][3]))
    if rows:
        await partitions.mark_done(tx, rows)
    return after


def leased_row(part: Part, taken: Sequence[Entry]) -> tuple[str, int, int, str, bytes]:
    """As the row is to be when these are claimed; the part itself only follows the commit."""
    own = [entry for entry in taken if entry.part is part]
    claimed = max(part.claimed, *(entry.offset + 1 for entry in own))
    again = {entry.offset: entry.claims + 1 for entry in own if entry.claims}
    retries = {offset: n for offset, n in part.retries.items() if offset not in part.progress} | again
    held = array("I", {entry.mark for entry in (*part.holding, *own)})
    return (*part.name, claimed, _json(retries).decode(), held.tobytes())


def leased(window: Window, entry: Entry, known: dict[Name, Progress], end: int) -> Job | None:
    """None: another's, done, or withdrawn."""
    part = entry.part
    if part.name not in known or entry.gone:
        return None
    if entry.offset in part.progress:
        window.finish(entry)
        return None
    entry.claims += 1
    part.claimed = max(part.claimed, entry.offset + 1)
    if entry.claims > 1:
        part.retries[entry.offset] = entry.claims
    window.hold(entry, end)
    return entry.leased()


def key_of(entry: Entry, copy: Copy) -> tuple[str, str, int]:
    return entry.job.id, entry.job.stage, copy.due_at


def put_back(entry: Entry, at: int) -> Job:
    job = entry.job
    return Job(job.stage, job.lane, job.tenant, at, job.id, 0, job.payload, job.key)


def buried_row(entry: Entry, at: int, reason: str) -> Row:
    job = entry.job
    return (
        job.id, job.stage, job.lane, job.tenant, job.attempts + entry.claims, job.payload, job.key, at, reason,
    )  # fmt: skip
