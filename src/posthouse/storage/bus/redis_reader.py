"""The connection that is subscribed: its channels follow what is wanted, and it comes back.

`connected` is true from when the server has confirmed every channel wanted at the time until
the connection is lost, which a missing answer to PING shows too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import structlog
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from posthouse.storage.bus.redis_link import CONNECT_SECONDS, CONNECTED, LOST, Address, Pause

log = structlog.get_logger("bus")

_CONFIRM_SECONDS = 1.0
"""Who begins to listen waits so long for the server's word; after it, by then or by polling."""
_PING_EVERY = 3.0
_SILENT = 9.0
_CHANNELS_AT_ONCE = 1000


class Reader:
    def __init__(
        self,
        address: Address,
        control: str,
        received: Callable[[str, bytes], None],
        *,
        up: Callable[[], None],
        down: Callable[[], None],
    ) -> None:
        """
        :param control: a channel that is always followed.
        :param received: called with a channel and what was published there.
        :param up: called when `connected` becomes true; `down`: when it becomes false.
        """
        self.connected = False
        self._address = address
        self._received = received
        self._told_up, self._told_down = up, down
        self._wanted = {control}
        self._asked: set[str] = set()
        self._unconfirmed: dict[str, int] = {}
        self._initial: set[str] = set()
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._changed = asyncio.Event()
        self._tried = asyncio.Event()
        self._connection: Connection | None = None

    async def settled(self) -> None:
        """Connected, or the first try failed, or a second went by."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONFIRM_SECONDS):
                await self._tried.wait()

    async def follow(self, channels: Collection[str]) -> None:
        """Returns when they are confirmed; at once when there is nobody to confirm it."""
        self._wanted.update(channels)
        self._changed.set()
        if not self.connected:
            return
        missing = [one for one in channels if one not in self._asked or one in self._unconfirmed]
        if not missing:
            return
        loop = asyncio.get_running_loop()
        waiting = {one: loop.create_future() for one in missing}
        for one, future in waiting.items():
            self._waiters.setdefault(one, []).append(future)
        try:
            await asyncio.wait(waiting.values(), timeout=_CONFIRM_SECONDS)
        finally:
            for one, future in waiting.items():
                held = self._waiters.get(one, [])
                if future in held:
                    held.remove(future)
                if not held:
                    self._waiters.pop(one, None)

    def leave(self, channels: Collection[str]) -> None:
        if channels:
            self._wanted.difference_update(channels)
            self._changed.set()

    async def run(self) -> None:
        pause = Pause()
        while True:
            try:
                await self._session(pause)
            except (RedisError, OSError) as error:  # TimeoutError is among them
                self._end(repr(error)[:200])
            except Exception as error:  # ours: listening must not end by it
                log.exception("redis_reader_fault")
                self._end(repr(error)[:200])
            await asyncio.sleep(pause())

    async def close(self) -> None:
        self.connected = False
        await self._disconnect()

    async def _session(self, pause: Pause) -> None:
        connection = self._connection = self._address.connection()
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.connect()
        self._asked, self._unconfirmed = set(), {}
        self._initial = set(self._wanted)
        self._changed.set()
        writing = asyncio.get_running_loop().create_task(self._write(connection))
        try:
            while True:
                answer = await connection.read_response(disable_decoding=True, timeout=_SILENT)
                if answer is None:
                    raise TimeoutError("no answer to PING")
                self._take(answer)
                if self.connected:
                    pause.reset()
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await self._disconnect()

    async def _write(self, connection: Connection) -> None:
        """Keeps the channels, and the connection alive; a failure shows at the reading side."""
        while True:
            self._changed.clear()
            for verb, channels in (
                ("SUBSCRIBE", list(self._wanted - self._asked)),
                ("UNSUBSCRIBE", list(self._asked - self._wanted)),
            ):
                for at in range(0, len(channels), _CHANNELS_AT_ONCE):
                    await self._ask(connection, verb, channels[at : at + _CHANNELS_AT_ONCE])
            try:
                async with asyncio.timeout(_PING_EVERY):
                    await self._changed.wait()
            except TimeoutError:
                await connection.send_packed_command(connection.pack_command("PING"), check_health=False)

    async def _ask(self, connection: Connection, verb: str, channels: list[str]) -> None:
        if verb == "SUBSCRIBE":
            self._asked.update(channels)
            for one in channels:
                self._unconfirmed[one] = self._unconfirmed.get(one, 0) + 1
        else:
            self._asked.difference_update(channels)
        await connection.send_packed_command(connection.pack_command(verb, *channels), check_health=False)

    def _take(self, answer: Any) -> None:
        if not isinstance(answer, list) or len(answer) < 3:
            return  # PONG
        kind, channel = answer[0], answer[1].decode("utf-8", "replace")
        if kind == b"message":
            self._received(channel, answer[2])
        elif kind == b"subscribe":
            self._confirmed(channel)

    def _confirmed(self, channel: str) -> None:
        left = self._unconfirmed.get(channel, 1) - 1
        if left:
            self._unconfirmed[channel] = left
            return
        self._unconfirmed.pop(channel, None)
        for future in self._waiters.get(channel, ()):
            if not future.done():
                future.set_result(None)
        self._initial.discard(channel)
        if not self.connected and not self._initial & self._wanted:
            self.connected = True
            CONNECTED.labels("subscriptions").set(1)
            self._tried.set()
            self._told_up()

    def _end(self, reason: str) -> None:
        self._tried.set()
        CONNECTED.labels("subscriptions").set(0)
        if self.connected:
            self.connected = False
            LOST.labels("subscriptions").inc()
            log.warning("redis_subscriptions_lost", detail=reason)
            self._told_down()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
