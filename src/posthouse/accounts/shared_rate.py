"""The rate limit of a tenant over all processes: one bucket for all, taken from in advance.

A process takes what 50 ms of the tenant's rate give beyond what is asked for, so that most
requests need no round trip; what it does not use within a second is lost. Requests that come
while a round trip is under way share the next one.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from posthouse import errors
from posthouse.accounts.limits import Standing, over_rate, standing_of
from posthouse.accounts.model import Limits
from posthouse.clock import SECOND, Clock
from posthouse.storage.bus.limits import Ask, Grant, SharedLimits

AHEAD = 0.05
"""Seconds of the rate that are taken in advance."""
_KEPT = SECOND
_MOST_TENANTS = 10_000
GROUP = "tenant"
"""Who shares these limits: the group of the keys."""


@dataclass(slots=True)
class _Purse:
    """A tenant's tokens in this process. `level` is that of the shared bucket at `told_at` (µs)."""

    limits: Limits
    tokens: int = 0
    until: int = 0
    level: float = 0.0
    told_at: int = 0
    empty_until: int = 0
    """Before this a request of `refused` or more need not be asked for."""
    refused: int = 0
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque[tuple[int, "asyncio.Future[None]"]])


class SharedRateLimiter:
    def __init__(self, buckets: SharedLimits, clock: Clock) -> None:
        self._buckets = buckets
        self._clock = clock
        self._purses: OrderedDict[str, _Purse] = OrderedDict()
        self._asking: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def take(self, tenant_id: str, limits: Limits, count: int) -> Standing:
        """:raises Limited: code `rate_limited`; nothing was taken."""
        purse, now = self._purse(tenant_id, limits), self._clock()
        if not purse.waiting and now < purse.until and purse.tokens >= count:
            purse.tokens -= count
            return self._standing(purse, now)
        if now < purse.empty_until and min(count, limits.burst) >= purse.refused:
            raise over_rate(limits, (purse.empty_until - now) / SECOND)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        purse.waiting.append((count, future))
        self._asking.add(tenant_id)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._fill())
        await future
        return self._standing(purse, self._clock())

    def standing(self, tenant_id: str, limits: Limits) -> Standing:
        """Without taking anything; as far as this process knows."""
        return self._standing(self._purse(tenant_id, limits), self._clock())

    def _purse(self, tenant_id: str, limits: Limits) -> _Purse:
        purse = self._purses.get(tenant_id)
        if purse is None:
            if len(self._purses) >= _MOST_TENANTS:
                self._drop_one()
            purse = self._purses[tenant_id] = _Purse(limits, level=float(limits.burst), told_at=self._clock())
        purse.limits = limits
        return purse

    def _drop_one(self) -> None:
        """The eldest that nobody waits for."""
        for tenant_id, purse in self._purses.items():
            if not purse.waiting:
                del self._purses[tenant_id]
                return

    async def _fill(self) -> None:
        """Until nobody waits; all tenants of a moment in one round trip."""
        while self._asking:
            tenants = [(one, self._purses[one]) for one in self._asking]
            self._asking.clear()
            try:
                grants = await self._buckets.take([_ask(one, purse) for one, purse in tenants])
            except BaseException as error:
                _fail([purse for _, purse in tenants], error)
                raise
            for (tenant_id, purse), grant in zip(tenants, grants, strict=True):
                self._serve(purse, grant)
                if purse.waiting:
                    self._asking.add(tenant_id)

    def _serve(self, purse: _Purse, grant: Grant) -> None:
        """The first in the row, while the tokens last; when there were none, those who ask for as much wait in vain."""
        now = self._clock()
        left = purse.tokens if now < purse.until else 0
        purse.tokens, purse.until = left + grant.taken, now + _KEPT
        purse.level, purse.told_at = grant.level, now
        row = purse.waiting
        while row and row[0][1].done():  # nobody waits for it any more
            row.popleft()
        if not grant.taken and row and row[0][0] > purse.tokens:
            purse.refused = min(row[0][0], purse.limits.burst)
            purse.empty_until = now + int(min(grant.wait, AHEAD) * SECOND)
            _refuse(purse, grant.wait)
        while row and (row[0][1].done() or row[0][0] <= purse.tokens):
            count, future = row.popleft()
            if not future.done():
                purse.tokens -= count
                future.set_result(None)

    def _standing(self, purse: _Purse, now: int) -> Standing:
        limits = purse.limits
        tokens = purse.tokens if now < purse.until else 0
        level = purse.level + max(0, now - purse.told_at) * limits.rate_per_second / SECOND
        return standing_of(limits, min(float(limits.burst), level + tokens))


def _ask(tenant_id: str, purse: _Purse) -> Ask:
    """For the first in the row; for all and for what comes soon, if there is so much."""
    limits = purse.limits
    first = next((count for count, future in purse.waiting if not future.done()), 0)
    total = sum(count for count, _ in purse.waiting)
    ahead = min(math.ceil(limits.rate_per_second * AHEAD), limits.burst)
    return Ask(f"{GROUP}:{tenant_id}", first, total + ahead, float(limits.rate_per_second), limits.burst)


def _refuse(purse: _Purse, wait: float) -> None:
    kept: deque[tuple[int, asyncio.Future[None]]] = deque()
    for count, future in purse.waiting:
        if min(count, purse.limits.burst) < purse.refused:
            kept.append((count, future))
        elif not future.done():
            future.set_exception(over_rate(purse.limits, wait))
    purse.waiting = kept


def _fail(purses: Sequence[_Purse], error: BaseException) -> None:
    """A defect, or the end of the loop: nobody waits for ever."""
    for purse in purses:
        for _, future in purse.waiting:
            if not future.done():
                future.set_exception(errors.Unavailable(detail=f"rate limit: {error!r}"))
        purse.waiting.clear()
