"""`open_shared(url)`: the one place that maps a URL to what processes share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from posthouse.errors import Misconfigured
from posthouse.storage.bus.base import Bus, States
from posthouse.storage.bus.cache import Cache, LocalCache
from posthouse.storage.bus.limits import Peers, SharedLimits
from posthouse.storage.bus.local import LocalBus
from posthouse.storage.bus.local_limits import LocalLimits


async def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Shared:
    bus: Bus
    limits: SharedLimits
    cache: Cache
    across: bool = False
    """Other processes may have part in it."""
    connected: Callable[[], bool] = lambda: True
    """Whether they have now; true where there are none."""
    disconnect: Callable[[], Awaitable[None]] = _nothing

    async def close(self) -> None:
        for part in (self.limits, self.cache, self.bus):
            await part.close()
        await self.disconnect()


async def open_shared(
    url: str,
    *,
    states: States | None = None,
    groups: Collection[str] = (),
    peers: Peers = lambda _: 0,
    poll: float = 2.0,
) -> Shared:
    """A Redis that is away is no reason not to start.

    :param url: `local:`, or `redis://…` or `rediss://…` (`?namespace=NAME` keeps several
        installations apart on one server).
    :param states: as `RedisBus`. :param groups, peers: as `RedisLimits`.
    :param poll: seconds between looks at the records while Redis is away.
    :raises Misconfigured: the URL is wrong.
    """
    if url == "local:":
        return Shared(LocalBus(), LocalLimits(), LocalCache())
    if not url.startswith(("redis://", "rediss://")):
        raise Misconfigured("bus.url: needs local: or redis://HOST:PORT/NUMBER")
    return await _over_redis(url, states, groups, peers, poll)


async def _over_redis(url: str, states: States | None, groups: Collection[str], peers: Peers, poll: float) -> Shared:
    # The client's import takes a third of a second, which most installations need not spend.
    from posthouse.storage.bus.redis import RedisBus  # noqa: PLC0415
    from posthouse.storage.bus.redis_cache import RedisCache  # noqa: PLC0415
    from posthouse.storage.bus.redis_limits import RedisLimits  # noqa: PLC0415
    from posthouse.storage.bus.redis_link import Address, Link  # noqa: PLC0415

    address = Address(url)
    link = Link(address)
    bus = RedisBus(link, address, states=states, poll=poll)
    limits = RedisLimits(link, groups, peers=peers)
    await link.open()
    await bus.open()
    await limits.open()
    return Shared(bus, limits, RedisCache(link), across=True, connected=lambda: bus.connected, disconnect=link.close)
