"""What this process shares with others: the bus, limits, caches; none of it is the truth."""

from __future__ import annotations

from contextlib import AsyncExitStack

from posthouse.accounts import shared_rate
from posthouse.accounts.limits import Limiter, RateLimiter
from posthouse.accounts.shared_rate import SharedRateLimiter
from posthouse.app.presence import Presence
from posthouse.clock import Clock
from posthouse.config import Settings
from posthouse.egress import slots
from posthouse.egress.slots import Slots
from posthouse.mailbox.modseqs import modseqs
from posthouse.net.dns import Shelf
from posthouse.storage.bus.cache import Cache, Item
from posthouse.storage.bus.factory import Shared, open_shared
from posthouse.storage.records.base import Records

_SHARERS = {shared_rate.GROUP: ("api",), slots.GROUP: ("render", "send")}
"""By group of limits the roles whose processes share them."""


async def shared(settings: Settings, records: Records, presence: Presence, stack: AsyncExitStack) -> Shared:
    def peers(group: str) -> int:
        return presence.count(*_SHARERS.get(group, ()))

    roles = set(settings.roles)
    opened = await open_shared(
        str(settings.bus.url),
        states=modseqs(records),
        groups=[group for group, theirs in _SHARERS.items() if roles.intersection(theirs)],
        peers=peers,
    )
    stack.push_async_callback(opened.close)
    return opened


def limiter(given: Shared, clock: Clock) -> Limiter:
    return SharedRateLimiter(given.limits, clock) if given.across else RateLimiter(clock)


def connection_slots(given: Shared) -> Slots | None:
    return Slots(given.limits) if given.across else None


def dns_shelf(given: Shared) -> Shelf | None:
    return _DnsShelf(given.cache) if given.across else None


class _DnsShelf(Shelf):
    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def get(self, key: str) -> tuple[bytes, float] | None:
        (kept,) = await self._cache.get_many(["dns:" + key])
        return None if kept is None else (kept.value, kept.seconds)

    def put(self, key: str, value: bytes, seconds: float) -> None:
        self._cache.set_many([Item("dns:" + key, value, seconds)])
