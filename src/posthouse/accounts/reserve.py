"""Daily quotas charged in blocks, so that most requests touch no row.

A process takes a block of the tenant's day from the records and counts it off in memory: the
quota is never overdrawn; at most one block for each process is counted and not used, when it
ends or the day does.
"""

from __future__ import annotations

from posthouse.accounts import limits
from posthouse.clock import DAY, Clock
from posthouse.errors import Limited
from posthouse.storage.records.base import Records

_SHARE = 200
"""A block is this part of the quota, so the bounded waste of a process is half a percent."""
_LARGEST = 10_000
_MOST_TENANTS = 10_000


class Reserve:
    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._left: dict[tuple[str, int], int] = {}

    async def charge(self, tenant_id: str, count: int, quota: int) -> None:
        """:raises Limited: code `quota_exhausted`; nothing was counted.
        :raises StorageUnavailable: a block is needed and the records are away.
        """
        now = self._clock()
        place = (tenant_id, now // DAY)
        left = self._left.get(place, 0)
        if left < count:
            await self._take(place, count - left, quota, now)
        self._left[place] = self._left.get(place, 0) - count

    async def _take(self, place: tuple[str, int], missing: int, quota: int, now: int) -> None:
        """A block; near the quota's end just what is missing."""
        block = max(missing, min(quota // _SHARE, _LARGEST))
        try:
            await self._charge(place[0], block, quota, now)
        except Limited:
            if block == missing:
                raise
            block = missing
            await self._charge(place[0], block, quota, now)
        if len(self._left) >= _MOST_TENANTS:
            self._left = {key: n for key, n in self._left.items() if key[1] == place[1] and n}
        self._left[place] = self._left.get(place, 0) + block

    async def _charge(self, tenant_id: str, count: int, quota: int, now: int) -> None:
        await self._records.write(lambda tx: limits.charge(tx, tenant_id, count, quota, now=now))
