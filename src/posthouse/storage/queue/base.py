"""The queue port: jobs by stage and lane, leased in batches, fair between tenants.

A lease is a due time in the future: a claim moves `due_at` to the lease's end, so an
expired lease needs no reaper, and `done`, `later` and `bury` name the job with the lease's
exact end, so a worker that lost its lease (paused, partitioned) changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import msgspec

from posthouse.storage.records.base import Tx


class Lane(IntEnum):
    """Apart from the API to the last connection; a lower number is never held up by a higher."""

    CRITICAL = 0
    TRANSACTIONAL = 1
    BULK = 2


class Job(msgspec.Struct, frozen=True, gc=False):
    """`due_at` is when it may run (µs), or, once claimed, when the lease ends."""

    stage: str
    lane: int
    tenant: str
    due_at: int
    id: str
    attempts: int = 0
    """Claims since it was last put back: a job that kills its workers shows here."""
    payload: str | None = None
    key: str | None = None
    """Jobs of one key go to one worker process at a time, where a backend spreads them by key
    (None: by id)."""


@dataclass(frozen=True, slots=True)
class Buried:
    stage: str
    lane: int
    tenant: str
    id: str
    attempts: int
    payload: str | None
    buried_at: int
    reason: str


@dataclass(frozen=True, slots=True)
class Depth:
    """`ready` jobs are due or leased; `delayed` wait for a later time; `oldest_due_at` is
    about the earliest due time (None when empty, or not known yet)."""

    stage: str
    lane: int
    ready: int
    delayed: int
    buried: int
    oldest_due_at: int | None


class Queue(Protocol):
    """`tx`: when the queue lies in records, verbs that take a `tx` join that transaction, so
    that a job and the rows it is about are one durable step. Passed as None, each verb is a
    transaction of its own."""

    async def put(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> None: ...

    async def claim(self, stage: str, lane: int, n: int, *, lease: float) -> list[Job]:
        """Up to `n` due jobs, tenants in turn, the longest due first as far as the backend sees
        them together. `lease` in seconds. Not fsynced: a lost claim only comes back early."""
        ...

    async def extend(self, jobs: Sequence[Job], *, lease: float) -> list[Job]:
        """The jobs still held, with their new lease; those lost are left out."""
        ...

    async def done(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> int:
        """Forget these; how many were still held."""
        ...

    async def withdraw(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> int:
        """Forget these if nobody holds them (`due_at` as they wait); how many that was."""
        ...

    async def later(self, jobs: Sequence[tuple[Job, int]], *, tx: Tx | None = None) -> int:
        """Put each back, due at the given time (µs); its claims count anew."""
        ...

    async def bury(self, jobs: Sequence[tuple[Job, str]], *, tx: Tx | None = None) -> int:
        """Set aside with a reason; `put_back` brings them again."""
        ...

    async def set_aside(self, ids: Sequence[str], reason: str) -> int:
        """Bury the jobs of these ids, at any stage, that nobody holds; how many. For people: it
        reads the whole queue."""
        ...

    async def put_back(self, ids: Sequence[str]) -> int:
        """Buried jobs (all of them for an empty sequence) due now."""
        ...

    async def buried(self, *, limit: int = 100) -> list[Buried]: ...

    async def depths(self) -> list[Depth]: ...

    async def free_leases(self) -> int:
        """Every lease ends now: only for an exclusive owner at its start."""
        ...

    async def undelay(self, stages: Sequence[str], after: float) -> int:
        """The jobs of these stages that are due only in more than `after` seconds are due now; how
        many. For stages that never delay for so long: their clock was set back since."""
        ...

    async def ready(self) -> None:
        """:raises StorageUnavailable: with the reason, when a put would fail now."""
        ...

    async def close(self) -> None:
        """What is held is up to its leases; whoever can, hands it back before."""
        ...
