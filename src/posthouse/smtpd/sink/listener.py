"""The sink itself: listens, sweeps idle sessions, stops cleanly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from posthouse.smtp.reply import Reply
from posthouse.smtpd.sink.certificate import self_signed
from posthouse.smtpd.sink.counts import Counts
from posthouse.smtpd.sink.keep import Message
from posthouse.smtpd.sink.options import Options
from posthouse.smtpd.sink.session import Session
from posthouse.smtpd.sink.state import State

_IDLE_SECONDS = 300.0  # RFC 5321 §4.5.3.2.7
_STOPPING = Reply(421, "4.3.2", ("Shutting down",))
_TOO_SLOW = Reply(421, "4.4.2", ("Nothing heard for too long",))
_BACKLOG = 1024


class Sink:
    """An SMTP server for development and tests; `async with Sink() as sink`.

    :raises ValueError: an option is wrong.
    :raises OSError: the log, the place to keep or (on entering) the port cannot be opened.
    """

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self._state = State(self.options)
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self.port = self.options.port

    @property
    def host(self) -> str:
        return self.options.host

    @property
    def counts(self) -> Counts:
        return self._state.counts

    @property
    def messages(self) -> Sequence[Message]:
        """The newest messages accepted, oldest first, at most `Options.memory`."""
        return self._state.memory.messages

    @property
    def certificate(self) -> bytes:
        """The self-signed certificate, PEM, that STARTTLS shows; empty without TLS."""
        return self._state.certificate.pem if self._state.certificate else b""

    async def start(self) -> None:
        """:raises OSError: the port is taken or not allowed."""
        loop = asyncio.get_running_loop()
        if self.options.tls:
            self._state.certificate = self_signed(self.options.hostname)
        self._server = await loop.create_server(
            lambda: Session(self._state),
            self.options.host,
            self.options.port,
            backlog=_BACKLOG,
            reuse_port=self.options.reuse_port or None,
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._sweeper = loop.call_later(_IDLE_SECONDS, self._sweep)

    async def stop(self) -> None:
        """Stop listening, say 421 to all sessions, write out the log."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for session in list(self._state.sessions):
            session.stop(_STOPPING)
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._state.empty.wait()
        if self._state.journal is not None:
            self._state.journal.close()

    def flush(self) -> None:
        """Write the log out now."""
        if self._state.journal is not None:
            self._state.journal.flush()

    async def received(self, count: int, timeout: float | None = 30.0) -> None:
        """Until `count` messages were accepted since the start or the last reset.

        :raises TimeoutError: fewer came in time.
        """
        if self.counts.accepted >= count:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._state.waiters.append((count, future))
        self._state.counting = True
        async with asyncio.timeout(timeout):
            await future

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _sweep(self) -> None:
        for session in list(self._state.sessions):
            if session.active:
                session.active = False
            else:
                session.stop(_TOO_SLOW)
        self._sweeper = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._sweep)
