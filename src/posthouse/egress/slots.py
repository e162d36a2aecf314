"""Connections that the processes of an installation may have to a site, shared out among them.

Each site leases slots in chunks from `SharedLimits`, for as long as it has connections or mail
that waits; all sites' leases are renewed together, and changes of one moment share a round
trip. A site that is told a smaller number closes what is idle and lets what is busy finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from posthouse.storage.bus.limits import Hold, SharedLimits

TTL = 10.0
"""Seconds after which the slots of a process that has died are free."""
_RENEW = TTL / 4
_HURRY = 0.25
"""Seconds between two tries of a site that has less than it wants."""
GROUP = "site"
"""Who shares these limits: the group of the keys."""


class Lease:
    """One site's slots. `granted` is how many connections it may have now."""

    __slots__ = ("_chunk", "_key", "_most", "_needs", "_slots", "changed", "granted", "hungry")

    def __init__(
        self, slots: Slots, site: str, most: int, needs: Callable[[], tuple[int, int]], changed: Callable[[], None]
    ) -> None:
        """
        :param needs: how many connections it would like, and how many it has.
        :param changed: told after `granted` has changed.
        """
        self._slots = slots
        self._key = f"{GROUP}:{site}"
        self._most = most
        self._chunk = max(1, most // 5)
        self._needs = needs
        self.changed = changed
        self.granted = 0
        self.hungry = False
        """It got less than it wanted, so it asks again by itself."""

    def ask(self) -> None:
        """Its needs have changed."""
        self._slots.look_at(self)

    def ask_more(self) -> None:
        """It could use more. Cheap when there is no more, or that was asked already."""
        if not self.hungry and self.granted < self._most:
            self._slots.look_at(self)

    def end(self) -> None:
        self._slots.drop(self)

    def hold(self) -> Hold:
        wanted, has = self._needs()
        chunks = -(-wanted // self._chunk) * self._chunk
        return Hold(self._key, min(chunks, self._most), has, self._most)

    def settle(self, wanted: int, granted: int) -> None:
        self.hungry = granted < wanted
        if granted != self.granted:
            self.granted = granted
            self.changed()


class Slots:
    def __init__(self, limits: SharedLimits) -> None:
        self._limits = limits
        self._leases: set[Lease] = set()
        self._due: set[Lease] = set()
        self._gone: list[Hold] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def lease(self, site: str, most: int, needs: Callable[[], tuple[int, int]], changed: Callable[[], None]) -> Lease:
        """As `Lease`."""
        return Lease(self, site, most, needs, changed)

    def look_at(self, lease: Lease) -> None:
        if self._closed:
            return
        self._leases.add(lease)
        self._due.add(lease)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def drop(self, lease: Lease) -> None:
        if lease in self._leases:
            self._leases.discard(lease)
            self._due.discard(lease)
            self._gone.append(Hold(lease.hold().key, 0, 0, 1))
            self._wake.set()

    async def close(self) -> None:
        """Gives everything back."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        back = [Hold(lease.hold().key, 0, 0, 1) for lease in self._leases] + self._gone
        self._leases.clear()
        if back:
            await self._limits.hold(back, TTL)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + _RENEW
        hurry_at = loop.time() + _HURRY
        while True:
            hungry = {lease for lease in self._leases if lease.hungry}
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(renew_at, hurry_at) if hungry else renew_at):
                    await self._wake.wait()
            now = loop.time()
            if now >= hurry_at:
                hurry_at = now + _HURRY
                self._due |= hungry
            if now >= renew_at:
                renew_at = now + _RENEW
                self._due |= self._leases
            await self._step()

    async def _step(self) -> None:
        self._wake.clear()
        due, self._due = [lease for lease in self._due if lease in self._leases], set()
        gone, self._gone = self._gone, []
        holds = [lease.hold() for lease in due]
        if not holds and not gone:
            return
        for lease, hold in zip(due, holds, strict=True):
            if hold.wanted < lease.granted:  # before others are told that they may have them
                lease.settle(hold.wanted, hold.wanted)
        granted = await self._limits.hold([*holds, *gone], TTL)
        for lease, hold, slots in zip(due, holds, granted, strict=False):
            lease.settle(hold.wanted, slots)
            if not hold.wanted and not hold.in_use:
                self._leases.discard(lease)  # until it has work again
