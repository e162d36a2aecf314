"""Work on the whole store that takes a while: prove it, mend it, index it anew.

One task at a time in a process. It goes on when whoever asked has gone, and what it found is
kept until the next one begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import msgspec
import structlog

from posthouse import errors, ids
from posthouse.clock import Clock
from posthouse.mailbox.check import Check, Finding
from posthouse.mailbox.mend import Mend

log = structlog.get_logger("upkeep")

FINDINGS_AT_MOST = 1000
"""That are kept of one task."""
Kind = Literal["check", "reindex"]
State = Literal["running", "done", "failed"]
Reindex = Callable[[int | None], Awaitable[int]]
"""Queues every email of an account, or of all; how many."""


class Task(msgspec.Struct):
    """`found`: findings in all; `findings`: the first of them. `mended`: sentences about what was
    done. `queued`: emails that are to be indexed anew. `error`: why it failed."""

    id: str
    kind: Kind
    state: State
    started_at: int
    deep: bool = False
    mend: bool = False
    account: int | None = None
    found: int = 0
    findings: list[Finding] = msgspec.field(default_factory=list[Finding])
    mended: list[str] = msgspec.field(default_factory=list[str])
    queued: int = 0
    error: str = ""
    ended_at: int | None = None


class Upkeep:
    def __init__(self, check: Check, mend: Mend, reindex: Reindex, clock: Clock) -> None:
        self._check = check
        self._mend = mend
        self._reindex = reindex
        self._clock = clock
        self._last: Task | None = None
        self._running: asyncio.Task[None] | None = None

    def start(self, kind: Kind, *, deep: bool = False, mend: bool = False, account: int | None = None) -> Task:
        """:param account: only this one. :raises Conflict: code `task_running`."""
        if self._last is not None and self._last.state == "running":
            raise errors.Conflict("Another check or index run is at work", code="task_running", retry_after=5)
        task = Task(ids.new("tsk"), kind, "running", self._clock(), deep, mend, account)
        self._last = task
        self._running = asyncio.get_running_loop().create_task(self._run(task))
        return task

    def get(self, id_: str) -> Task:
        """:raises NotFound: code `task_not_found`: another came after it, or the server began anew."""
        if self._last is None or self._last.id != id_:
            raise errors.NotFound("This task is not known; tasks end with the server", code="task_not_found")
        return self._last

    async def close(self) -> None:
        """Stops what runs; it can be started again."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self, task: Task) -> None:
        try:
            await (self._examine(task) if task.kind == "check" else self._index(task))
            task.state = "done"
        except errors.Error as error:
            log.warning("task_failed", task=task.id, kind=task.kind, code=error.code, detail=error.detail)
            task.state, task.error = "failed", error.public
        except Exception:
            log.exception("task_failed", task=task.id, kind=task.kind)
            task.state, task.error = "failed", "Something failed on our side; the log says what"
        finally:
            task.ended_at = self._clock()

    async def _examine(self, task: Task) -> None:
        if task.mend:
            async for sentence in self._mending(task):
                if len(task.mended) < FINDINGS_AT_MOST:
                    task.mended.append(sentence)
        # After mending, what is left.
        async for finding in self._findings(task):
            task.found += 1
            if len(task.findings) < FINDINGS_AT_MOST:
                task.findings.append(finding)

    def _findings(self, task: Task) -> AsyncIterator[Finding]:
        return self._check.all(deep=task.deep) if task.account is None else self._check.account(task.account)

    async def _mending(self, task: Task) -> AsyncIterator[str]:
        if task.account is None:
            async for sentence in self._mend.all():
                yield sentence
        elif await self._mend.account(task.account):
            yield f"account {task.account}: counted and linked anew"

    async def _index(self, task: Task) -> None:
        task.queued = await self._reindex(task.account)
