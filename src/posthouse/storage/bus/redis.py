"""The bus between processes, over Redis' publish/subscribe; each account is a channel.

1. Within the process changes go straight to those who listen; Redis carries them to the others.
2. What is to be sent waits in a buffer, merged by account, until the answer to what was sent
   before has come: the busier, the larger the steps. A buffer that overflows becomes one
   message, "look for yourselves".
3. One connection is subscribed to the accounts that somebody here listens to (`redis_reader`).
4. While it is down, the modseqs of those accounts are read from the records, a bounded number
   a second, and so they are, more slowly, while it is up: nobody misses a change for good
   because another process could not send it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from types import TracebackType

import msgspec
import structlog
from prometheus_client import Counter

from posthouse.storage.bus.base import ALL, Bus, Change, States, merge
from posthouse.storage.bus.local import LocalBus, Subscription
from posthouse.storage.bus.redis_link import Address, Away, Link, Script
from posthouse.storage.bus.redis_reader import Reader

log = structlog.get_logger("bus")

CHANGES = Counter("posthouse_bus_changes_total", "Changes of accounts, by way: sent, received, polled.", ["way"])
DROPPED = Counter("posthouse_bus_dropped_total", "Changes that no buffer held; other processes read them.", ["use"])

MOST_WAITING = 20_000
"""Accounts whose changes wait to be sent."""
POLL_SECONDS = 2.0
SWEEP_SECONDS = 60.0
_STEP = 500
_POLLED_A_SECOND = 5000
"""Accounts: how many are asked for at once, and at most in a second."""
_SENT_AT_ONCE = 1000
_INVALIDATE_EVERY = 0.05
"""Seconds between two steps of invalidations: a mass of changes becomes one."""
_LOOK = "*"
"""In place of a topic: changes were lost, look at the records."""

_PUBLISH = Script("""
for i = 1, #ARGV, 2 do redis.call('PUBLISH', ARGV[i], ARGV[i + 1]) end
return #ARGV""")

_encode = msgspec.json.Encoder().encode
_change = msgspec.json.Decoder(tuple[str, int, tuple[str, ...], tuple[str, ...]]).decode
_notice = msgspec.json.Decoder(tuple[str, str, str]).decode


