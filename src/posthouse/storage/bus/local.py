"""The bus within one process and one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from types import TracebackType

from posthouse.storage.bus.base import Bus, Change, merge


class LocalBus(Bus):
    def __init__(self) -> None:
        self._listeners: dict[str, set[Subscription]] = {}
        self._caches: dict[str, list[Callable[[str], None]]] = {}
        self._closed = False

    @property
    def subscriptions(self) -> int:
        """How many listen now, counted once for each account; for metrics and tests."""
        return sum(map(len, self._listeners.values()))

    def publish(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for subscription in self._listeners.get(change.account, ()):
                subscription.put(change)

    def listens(self, account: str) -> bool:
        return account in self._listeners

    def followed(self) -> list[str]:
        """The accounts that somebody listens to."""
        return list(self._listeners)

    def topics(self) -> list[str]:
        return list(self._caches)

    def invalidate(self, topic: str, key: str = "") -> None:
        for forget in self._caches.get(topic, ()):
            forget(key)

    def listen(self, topic: str, forget: Callable[[str], None]) -> None:
        if not self._closed:
            self._caches.setdefault(topic, []).append(forget)

    def subscribe(self, accounts: Collection[str]) -> Subscription:
        return Subscription(self, frozenset(accounts))

    async def close(self) -> None:
        self._closed = True
        self._caches.clear()
        for subscription in {each for listeners in self._listeners.values() for each in listeners}:
            self.leave(subscription)

    def enter(self, subscription: Subscription) -> None:
        if self._closed:
            subscription.end()
            return
        for account in subscription.accounts:
            self._listeners.setdefault(account, set()).add(subscription)

    def leave(self, subscription: Subscription) -> None:
        for account in subscription.accounts:
            listeners = self._listeners.get(account)
            if listeners is not None:
                listeners.discard(subscription)
                if not listeners:
                    del self._listeners[account]
        subscription.end()


class Subscription:
    """At most one change an account waits, in the order in which accounts first changed."""

    __slots__ = ("_bus", "_ended", "_entered", "_event", "_waiting", "accounts")

    def __init__(self, bus: LocalBus, accounts: frozenset[str]) -> None:
        self.accounts = accounts
        self._bus = bus
        self._waiting: dict[str, Change] = {}
        self._event = asyncio.Event()
        self._entered = False
        self._ended = False

    def put(self, change: Change) -> None:
        earlier = self._waiting.get(change.account)
        # Merged with nothing too, so that its size is bounded like any other.
        self._waiting[change.account] = merge(earlier or change, change)
        self._event.set()

    def end(self) -> None:
        self._ended = True
        self._event.set()

    async def __aenter__(self) -> AsyncIterator[Change]:
        if self._entered:
            raise RuntimeError("a subscription is entered once")
        self._entered = True
        self._bus.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.clear()
        self._bus.leave(self)

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._event.clear()
            await self._event.wait()
        return self._waiting.pop(next(iter(self._waiting)))
