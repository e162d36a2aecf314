"""SMTP connections to peers: the asyncio shell around `smtp.client`.

    connection = await connect("mx.example.com", ip="192.0.2.1", name="mail.example.net")
    delivery = await connection.deliver(envelope, message)
    if connection.reusable: ...
    await connection.quit()

One message at a time; a pool of connections is the caller's. A protocol, not streams: at full
speed a message is one write and one read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Sequence
from typing import cast

import msgspec

from posthouse.errors import Conflict
from posthouse.net.tls import TlsMode, TlsPolicy
from posthouse.smtp.client import Client
from posthouse.smtp.outcome import (
    Cause,
    Closed,
    Delivery,
    Envelope,
    Event,
    Failure,
    Peer,
    SessionFailed,
    Stage,
    StartTls,
    Timeouts,
    UseTls,
)
from posthouse.smtp.reply import Reply, printable
from posthouse.smtp.sasl import Credentials

_USE = {
    TlsMode.NONE: UseTls.NEVER,
    TlsMode.OPPORTUNISTIC: UseTls.OFFERED,
    TlsMode.REQUIRED: UseTls.REQUIRED,
    TlsMode.IMPLICIT: UseTls.DONE,
}


async def connect(
    host: str,
    port: int = 25,
    *,
    name: str,
    ip: str | None = None,
    source_ip: str | None = None,
    tls: TlsPolicy | None = None,
    credentials: Credentials | None = None,
    timeouts: Timeouts | None = None,
    connect_timeout: float = 30.0,
) -> Connection:
    """Connect, greet, and when asked encrypt and authenticate.

    :param host: whom the certificate must be for; also where to connect when `ip` is None.
    :param name: what EHLO says: the name of this machine.
    :param source_ip: the local address to send from.
    :param connect_timeout: seconds for TCP, and for the handshake of implicit TLS.
    :raises SessionFailed: with the stage, the cause and the reply. When
        `failure.without_tls`, the policy allows to try again with TlsMode.NONE.
    :raises Misconfigured: the file of certificate authorities cannot be read.
    """
    policy = tls or TlsPolicy()
    peer = Peer(host, ip, port)
    client = Client(name, peer, tls=_USE[policy.mode], credentials=credentials, timeouts=timeouts)
    connection = Connection(client, policy)
    implicit = policy.mode is TlsMode.IMPLICIT
    try:
        async with asyncio.timeout(connect_timeout):
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                ip or host,
                port,
                local_addr=(source_ip, 0) if source_ip else None,
                ssl=policy.context() if implicit else None,
                server_hostname=_server_name(host, policy) if implicit else None,
            )
    except (OSError, UnicodeError) as error:  # TimeoutError and SSLError are OSErrors
        connection.abort()
        raise SessionFailed(_unreachable(error), peer) from error
    except BaseException:
        connection.abort()
        raise
    await connection.opened()
    return connection


def _unreachable(error: Exception) -> Failure:
    detail = printable(str(error) or type(error).__name__)
    if isinstance(error, ssl.SSLError):
        return Failure(Stage.TLS, Cause.TLS_FAILED, Reply(451, "4.7.5", ("The TLS handshake failed",)), detail=detail)
    if isinstance(error, TimeoutError):
        reply = Reply(451, "4.4.1", ("The server did not answer in time",))
        return Failure(Stage.CONNECT, Cause.TIMEOUT, reply, detail=detail)
    reason = "The server refuses connections" if isinstance(error, ConnectionRefusedError) else "No connection"
    return Failure(Stage.CONNECT, Cause.UNREACHABLE, Reply(451, "4.4.1", (reason,)), detail=detail)


def _server_name(host: str, policy: TlsPolicy) -> str | None:
    """For SNI and the certificate; an address literal only where it must be in the certificate."""
    name = policy.server_name or host.rstrip(".")
    if policy.verified:
        return name
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return None


class Connection(asyncio.Protocol):
    """Made by `connect`. Not for two tasks at once."""

    def __init__(self, client: Client, policy: TlsPolicy) -> None:
        self._client = client
        self._policy = policy
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Delivery] | None = None
        self._ready: asyncio.Future[Failure | None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._handshake: asyncio.Task[None] | None = None
        self._paused = False
        self._due = 0.0
        """When the awaited step is too late, in the loop's time; 0: nothing is awaited."""
        self._timer: asyncio.TimerHandle | None = None
        self._last: Failure | None = None

    # For the sender

    @property
    def client(self) -> Client:
        """The session: `peer`, `capabilities`, `transactions`."""
        return self._client

    @property
    def peer(self) -> Peer:
        return self._client.peer

    @property
    def reusable(self) -> bool:
        """Another message can be delivered now."""
        return self._transport is not None and self._client.reusable and self._waiter is None

    async def opened(self) -> None:
        """:raises SessionFailed: the session did not come about."""
        try:
            failure = await self._ready
        except asyncio.CancelledError:
            self.abort()
            raise
        if failure is not None:
            raise SessionFailed(failure, self.peer)

    async def deliver(self, envelope: Envelope, data: bytes | Sequence[bytes], *, canonical: bool = False) -> Delivery:
        """One message to its recipients. Never raises for what the peer does.

        :param data: the message, whole or in parts.
        :param canonical: see `Client.deliver`.
        :raises Conflict: another delivery is in flight, or the peer takes no more (MAILMAX).
        """
        client = self._client
        if client.closed:
            return self._too_late(envelope)
        if self._waiter is not None:
            raise Conflict("This connection is busy", code="smtp_connection_busy")
        content = data if isinstance(data, bytes) else b"".join(data)
        delivery = client.deliver(envelope, content, canonical=canonical)
        if delivery is not None:
            return delivery
        waiter = self._waiter = self._loop.create_future()
        self._flush()
        try:
            return await waiter
        except asyncio.CancelledError:
            self.abort()
            raise

    async def quit(self) -> None:
        """Say QUIT and close; waits for the answer a few seconds at most."""
        if not self._client.quit():
            self.abort()
        self._flush()
        try:
            await asyncio.shield(self._gone)
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Close at once. A delivery in flight ends as lost."""
        self._handle(self._client.lost("closed by us"))
        self._close()

    # From the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client.peer = self._seen_peer()
        self._arm()

    def data_received(self, data: bytes) -> None:
        client = self._client
        before = client.progress
        events = client.receive(data)
        if events:
            self._handle(events)
        if client.stage is Stage.IDLE:
            self._due = 0.0
        elif client.progress != before:
            self._flush()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._client.has_blocks:
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._handle(self._client.lost(printable(str(exc)) if exc else ""))
        self._close()
        if not self._gone.done():
            self._gone.set_result(None)

    # Within

    def _flush(self) -> None:
        """Write what the client has to say, and set the deadline for the answer."""
        client = self._client
        transport = self._transport
        if transport is None or client.closed:
            return
        wire = client.take()
        if wire:
            transport.write(wire)
        while client.has_blocks and not self._paused:
            block = client.next_block()
            if block is not None:
                transport.write(block)
        self._arm()

    def _arm(self) -> None:
        """One timer a connection: it is moved only when the deadline comes nearer, so a
        message costs two look-ups and no timer."""
        timeout = self._client.timeout
        if timeout is None:
            self._due = 0.0
            return
        due = self._due = self._loop.time() + timeout
        timer = self._timer
        if timer is None or timer.when() > due:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._due or self._client.stage is Stage.TLS:  # start_tls has a timeout of its own
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._on_timer)
            return
        self._handle(self._client.timed_out())
        self._close()

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Delivery):
                waiter, self._waiter = self._waiter, None
                if waiter is not None and not waiter.done():
                    waiter.set_result(event)
            elif isinstance(event, StartTls):
                self._begin_tls()
            elif not isinstance(event, Closed):
                failure = event if isinstance(event, Failure) else None
                self._last = failure
                if not self._ready.done():
                    self._ready.set_result(failure)
        if self._client.closed:
            self._close()

    def _close(self) -> None:
        self._due = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None
        if self._transport is not None:
            self._transport.abort()
        elif not self._gone.done():
            self._gone.set_result(None)

    def _begin_tls(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()  # what comes next is the handshake's
        self._handshake = self._loop.create_task(self._start_tls(self._transport))

    async def _start_tls(self, transport: asyncio.Transport) -> None:
        client = self._client
        try:
            secured = await self._loop.start_tls(
                transport,
                self,
                self._policy.context(),
                server_hostname=_server_name(client.peer.host, self._policy),
                ssl_handshake_timeout=client.timeout,
            )
        except (OSError, ValueError, UnicodeError) as error:  # SSLError is an OSError
            self._handshake = None
            self._handle(client.tls_failed(str(error) or type(error).__name__))
            return
        self._handshake = None
        if secured is None or client.closed:
            transport.abort()
            return
        self._transport = secured
        client.tls_started(self._seen_peer())
        self._flush()

    def _seen_peer(self) -> Peer:
        transport = self._transport
        assert transport is not None
        address = cast("tuple[str, int] | None", transport.get_extra_info("peername"))
        secure = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
        cipher = secure.cipher() if secure is not None else None
        return msgspec.structs.replace(
            self._client.peer,
            ip=address[0] if address else self._client.peer.ip,
            tls=secure.version() if secure is not None else None,
            cipher=cipher[0] if cipher else None,
            verified=secure is not None and self._policy.verified,
        )

    def _too_late(self, envelope: Envelope) -> Delivery:
        failure = self._last or Failure(
            Stage.IDLE, Cause.LOST, Reply(451, "4.4.2", ("The server had closed the connection",))
        )
        count = len(envelope.recipients)
        ours = frozenset(range(count))
        return Delivery((failure.reply,) * count, None, Stage.MAIL, self.peer, ours=ours, failure=failure)
