"""Which processes there are, and how each of their stages fares.

Each process keeps one row, which it renews every two seconds, and which counts for ten: by the
database's clock, since the processes' own may differ. What a stage holds and when it last
finished something is looked at twice a second: a stage that holds jobs and finishes none for
longer than its patience is stuck, one that holds none is idle.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgspec
import structlog

from posthouse import ids
from posthouse.api.ports import Health, RoleHealth
from posthouse.clock import SECOND, Clock
from posthouse.errors import Unavailable
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.server_clock import MOMENT

log = structlog.get_logger("presence")

EVERY = 2.0
EXPIRY = 10.0
"""Seconds after which a row that was not renewed counts no more."""
_FORGOTTEN = 3600.0
_LOOK_EVERY = 0.5
LATE = 5.0
"""Seconds by which the loop may be late before the process is called so, for as long as it was late."""

Progress = Callable[[], Mapping[str, tuple[int, int]]]
"""By lane: jobs held now, and finished since the start."""


class LaneState(msgspec.Struct, frozen=True):
    """`progressed_at` (µs): when it last finished a job or held none. `patience`: seconds after which
    one that holds some and finishes none is stuck."""

    held: int
    finished: int
    progressed_at: int
    patience: float = 900.0


class State(msgspec.Struct, frozen=True):
    """What a row says of its process; `late`: seconds that its loop was late at most, in the last ten."""

    stages: dict[str, dict[str, LaneState]] = {}
    late: float = 0.0


@dataclass(frozen=True, slots=True)
class Process:
    """`seen_at` by the database's clock, `started_at` by the process's own; µs."""

    id: str
    host: str
    pid: int
    roles: tuple[str, ...]
    version: str
    started_at: int
    seen_at: int
    state: State


@dataclass(slots=True)
class _Watched:
    role: str
    stage: str
    progress: Progress
    patience: float
    hopeless: float
    seen: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    moved: dict[str, float] = field(default_factory=dict[str, float])

    def look(self, now: float) -> None:
        for lane, (held, finished) in self.progress().items():
            before = self.seen.get(lane)
            if held == 0 or before is None or before[1] != finished or before[0] == 0:
                self.moved[lane] = now
            self.seen[lane] = held, finished

    def waited(self, now: float) -> float:
        """Seconds without a finished job where some are held, of the worst lane."""
        return max((now - self.moved[lane] for lane, (held, _) in self.seen.items() if held), default=0.0)


class Presence:
    def __init__(
        self,
        records: Records,
        clock: Clock,
        *,
        roles: Sequence[str],
        version: str,
        every: float = EVERY,
        expiry: float = EXPIRY,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = ids.new("prc")
        self._records = records
        self._roles = tuple(roles)
        self._row = (self.id, socket.gethostname()[:255], os.getpid(), ",".join(roles), version, clock())
        self._clock = clock
        self._every, self._expiry = every, expiry
        self._monotonic = monotonic
        self._watched: list[_Watched] = []
        self._late: tuple[float, float] = (0.0, 0.0)
        self._others: list[Process] = []

    def watch(self, role: str, stage: str, progress: Progress, *, patience: float, hopeless: float) -> None:
        """
        :param patience: seconds without a finished job after which the stage is stuck;
            `hopeless`: after which only a new process helps.
        """
        self._watched.append(_Watched(role, stage, progress, patience, hopeless))

    def count(self, *roles: str) -> int:
        """Processes with one of these roles when the records were last asked; 0: not known."""
        return sum(bool(set(one.roles).intersection(roles)) for one in self._others)

    def health(self) -> Health:
        """As last looked at; call it from the loop."""
        now = self._monotonic()
        roles = {role: RoleHealth("ok") for role in self._roles}
        alive = True
        for one in self._watched:
            held = sum(jobs for jobs, _ in one.seen.values())
            waited = one.waited(now)
            stuck = waited > one.patience
            alive = alive and waited <= one.hopeless
            before = roles.get(one.role, RoleHealth("ok"))
            status = "stuck" if stuck or before.status == "stuck" else "idle" if not before.held + held else "working"
            roles[one.role] = RoleHealth(status, before.held + held, max(before.waited, waited))
        late = self.late()
        return Health(alive and late <= LATE, late, roles)

    def late(self) -> float:
        """Seconds that the loop was late at most within the last ten."""
        worst, until = self._late
        return worst if self._monotonic() < until else 0.0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Shows this process while it is open. Records that are away are tried again."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._look()), loop.create_task(self._keep_writing())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._records.write(self._remove, durable=False)

    def look(self, lateness: float = 0.0) -> None:
        now = self._monotonic()
        if lateness >= self.late():
            self._late = lateness, now + 10.0
        for one in self._watched:
            one.look(now)

    async def beat(self) -> None:
        """:raises StorageUnavailable:"""
        sql = _UPSERT.replace("NOW", MOMENT[self._records.capabilities.engine])
        state = msgspec.json.encode(self._state()).decode()

        async def work(tx: Tx) -> None:
            await tx.run(sql, *self._row, state)

        await self._records.write(work, durable=False)
        self._others = await living(self._records, self._expiry)

    async def _look(self) -> None:
        while True:
            due = self._monotonic() + _LOOK_EVERY
            await asyncio.sleep(_LOOK_EVERY)
            self.look(max(0.0, self._monotonic() - due))

    async def _keep_writing(self) -> None:
        sweep = 0
        while True:
            try:
                await self.beat()
                if sweep % 100 == 0:
                    await self._sweep()
                sweep += 1
            except Unavailable as error:
                log.warning("presence_not_written", detail=error.detail)
            await asyncio.sleep(self._every)

    def _state(self) -> State:
        """Times on the wall clock of this process."""
        now, wall = self._monotonic(), self._clock()
        stages: dict[str, dict[str, LaneState]] = {}
        for one in self._watched:
            stages[one.stage] = {
                lane: LaneState(held, finished, wall - int((now - one.moved[lane]) * SECOND), one.patience)
                for lane, (held, finished) in one.seen.items()
            }
        return State(stages, round(self.late(), 3))

    async def _remove(self, tx: Tx) -> None:
        await tx.run("DELETE FROM process WHERE id = $1", self.id)

    async def _sweep(self) -> None:
        moment = MOMENT[self._records.capabilities.engine]
        sql = f"DELETE FROM process WHERE seen_at < {moment} - $1"  # noqa: S608 - two constants

        async def work(tx: Tx) -> None:
            await tx.run(sql, int(_FORGOTTEN * SECOND))

        await self._records.write(work, durable=False)


async def living(records: Records, expiry: float = EXPIRY) -> list[Process]:
    """The processes that showed themselves within `expiry` seconds, the eldest first.

    :raises StorageUnavailable:
    """
    sql = f"{_SELECT} WHERE seen_at > {MOMENT[records.capabilities.engine]} - $1 ORDER BY id"

    async def work(tx: Tx) -> list[Process]:
        return [
            Process(row[0], row[1], row[2], tuple(row[3].split(",")), row[4], row[5], row[6], _read(row[7]))
            for row in await tx.rows(sql, int(expiry * SECOND))
        ]

    return await records.read(work)


def _read(text: str) -> State:
    """Of another release it may be another shape: then it says nothing."""
    try:
        return msgspec.json.decode(text, type=State)
    except msgspec.MsgspecError:
        return State()


_SELECT = "SELECT id, host, pid, roles, version, started_at, seen_at, state FROM process"
_UPSERT = """
INSERT INTO process (id, host, pid, roles, version, started_at, seen_at, state)
VALUES ($1, $2, $3, $4, $5, $6, NOW, $7)
ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, state = excluded.state"""
