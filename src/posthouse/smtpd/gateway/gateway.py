"""The gateway itself: listens, ticks, drains."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from posthouse.smtpd.conversation import Begin
from posthouse.smtpd.gateway.connection import Connection
from posthouse.smtpd.gateway.options import Listener, Options
from posthouse.smtpd.gateway.shared import Shared

_CUT_SECONDS = 1.0
"""In which a 421 may still get out before the rest is cut off."""
_TICK = 1.0


class Gateway:
    """MX and LMTP listeners whose decisions are `begin`'s conversations.

    `async with Gateway(begin, options) as gateway` starts it and stops it at once.

    :raises Misconfigured: (`start`) the certificate cannot be used.
    """

    def __init__(self, begin: Begin, options: Options) -> None:
        self.options = options
        self._begin = begin
        self._shared: Shared | None = None
        self._servers: list[asyncio.Server] = []
        self._ticker: asyncio.TimerHandle | None = None
        times = options.timeouts
        shortest = min(times.command, times.data, times.proxy, times.linger, times.life, options.pace.window)
        self._tick = min(_TICK, shortest / 4)

    @property
    def ports(self) -> list[int]:
        """In the order of `Options.listeners`, once started."""
        return [int(server.sockets[0].getsockname()[1]) for server in self._servers]

    @property
    def sessions(self) -> int:
        return self._shared.admission.open if self._shared else 0

    async def start(self) -> None:
        """:raises OSError: a port is taken or not allowed, or the spool directory cannot be used.
        :raises Misconfigured: the certificate cannot be used.
        """
        self._shared = Shared(self._begin, self.options)
        try:
            for listener in self.options.listeners:
                self._servers.append(await self._listen(self._shared, listener))
        except BaseException:
            await self.stop(0)
            raise
        self._ticker = asyncio.get_running_loop().call_later(self._tick, self._look)

    async def _listen(self, shared: Shared, listener: Listener) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            partial(Connection, shared, listener), listener.host, listener.port, backlog=self.options.backlog
        )

    async def stop(self, timeout: float = 30.0) -> None:
        """Take no more connections, say 421 to those without a transaction, let the others
        finish theirs, and after `timeout` seconds cut off what is left."""
        shared = self._shared
        if shared is None or shared.stopping:
            return
        for server in self._servers:
            server.close()
        self._servers.clear()
        shared.stopping = True
        for connection in list(shared.connections):
            connection.drain()
        await _emptied(shared, timeout)
        for connection in list(shared.connections):
            connection.cut()
        await _emptied(shared, _CUT_SECONDS)
        if self._ticker is not None:
            self._ticker.cancel()
        for connection in list(shared.connections):
            connection.cut()
        shared.spool.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(0)

    def _look(self) -> None:
        loop, shared = asyncio.get_running_loop(), self._shared
        assert shared is not None
        now = loop.time()
        for connection in list(shared.connections):
            connection.look(now)
        self._ticker = loop.call_later(self._tick, self._look)


async def _emptied(shared: Shared, seconds: float) -> None:
    if seconds > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await shared.empty.wait()
