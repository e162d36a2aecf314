"""Limits that processes share, in Redis; while it is away each process has a part of its own.

Each process shows every two seconds in the sorted set of each group that it shares limits with.
The number last seen there divides the limits while Redis is away: at least one token a second,
at least one slot. What a bucket held when it was last asked for is remembered, so that neither
a fall-back nor a wiped Redis gives a full bucket to one that was used up; what was given out
meanwhile is taken off when Redis is back.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from prometheus_client import Counter

from posthouse.storage.bus.limits import Ask, Grant, Hold, Peers, SharedLimits
from posthouse.storage.bus.local_limits import LocalLimits
from posthouse.storage.bus.redis_link import Away, Link
from posthouse.storage.bus.redis_scripts import ALIVE, GONE, HOLD, TAKE

FALLBACKS = Counter("posthouse_limits_fallback_total", "Limits answered by a local share, by verb.", ["verb"])

ALIVE_EVERY = 2.0
ALIVE_FOR = 10.0
_MOST_LEVELS = 10_000
_AT_ONCE = 500


class RedisLimits(SharedLimits):
    def __init__(
        self,
        link: Link,
        groups: Collection[str],
        *,
        peers: Peers = lambda _: 0,
        alive_every: float = ALIVE_EVERY,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """:param groups: those that this process takes part in."""
        self.name = os.urandom(6).hex()
        self._link = link
        self._groups = sorted(groups)
        self._seen = dict.fromkeys(self._groups, 1)
        self._peers = peers
        self._alive_every = alive_every
        self._monotonic = monotonic
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._local = LocalLimits(monotonic)
        self._owed: dict[str, tuple[int, Ask]] = {}
        self._held: dict[str, int] = {}
        self._beating: asyncio.Task[None] | None = None
        self._repaying: asyncio.Task[None] | None = None
        link.on_return.append(self._returned)

    async def open(self) -> None:
        await self._beat()
        self._beating = asyncio.get_running_loop().create_task(self._keep_beating())

    def sharers(self, key: str) -> int:
        """How many processes share the limits of the key's group, as far as is known."""
        group = key.partition(":")[0]
        return max(1, self._seen.get(group, 1), self._peers(group))

    async def take(self, asks: Sequence[Ask]) -> list[Grant]:
        grants: list[Grant] = []
        for at in range(0, len(asks), _AT_ONCE):
            some = asks[at : at + _AT_ONCE]
            try:
                grants += await self._take(some)
            except Away:
                FALLBACKS.labels("take").inc(len(some))
                grants += [self._share(ask) for ask in some]
        return grants

    async def hold(self, holds: Sequence[Hold], ttl: float) -> list[int]:
        granted: list[int] = []
        for at in range(0, len(holds), _AT_ONCE):
            some = holds[at : at + _AT_ONCE]
            try:
                granted += await self._hold(some, ttl)
            except Away:
                FALLBACKS.labels("hold").inc(len(some))
                granted += [min(one.wanted, self._slots(one)) for one in some]
        return granted

    async def close(self) -> None:
        tasks = [task for task in (self._beating, self._repaying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Away):
            if self._groups:
                await self._link.run(GONE, self._alive_keys(), [self.name])
            for at in range(0, len(self._held), _AT_ONCE):
                back = [Hold(key, 0, 0, most) for key, most in list(self._held.items())[at : at + _AT_ONCE]]
                await self._hold(back, 1.0)

    async def _take(self, asks: Sequence[Ask]) -> list[Grant]:
        now = self._monotonic()
        arguments: list[str | bytes | int | float] = []
        owed = [self._owed.pop(ask.key, (0, ask))[0] for ask in asks]
        for ask, spent in zip(asks, owed, strict=True):
            start = self._level(ask, now)
            level = ask.burst if start is None else start
            arguments += [ask.least, ask.most, ask.rate, ask.burst, level, spent]
        keys = [f"{self._link.namespace}:bucket:{ask.key}" for ask in asks]
        try:
            answer = await self._link.run(TAKE, keys, arguments)
        except Away:
            for ask, spent in zip(asks, owed, strict=True):
                self._owe(ask, spent)
            raise
        grants = [Grant(int(answer[n]), float(answer[n + 1]), float(answer[n + 2])) for n in range(0, len(answer), 3)]
        for ask, grant in zip(asks, grants, strict=True):
            self._levels[ask.key] = grant.level, now
            self._levels.move_to_end(ask.key)
        while len(self._levels) > _MOST_LEVELS:
            self._levels.popitem(last=False)
        return grants

    def _level(self, ask: Ask, now: float) -> float | None:
        """What the shared bucket should hold by now, as far as this process knows."""
        known = self._levels.get(ask.key)
        return None if known is None else min(float(ask.burst), known[0] + (now - known[1]) * ask.rate)

    def _share(self, ask: Ask) -> Grant:
        parts = self.sharers(ask.key)
        burst = max(1, ask.burst // parts)
        rate = ask.rate / parts
        level = self._level(ask, self._monotonic())
        own = Ask(ask.key, ask.least, ask.most, rate, burst)
        grant = self._local.take_one(own, None if level is None else level / parts)
        self._owe(ask, grant.taken)
        return grant

    def _owe(self, ask: Ask, count: int) -> None:
        if count and len(self._owed) < _MOST_LEVELS:
            self._owed[ask.key] = self._owed.get(ask.key, (0, ask))[0] + count, ask

    def _returned(self) -> None:
        self._local.forget()
        self._repaying = asyncio.get_running_loop().create_task(self._repay())

    async def _repay(self) -> None:
        """What was given out meanwhile is taken off before more is."""
        owed = [Ask(ask.key, 0, 0, ask.rate, ask.burst) for _, ask in self._owed.values()]
        with suppress(Away):
            for at in range(0, len(owed), _AT_ONCE):
                await self._take(owed[at : at + _AT_ONCE])

    def _slots(self, hold: Hold) -> int:
        return max(1, hold.most // self.sharers(hold.key))

    async def _hold(self, holds: Sequence[Hold], ttl: float) -> list[int]:
        arguments: list[str | bytes | int | float] = [self.name, math.ceil(ttl * 1000)]
        for one in holds:
            arguments += [one.wanted, one.in_use, one.most, self._slots(one)]
        prefix = self._link.namespace
        keys = [f"{prefix}:slots-since", *(f"{prefix}:slots:{one.key}" for one in holds)]
        granted = [int(each) for each in await self._link.run(HOLD, keys, arguments)]
        for one in holds:
            if one.wanted or one.in_use:
                self._held[one.key] = one.most
            else:
                self._held.pop(one.key, None)
        return granted

    def _alive_keys(self) -> list[str]:
        return [f"{self._link.namespace}:alive:{group}" for group in self._groups]

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._alive_every)
            await self._beat()

    async def _beat(self) -> None:
        with suppress(Away):
            if not self._groups:
                await self._link.call(("PING",))  # so that its loss is noticed
                return
            counts = await self._link.run(ALIVE, self._alive_keys(), [self.name, int(ALIVE_FOR * 1000)])
            self._seen = dict(zip(self._groups, map(int, counts), strict=True))
