"""One site: its ready parcels by lane, its connections, its health.

Each connection works for a lane, has one message in flight, and starts the next only when
the outcome of the last is durable: at a crash, what may be sent twice is the one transaction
in flight on each connection. A connection without work in its lane goes over to a lane that
has some, within that lane's ceiling.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from posthouse.clock import SECOND, Clock
from posthouse.egress.ceilings import LANE_CEILING, lane_ceilings, shared_ceilings
from posthouse.egress.model import Attempt, Destination, Parcel, Target
from posthouse.egress.room import Room
from posthouse.egress.slots import Lease, Slots
from posthouse.net.smtp import Connection
from posthouse.smtp.outcome import Cause, Delivery, Envelope, Failure, SessionFailed, Stage
from posthouse.smtp.reply import Reply
from posthouse.storage.queue.base import Lane

log = structlog.get_logger("egress")

MESSAGES_PER_CONNECTION = 1000
SUSPEND_FIRST = 30.0
SUSPEND_LONGEST = 1800.0
"""Seconds: how long a site that cannot be reached is left alone, doubling each time."""

_OPENING_PAUSE = 5 * SECOND
"""µs without a new connection after one was refused while others live: the peer's own limit."""
Open = Callable[[Destination, Target], Awaitable[Connection]]
Addresses = Callable[[Destination, str], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Limits:
    connections: int
    idle: float
    """Seconds that a connection is kept without work."""


class Site:
    """`put` takes parcels; each is settled exactly once, here or (after `close`) never, which
    is safe: its job is still leased. Runs on one event loop."""

    def __init__(
        self,
        destination: Destination,
        limits: Limits,
        *,
        open_connection: Open,
        addresses: Addresses,
        clock: Clock,
        slots: Slots | None = None,
    ) -> None:
        """:param slots: shared with other processes; None: the whole limit is this one's."""
        self.destination = destination
        self.suspended_until = 0
        self.reason = ""
        self._limits = limits
        self._ceilings = lane_ceilings(limits.connections)
        self._lease: Lease | None = None
        if slots is not None:
            self._lease = slots.lease(destination.site, self._ceilings[0], self._needs, self._regranted)
            self._ceilings = shared_ceilings(0)
        self._open = open_connection
        self._addresses = addresses
        self._clock = clock
        self._ready: tuple[deque[Parcel], ...] = tuple(deque() for _ in Lane)
        self._idle: tuple[deque[_Idle], ...] = tuple(deque() for _ in Lane)
        self._tasks: tuple[set[asyncio.Task[None]], ...] = tuple(set() for _ in Lane)
        self._opening = [0 for _ in Lane]
        self._failures = 0
        self._no_opening_before = 0
        self._closing = False
        self._room = Room(clock)
        self.used_at = clock()

    # What the sender asks and does.

    @property
    def connections(self) -> int:
        return sum(map(len, self._tasks))

    def room(self, lane: int) -> int:
        """How many parcels more are worth holding: what the site sends in a few seconds."""
        return self._room.left(len(self._ready[lane]))

    def wait_for_room(self, lane: int) -> int:
        """µs after which there should be room again."""
        return self._room.wait(lane)

    def put(self, parcel: Parcel) -> None:
        lane = parcel.lane
        parcel.ready_at = self.used_at = self._clock()
        self._ready[lane].append(parcel)
        if self.suspended_until > self.used_at:
            self._keep(asyncio.get_running_loop().create_task(self._give_back()), lane)
            return
        if self._wake_one(lane):
            return
        if len(self._ready[lane]) > self._opening[lane] and self._may_open(lane):
            self._spawn(lane)

    def is_idle_since(self, moment: int) -> bool:
        return self.used_at < moment and not any(self._ready) and not self.connections

    async def close(self, timeout: float) -> None:
        """Finish what is in flight; what only waits stays for its job's next claim."""
        self._closing = True
        for ready, idle in zip(self._ready, self._idle, strict=True):
            ready.clear()
            for one in idle:
                one.wake(None)
        tasks = [task for lane in self._tasks for task in lane]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)
        self.forget()

    def forget(self) -> None:
        """It is not used any more; what it leases is for others."""
        if self._lease is not None:
            self._lease.end()

    # Connections.

    def _needs(self) -> tuple[int, int]:
        """Connections that there is work for, with the room that the lanes above keep; and those that are."""
        has = self.connections
        waiting = sum(map(len, self._ready)) if self.suspended_until <= self._clock() else 0
        if not waiting:
            return has, has
        top = next(lane for lane in Lane if self._ready[lane])
        return math.ceil((has + waiting) / LANE_CEILING[top]), has

    def _regranted(self) -> None:
        assert self._lease is not None
        self._ceilings = shared_ceilings(self._lease.granted)
        surplus = self.connections - self._lease.granted
        for idle in reversed(self._idle):
            while idle and surplus > 0:
                surplus -= idle.popleft().wake(None)
        for lane in Lane:
            while len(self._ready[lane]) > self._opening[lane] and self._may_open(lane):
                self._spawn(lane)

    def _has_too_many(self) -> bool:
        return self._lease is not None and self.connections > self._lease.granted

    def _wake_one(self, lane: int) -> bool:
        """Whether an idle connection looks for the lane's work now: its own, or one of another
        lane that goes over. The newest first, so that those too many grow old and close."""
        for owner in (lane, *(other for other in Lane if other != lane)):
            idle = self._idle[owner]
            while idle and (owner == lane or self._may_go_over(owner, lane)):
                one = idle.pop()
                if one.wake(lane):
                    self._count_in(one.task, owner, lane)
                    return True
        return False

    def _may_go_over(self, owner: int, lane: int) -> bool:
        """Whether a connection of `owner` may work for `lane`: the ceilings hold with it there."""
        counts = [len(tasks) for tasks in self._tasks]
        counts[owner] -= 1
        counts[lane] += 1
        return all(sum(counts[upper:]) <= self._ceilings[upper] for upper in range(lane + 1))

    def _choose(self, lane: int) -> int | None:
        """A lane above that the peer gives no connection; its own; then the most urgent other
        that it may go over to."""
        for above in range(lane):
            if self._ready[above] and not self._tasks[above]:
                return above
        if self._ready[lane]:
            return lane
        return next((other for other in Lane if self._ready[other] and self._may_go_over(lane, other)), None)

    def _count_in(self, task: asyncio.Task[None], owner: int, lane: int) -> None:
        self._tasks[owner].discard(task)
        self._tasks[lane].add(task)

    def _may_open(self, lane: int) -> bool:
        """A lane may open while it and every lane below it stay under each ceiling above."""
        together = 0
        for upper in reversed(Lane):
            together += len(self._tasks[upper])
            if upper <= lane and together >= self._ceilings[upper]:
                if self._lease is not None:
                    self._lease.ask_more()
                return False
        return not self._closing and self._clock() >= self._no_opening_before

    def _spawn(self, lane: int) -> None:
        self._opening[lane] += 1
        self._keep(asyncio.get_running_loop().create_task(self._serve(lane)), lane)

    def _keep(self, task: asyncio.Task[None], lane: int) -> None:
        self._tasks[lane].add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        for tasks in self._tasks:
            tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a connection's task failed", "exception": error, "task": task}
            )
        if self._lease is not None and not self.connections:
            self._lease.ask()
        self._look_after_waiting()

    def _look_after_waiting(self) -> None:
        for lane in Lane:
            if self._ready[lane] and not self._wake_one(lane) and self._may_open(lane):
                self._spawn(lane)

    async def _serve(self, lane: int) -> None:
        """One connection from opening to QUIT."""
        try:
            connection = await self._connect()
        finally:
            self._opening[lane] -= 1
        if connection is None:
            await self._give_back()
            return
        try:
            await self._deliver_all(connection, lane)
        finally:
            await connection.quit()

    async def _deliver_all(self, connection: Connection, lane: int) -> None:
        for before in range(MESSAGES_PER_CONNECTION):
            served = await self._lane_with_work(lane)
            if served is None or not connection.reusable:
                return
            lane = served
            if not self._ready[lane]:
                continue  # another connection was faster
            await self._deliver(connection, self._ready[lane].popleft(), reused=before > 0)
            if not connection.reusable:
                return

    async def _deliver(self, connection: Connection, parcel: Parcel, *, reused: bool) -> None:
        started = self._clock()
        if parcel.deadline <= started:
            self._room.stale()
            await parcel.settle(parcel, Attempt(started, started, cause="too_late"))
            return
        self._room.fresh()
        envelope = Envelope(
            parcel.reverse_path, parcel.recipients, smtputf8=parcel.smtputf8, body_8bit=not parcel.data.isascii()
        )
        delivery = await self._transact(connection, envelope, parcel.data)
        if reused and not parcel.met_closed and _was_closed(delivery):
            parcel.met_closed = True
            self._ready[parcel.lane].appendleft(parcel)
            return
        self._room.settled()
        await parcel.settle(parcel, Attempt(started, self._clock(), delivery=delivery))

    async def _transact(self, connection: Connection, envelope: Envelope, data: bytes) -> Delivery:
        try:
            return await connection.deliver(envelope, data, canonical=True)
        except Exception as error:  # ours, not the peer's: an attempt that failed, or the parcel would wait for ever
            log.exception("delivery_fault", site=self.destination.site, error=type(error).__name__)
            connection.abort()
            reply = Reply(451, "4.3.0", ("The message could not be handed over",))
            failure = Failure(Stage.MAIL, Cause.LOST, reply, detail=type(error).__name__)
            count = len(envelope.recipients)
            return Delivery(
                (reply,) * count, None, Stage.MAIL, connection.peer, ours=frozenset(range(count)), failure=failure
            )

    async def _lane_with_work(self, lane: int) -> int | None:
        """The lane to work for next, in which the connection is counted from now on; None when
        there is nothing for the idle time, or the site closes."""
        task = asyncio.current_task()
        assert task is not None
        if self._has_too_many():
            return None
        found = self._choose(lane)
        if found is not None:
            self._count_in(task, lane, found)
            return found
        if self._closing:
            return None
        idle = _Idle(asyncio.get_running_loop().create_future(), task)
        self._idle[lane].append(idle)
        timer = asyncio.get_running_loop().call_later(self._limits.idle, idle.wake, None)
        try:
            return await idle.woken
        finally:
            timer.cancel()
            if idle in self._idle[lane]:
                self._idle[lane].remove(idle)

    async def _connect(self) -> Connection | None:
        """Hosts in order of preference, each host's addresses in turn; None when all fail.
        A single failure is not the site's while other connections to it live."""
        problems: list[str] = []
        for host, port in self.destination.hosts:
            try:
                addresses = await self._addresses(self.destination, host)
            except Exception as error:  # any resolver failure is this host's
                problems.append(f"{host}: {error}")
                continue
            for ip in addresses:
                try:
                    connection = await self._open(self.destination, Target(host, ip, port))
                except Exception as error:  # also what is wrong on our side, such as a CA file
                    if not isinstance(error, SessionFailed):
                        log.warning("connection_fault", site=self.destination.site, error=repr(error))
                    detail = error.detail if isinstance(error, SessionFailed) else ""
                    problems.append(f"{host} [{ip}]:{port}: {error}" + (f" ({detail})" if detail else ""))
                    continue
                self._failures = 0
                self.suspended_until = 0
                return connection
        if self.connections <= sum(self._opening):
            self._suspend("; ".join(problems[-4:]) or "no host has an address")
        else:
            self._no_opening_before = self._clock() + _OPENING_PAUSE
            asyncio.get_running_loop().call_later(_OPENING_PAUSE / SECOND + 0.01, self._look_after_waiting)
        return None

    def _suspend(self, reason: str) -> None:
        now = self._clock()
        if self.suspended_until > now:
            return
        self._failures += 1
        pause = min(SUSPEND_FIRST * 2 ** (self._failures - 1), SUSPEND_LONGEST)
        self.suspended_until = now + int(pause * random.uniform(0.8, 1.2) * SECOND)  # noqa: S311
        self.reason = reason[:1000]

    async def _give_back(self) -> None:
        """The site is away: every waiting parcel is settled as not attempted, together."""
        if self.suspended_until <= self._clock():
            return
        waiting = [parcel for ready in self._ready for parcel in ready]
        for ready in self._ready:
            ready.clear()
        now = self._clock()
        attempt = Attempt(now, now, cause="site_unreachable", detail=self.reason, site_retry_at=self.suspended_until)
        await asyncio.gather(*(parcel.settle(parcel, attempt) for parcel in waiting))


class _Idle:
    """A connection that waits: `woken` resolves to the lane that has work, or None."""

    __slots__ = ("task", "woken")

    def __init__(self, woken: asyncio.Future[int | None], task: asyncio.Task[None]) -> None:
        self.woken = woken
        self.task = task

    def wake(self, lane: int | None) -> bool:
        """Whether it waited."""
        if self.woken.done():
            return False
        self.woken.set_result(lane)
        return True


def _was_closed(delivery: Delivery) -> bool:
    """The peer closed the connection after its last message and saw nothing of this one."""
    failure = delivery.failure
    lost = failure is not None and failure.local and failure.cause is Cause.LOST
    return lost and delivery.stage is Stage.MAIL and not delivery.unknown
