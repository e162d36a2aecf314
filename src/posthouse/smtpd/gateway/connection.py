"""One connection: from the PROXY header to the last octet that lingers.

The protocol, the transport and the clock meet here; what is said is the dialogue's affair.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import cast

import structlog

from posthouse.smtp.answers import BYE, SHUTDOWN, simple
from posthouse.smtp.peer import Peer, Tls
from posthouse.smtp.proxy import BadProxy, parse, shortest
from posthouse.smtp.reply import Reply
from posthouse.smtp.server import Server
from posthouse.smtpd.conversation import Conversation
from posthouse.smtpd.gateway import metrics
from posthouse.smtpd.gateway.admission import network_of, within
from posthouse.smtpd.gateway.clocks import Clocks
from posthouse.smtpd.gateway.dialogue import Dialogue
from posthouse.smtpd.gateway.options import Listener
from posthouse.smtpd.gateway.shared import Shared

log = structlog.get_logger("gateway")

EARLY = simple(554, "5.5.1", "You spoke before the greeting")  # RFC 5321 §3.1: the client waits for it
_AWAY = simple(421, "4.3.0", "Not available now; try again later")
_BYE = BYE.encode()
_LINGER_OCTETS = 4 * 1024 * 1024
"""Read and forgotten after the last reply, so that the network does not destroy it."""
_EARLY_OCTETS = 1_048_576
"""Through TLS, before its start is told: one turn of the loop later."""


class Connection(asyncio.Protocol):
    """:param shared: by all connections of a gateway."""

    def __init__(self, shared: Shared, listener: Listener) -> None:
        self._shared = shared
        self._listener = listener
        self._meters = shared.meters[listener.kind]
        self._transport = cast(asyncio.Transport, None)
        self._dialogue: Dialogue | None = None
        self._clocks = Clocks(shared.options.timeouts, shared.options.pace, asyncio.get_running_loop().time())
        self._plain = False  # greeted, no handshake on, not closing: octets go straight to the core
        self._header = b""  # of PROXY, while it is not whole
        self._ends = ("", 0)  # who is connected to us, perhaps a proxy
        self._network: str | None = None  # whose count we are in
        self._counted = False
        self._timer: asyncio.TimerHandle | None = None  # the banner's delay
        self._handshake: asyncio.Task[None] | None = None
        self._secure = False  # what comes now comes through TLS
        self._early: list[bytes] = []  # came through TLS before its start was told
        self._paused = False  # reading
        self._choked = False  # writing
        self._eof = False
        self._closing_at: float | None = None
        self._discarded = 0

    # -- the beginning ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer is None:  # it is gone already
            self._transport.abort()
            return
        refusal = self._shared.admission.enter()
        if refusal is not None:
            self._turn_away(refusal, "full")
            return
        self._counted = True
        self._meters.open.inc()
        self._shared.opened(self)
        self._ends = (shortest(str(peer[0])), int(peer[1]))
        if not within(self._ends[0], self._listener.proxies):
            self._begin(*self._ends)

    def _proxied(self, data: bytes) -> None:
        self._header += data
        try:
            found = parse(self._header)
        except BadProxy:
            self._count("proxy")
            self._transport.abort()
            return
        if found is None:
            return
        rest, self._header = self._header[found.size :], b""
        address, port = self._ends if found.address is None else (found.address, found.port)
        self._begin(address, port, rest)

    def _begin(self, address: str, port: int, early: bytes = b"") -> None:
        """:param early: what the client said before its greeting, behind the PROXY header."""
        kind, shared = self._listener.kind, self._shared
        trusted = kind == "lmtp" and within(address, self._listener.fronts)
        if not trusted:
            network = network_of(address)
            refusal = shared.admission.enter_from(network)
            if refusal is not None:
                self._turn_away(refusal, "network")
                return
            self._network = network
        conversation = self._conversation(Peer(address, port, kind, trusted))
        if conversation is None:
            self._turn_away(_AWAY, "failed")
            return
        self._count("accepted")
        core = Server(shared.offers[kind], shared.options.limits)
        self._dialogue = Dialogue(core, conversation, shared, self._meters, self._run, self._upgrade)
        delay = shared.options.banner_delay
        if delay:
            self._timer = asyncio.get_running_loop().call_later(delay, self._greet)
            if early:
                self._at_odd_times(early, self._dialogue)
        else:
            core.receive(early)
            self._greet()

    def _conversation(self, peer: Peer) -> Conversation | None:
        try:
            return self._shared.begin(peer)
        except Exception:
            log.exception("gateway.conversation_failed", step="begin")
            return None

    def _greet(self) -> None:
        self._timer = None
        self._plain = True
        self._run()

    def _turn_away(self, reply: Reply, outcome: str) -> None:
        self._count(outcome)
        self._transport.write(reply.encode())
        self._end_transport()

    def _count(self, outcome: str) -> None:
        metrics.CONNECTIONS.labels(self._listener.kind, outcome).inc()

    # -- octets ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        dialogue = self._dialogue
        if dialogue is None or not self._plain:
            self._at_odd_times(data, dialogue)
            return
        self._clocks.octets += len(data)
        dialogue.core.receive(data)
        self._run()

    def _at_odd_times(self, data: bytes, dialogue: Dialogue | None) -> None:
        if self._closing_at is not None:
            self._discarded += len(data)
            if self._discarded > _LINGER_OCTETS:
                self._transport.abort()
        elif dialogue is None:
            self._proxied(data)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._count("early")
            self._finish(EARLY)
        elif self._secure:
            self._early.append(data)
            if sum(map(len, self._early)) > _EARLY_OCTETS:
                self._transport.abort()
        # else: in the clear after STARTTLS. Dropped.

    def _run(self) -> None:
        """Put the questions that can be put, write what is to be said."""
        dialogue = self._dialogue
        if dialogue is None or self._closing_at is not None:
            return
        core = dialogue.core
        dialogue.pump()
        out = core.take()
        if out:
            self._clocks.turns += 1
            self._transport.write(out)
        if core.closed:
            self._close(polite=out.endswith(_BYE))
            return
        if self._shared.stopping and dialogue.quiet:
            self._ended("stopping")
            self._finish(SHUTDOWN)
            return
        if self._eof and not (core.waiting or dialogue.busy):
            self._end_transport()
            return
        self._flow()

    def _flow(self) -> None:
        dialogue = self._dialogue
        if self._closing_at is not None or dialogue is None:
            return
        paused = self._choked or dialogue.busy or not dialogue.core.wants_data
        if paused is not self._paused:
            self._paused = paused
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    def pause_writing(self) -> None:
        self._choked = True  # a peer that does not read our replies is not read either
        self._flow()

    def resume_writing(self) -> None:
        self._choked = False
        self._flow()

    def eof_received(self) -> bool:
        dialogue = self._dialogue
        if dialogue is None or self._secure or self._closing_at is not None:
            return False
        self._eof = dialogue.core.waiting or dialogue.busy  # the answer is still worth giving
        return self._eof

    # -- the end --------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._plain = False
        if self._closing_at is None:
            self._closing_at = asyncio.get_running_loop().time()
        if self._dialogue is not None:
            self._dialogue.lost()
        if self._network is not None:
            self._shared.admission.leave_from(self._network)
            self._network = None
        if self._counted:
            self._counted = False
            self._shared.admission.leave()
            self._meters.open.dec()
            self._shared.closed(self)

    def look(self, now: float) -> None:
        """Once a tick: end what is overdue."""
        dialogue, times = self._dialogue, self._shared.options.timeouts
        if self._closing_at is not None:
            if now - self._closing_at > times.linger:
                self._transport.abort()
        elif dialogue is None:
            if now - self._clocks.born > times.proxy:
                self._count("proxy")
                self._transport.abort()
        elif self._plain:
            reason = self._clocks.overdue(now, dialogue, choked=self._choked)
            if reason is not None:
                self._ended(reason.name)
                self._finish(reason.reply)

    def drain(self) -> None:
        """End it as soon as no transaction is open."""
        if self._dialogue is None:
            self._transport.abort()
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._finish(SHUTDOWN)
        elif self._plain:
            self._run()

    def cut(self) -> None:
        """End it now, whatever is going on."""
        if self._dialogue is not None and self._plain:
            self._ended("stopping")
            self._finish(SHUTDOWN)
        else:
            self._transport.abort()

    def _ended(self, reason: str) -> None:
        metrics.ENDED.labels(self._listener.kind, reason).inc()
        if self._dialogue is not None:
            log.debug("gateway.session_ended", session=self._dialogue.name, reason=reason)

    def _finish(self, reply: Reply) -> None:
        """Say `reply` and close."""
        dialogue = self._dialogue
        assert dialogue is not None
        dialogue.core.close(reply)
        dialogue.pump()  # what was open is reset
        self._transport.write(dialogue.core.take())
        self._close(polite=False)

    def _close(self, *, polite: bool) -> None:
        """:param polite: the peer said QUIT, so it sends nothing that could destroy our reply."""
        if polite or self._secure or self._eof or self._shared.stopping:
            self._end_transport()
            return
        self._plain = False
        self._closing_at = asyncio.get_running_loop().time()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        with suppress(OSError, RuntimeError):  # it is gone
            self._transport.write_eof()

    def _end_transport(self) -> None:
        self._plain = False
        self._closing_at = asyncio.get_running_loop().time()
        self._transport.close()

    # -- TLS ------------------------------------------------------------------------------

    def _upgrade(self) -> None:
        self._plain = False
        self._handshake = asyncio.get_running_loop().create_task(self._start_tls())

    async def _start_tls(self) -> None:
        loop, certificates = asyncio.get_running_loop(), self._shared.certificates
        assert certificates is not None
        if self._closing_at is not None or self._transport.is_closing():
            return
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        try:
            context, seconds = certificates.context(), self._shared.options.timeouts.tls
            self._secure = True  # start_tls takes the transport over before it first waits
            transport = await loop.start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=seconds
            )
        except (OSError, RuntimeError, ssl.SSLError) as error:  # the peer gave up or speaks no TLS
            metrics.TLS.labels("failed").inc()
            log.debug("gateway.tls_failed", error=type(error).__name__)
            self._transport.abort()
            self.connection_lost(None)  # the layer between does not always say so
            return
        if transport is not None and self._closing_at is None:
            self._tls_started(transport)

    def _tls_started(self, transport: asyncio.Transport) -> None:
        dialogue = self._dialogue
        assert dialogue is not None
        self._transport = transport
        self._handshake = None
        socket = transport.get_extra_info("ssl_object")
        cipher = socket.cipher() if socket is not None else None
        dialogue.tls = Tls(socket.version() or "TLS" if socket is not None else "TLS", cipher[0] if cipher else "")
        metrics.TLS.labels(dialogue.tls.version).inc()
        dialogue.core.tls_started()
        self._plain = True
        self._clocks.turns += 1
        for data in self._early:
            self._clocks.octets += len(data)
            dialogue.core.receive(data)
        self._early.clear()
        self._run()
