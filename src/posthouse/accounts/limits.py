"""How much a tenant may send: messages a second in memory, messages a day in records.

The bucket may go into debt: a request passes when the bucket holds its cost or is full, so a
batch larger than the burst passes once and then holds up what follows. Here each process has
a bucket of its own; `shared_rate` has one for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from posthouse import errors
from posthouse.accounts.model import Limits
from posthouse.clock import DAY, SECOND, Clock
from posthouse.storage.records.base import Tx

_MOST_TENANTS = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """After a request: `limit` and `remaining` in messages, `reset` seconds until the bucket
    is full again, `window` seconds that a full bucket lasts at the allowed rate."""

    limit: int
    remaining: int
    reset: int
    window: int


class Limiter(Protocol):
    async def take(self, tenant_id: str, limits: Limits, count: int) -> Standing:
        """:raises Limited: code `rate_limited`; nothing was taken."""
        ...

    def standing(self, tenant_id: str, limits: Limits) -> Standing:
        """Without taking anything."""
        ...


class RateLimiter(Limiter):
    """A token bucket for each tenant."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, int]] = {}

    async def take(self, tenant_id: str, limits: Limits, count: int) -> Standing:
        return self.take_now(tenant_id, limits, count)

    def take_now(self, tenant_id: str, limits: Limits, count: int) -> Standing:
        """:raises Limited: code `rate_limited`; nothing was taken."""
        now = self._clock()
        tokens = self._level(tenant_id, limits, now)
        needed = min(count, limits.burst)
        if tokens < needed:
            raise over_rate(limits, (needed - tokens) / limits.rate_per_second)
        tokens -= count
        self._buckets[tenant_id] = tokens, now
        return standing_of(limits, tokens)

    def standing(self, tenant_id: str, limits: Limits) -> Standing:
        return standing_of(limits, self._level(tenant_id, limits, self._clock()))

    def _level(self, tenant_id: str, limits: Limits, now: int) -> float:
        bucket = self._buckets.get(tenant_id)
        if bucket is None:
            if len(self._buckets) >= _MOST_TENANTS:
                self._drop_full(now)
            return float(limits.burst)
        tokens, since = bucket
        return min(float(limits.burst), tokens + max(0, now - since) * limits.rate_per_second / SECOND)

    def _drop_full(self, now: int) -> None:
        """Those idle for an hour are full at any sensible rate; else the oldest half goes."""
        keep = {key: bucket for key, bucket in self._buckets.items() if now - bucket[1] < 3600 * SECOND}
        if len(keep) >= _MOST_TENANTS:
            keep = dict(sorted(keep.items(), key=lambda item: item[1][1])[_MOST_TENANTS // 2 :])
        self._buckets = keep


async def charge(tx: Tx, tenant_id: str, count: int, quota: int, *, now: int) -> int | None:
    """Count `count` messages against the tenant's day (UTC), in the transaction that accepts them.

    :param quota: messages a day; 0: counted, not bounded.
    :returns: what is left of today, None without a quota.
    :raises Limited: code `quota_exhausted`, until midnight UTC; nothing was counted.
    """
    bound = quota or 2**62
    day = now // DAY
    row = None
    if count <= bound:
        row = await tx.row(
            "INSERT INTO usage (tenant_id, day, messages) VALUES ($1, $2, $3)"
            " ON CONFLICT (tenant_id, day) DO UPDATE SET messages = usage.messages + excluded.messages"
            " WHERE usage.messages + excluded.messages <= $4 RETURNING messages",
            tenant_id,
            day,
            count,
            bound,
        )
    if row is None:
        wait = ((day + 1) * DAY - now) / SECOND
        raise errors.Limited(f"Over {quota} messages a day", code="quota_exhausted", retry_after=wait)
    return quota - int(row[0]) if quota else None


async def used(tx: Tx, tenant_id: str, *, now: int) -> int:
    """Messages of the tenant's present day."""
    row = await tx.row("SELECT messages FROM usage WHERE tenant_id = $1 AND day = $2", tenant_id, now // DAY)
    return int(row[0]) if row else 0


def over_rate(limits: Limits, wait: float) -> errors.Limited:
    return errors.Limited(
        f"Over {limits.rate_per_second} messages a second; try again in {wait:.2f} s", retry_after=wait
    )


def standing_of(limits: Limits, tokens: float) -> Standing:
    rate = limits.rate_per_second
    return Standing(
        limit=limits.burst,
        remaining=max(0, int(tokens)),
        reset=math.ceil((limits.burst - tokens) / rate),
        window=math.ceil(limits.burst / rate),
    )
