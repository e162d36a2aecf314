"""The sites that mail is going to now. A site without work and connections is forgotten."""

from __future__ import annotations

import asyncio

from posthouse.clock import SECOND, Clock
from posthouse.egress.model import Destination
from posthouse.egress.site import Addresses, Limits, Open, Site
from posthouse.egress.slots import Slots

_FORGET_AFTER = 600 * SECOND
_MOST = 50_000


class Sites:
    def __init__(
        self,
        *,
        open_connection: Open,
        addresses: Addresses,
        idle: float,
        clock: Clock,
        slots: Slots | None = None,
    ) -> None:
        """
        :param idle: seconds that a connection is kept without work.
        :param slots: connections to a site that are shared with other processes.
        """
        self._slots = slots
        self._open = open_connection
        self._addresses = addresses
        self._idle = idle
        self._clock = clock
        self._sites: dict[str, Site] = {}

    def of(self, destination: Destination) -> Site:
        site = self._sites.get(destination.site)
        if site is None:
            if len(self._sites) >= _MOST:
                self.forget_idle()
            site = self._sites[destination.site] = Site(
                destination,
                Limits(destination.route.connections, self._idle),
                open_connection=self._open,
                addresses=self._addresses,
                clock=self._clock,
                slots=self._slots,
            )
        return site

    def forget_idle(self) -> None:
        now = self._clock()
        for name, site in list(self._sites.items()):
            if site.is_idle_since(now - _FORGET_AFTER) and site.suspended_until <= now:
                site.forget()
                del self._sites[name]

    def all(self) -> list[Site]:
        return list(self._sites.values())

    async def close(self, timeout: float) -> None:
        await asyncio.gather(*(site.close(timeout) for site in self._sites.values()))
        if self._slots is not None:
            await self._slots.close()