class RedisBus(Bus):
    """Runs on one loop from `open` to `close`."""

    def __init__(
        self,
        link: Link,
        address: Address,
        *,
        states: States | None = None,
        poll: float = POLL_SECONDS,
        sweep: float = SWEEP_SECONDS,
    ) -> None:
        """
        :param states: asked while Redis is away; None: subscribers are told when it is back.
        :param poll: seconds between two looks at the records while Redis is away.
        :param sweep: the same while it is there.
        """
        self._link = link
        self._states = states
        self._poll, self._sweep = poll, sweep
        self._origin = os.urandom(6).hex()
        self._prefix = f"{link.namespace}:changes:"
        self._control = f"{link.namespace}:notices"
        self._local = LocalBus()
        self._reader = Reader(address, self._control, self._received, up=self._up, down=self._down)
        self._known: dict[str, int] = {}
        self._waiting: dict[str, Change] = {}
        self._stale: dict[tuple[str, str], None] = {}
        self._invalidated_at = 0.0
        self._lost = False
        self._behind = False
        self._missed: set[str] = set()
        self._wake_sender = asyncio.Event()
        self._wake_poller = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def connected(self) -> bool:
        """Subscribed to what is wanted, and able to publish."""
        return self._reader.connected and self._link.there

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._link.on_return.append(self._wake_sender.set)
        self._tasks = [loop.create_task(run()) for run in (self._reader.run, self._send, self._watch)]
        await self._reader.settled()

    def publish(self, changes: Sequence[Change]) -> None:
        if self._closed:
            return
        self._local.publish(changes)
        waiting = self._waiting
        for change in changes:
            earlier = waiting.get(change.account)
            waiting[change.account] = change if earlier is None else merge(earlier, change)
            if change.account in self._known:
                self._note(change)
        if len(waiting) > MOST_WAITING:
            DROPPED.labels("changes").inc(len(waiting))
            waiting.clear()
            self._lost = True
        self._wake_sender.set()

    def subscribe(self, accounts: Collection[str]) -> _Subscription:
        return _Subscription(self, self._local.subscribe(accounts))

    def invalidate(self, topic: str, key: str = "") -> None:
        if self._closed:
            return
        self._local.invalidate(topic, key)
        self._stale[topic, key] = None
        if len(self._stale) > _SENT_AT_ONCE:  # all of each topic, then
            self._stale = {(one, ""): None for one, _ in self._stale}
        self._wake_sender.set()

    def listen(self, topic: str, forget: Callable[[str], None]) -> None:
        self._local.listen(topic, forget)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._local.close()
        with suppress(Away):
            await self._step()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.close()

    # For subscriptions.

    async def enter(self, subscription: Subscription) -> None:
        await subscription.__aenter__()
        if not self._closed:
            await self._reader.follow([self._prefix + account for account in subscription.accounts])

    def left(self, accounts: Collection[str]) -> None:
        gone = [account for account in accounts if not self._local.listens(account)]
        for account in gone:
            self._known.pop(account, None)
        self._reader.leave([self._prefix + account for account in gone])

    # Sending.

    async def _send(self) -> None:
        while True:
            await self._wake_sender.wait()
            self._wake_sender.clear()
            try:
                await self._step()
            except Away:
                continue  # until the link is back, or there is more to say
            if self._stale:
                await asyncio.sleep(self._pause())
                self._wake_sender.set()

    def _pause(self) -> float:
        return max(0.0, self._invalidated_at + _INVALIDATE_EVERY - time.monotonic())

    async def _step(self) -> None:
        """All that waits. :raises Away: it still waits, what has changed meanwhile is with it."""
        stale, waiting = {}, self._waiting
        if self._pause() == 0.0:
            stale, self._stale = self._stale, {}
            self._invalidated_at = time.monotonic()
        lost, self._lost, self._waiting = self._lost, False, {}
        notices = [(_LOOK, "")] if lost else []
        said: list[str | bytes] = []
        for topic, key in (*notices, *stale):
            said += [self._control, _encode((self._origin, topic, key))]
        for change in waiting.values():
            body = (self._origin, change.modseq, change.kinds, change.mailboxes)
            said += [self._prefix + change.account, _encode(body)]
        try:
            for at in range(0, len(said), 2 * _SENT_AT_ONCE):
                await self._link.run(_PUBLISH, (), said[at : at + 2 * _SENT_AT_ONCE])
        except Away:
            self._put_back(waiting, stale)
            self._lost |= lost
            raise
        CHANGES.labels("sent").inc(len(waiting))

    def _put_back(self, waiting: dict[str, Change], stale: dict[tuple[str, str], None]) -> None:
        self._stale = stale | self._stale
        for account, change in self._waiting.items():
            earlier = waiting.get(account)
            waiting[account] = change if earlier is None else merge(earlier, change)
        self._waiting = waiting
        if len(waiting) > MOST_WAITING:
            DROPPED.labels("changes").inc(len(waiting))
            self._waiting = {}
            self._lost = True

    # Receiving.

    def _received(self, channel: str, payload: bytes) -> None:
        try:
            if channel == self._control:
                self._noticed(*_notice(payload))
                return
            origin, modseq, kinds, mailboxes = _change(payload)
        except msgspec.MsgspecError:
            DROPPED.labels("malformed").inc()
            return
        change = Change(channel.removeprefix(self._prefix), modseq, kinds, mailboxes)
        if origin != self._origin and self._local.listens(change.account):
            CHANGES.labels("received").inc()
            self._note(change)
            self._local.publish([change])

    def _noticed(self, origin: str, topic: str, key: str) -> None:
        if origin == self._origin:
            return
        if topic == _LOOK:
            self._look_now()
        else:
            self._local.invalidate(topic, key)

    def _note(self, change: Change) -> None:
        self._known[change.account] = max(change.modseq, self._known.get(change.account, 0))

    # Looking at the records.

    def _up(self) -> None:
        """Subscribed again: whatever happened meanwhile is looked for once."""
        for topic in self._local.topics():
            self._local.invalidate(topic)
        self._look_now()

    def _down(self) -> None:
        self._look_now()

    def _look_now(self) -> None:
        self._behind = True
        if self._states is None:
            self._missed.update(self._local.followed())
        self._wake_poller.set()

    async def _watch(self) -> None:
        while True:
            soon = self._behind or not self._reader.connected
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll if soon else self._sweep):
                    await self._wake_poller.wait()
            self._wake_poller.clear()
            self._behind = False
            try:
                await self._compare()
            except Exception as error:  # whatever the records raise: another look follows
                self._behind = True
                log.warning("modseqs_unknown", error=type(error).__name__)

    async def _compare(self) -> None:
        if self._states is None:
            if self._reader.connected:
                missed, self._missed = self._missed, set()
                self._tell({one: self._known.get(one, 0) for one in missed if self._local.listens(one)})
            return
        accounts = self._local.followed()
        for at in range(0, len(accounts), _STEP):
            started = time.monotonic()
            states = await self._states(accounts[at : at + _STEP])
            self._tell({one: modseq for one, modseq in states.items() if modseq > self._known.get(one, -1)})
            spent = time.monotonic() - started
            await asyncio.sleep(max(0.0, _STEP / _POLLED_A_SECOND - spent))

    def _tell(self, modseqs: Mapping[str, int]) -> None:
        changes = [Change(account, modseq, ALL, ALL) for account, modseq in modseqs.items()]
        for change in changes:
            if self._local.listens(change.account):
                self._note(change)
        CHANGES.labels("polled").inc(len(changes))
        self._local.publish(changes)


class _Subscription:
    """The local one, and the channels of its accounts while it is entered."""

    def __init__(self, bus: RedisBus, inner: Subscription) -> None:
        self._bus = bus
        self._inner = inner

    async def __aenter__(self) -> AsyncIterator[Change]:
        try:
            await self._bus.enter(self._inner)
        except asyncio.CancelledError:
            await self.__aexit__(None, None, None)
            raise
        return self._inner

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)
        self._bus.left(self._inner.accounts)
