"""One connection of a sink.

A plain message that a pipelining client sends is answered from the bytes at once: one
recipient without orders, MAIL, RCPT and BDAT LAST with its octets in one piece, or MAIL,
RCPT, DATA and then the whole body in one piece. Whatever is not exactly that goes to
`smtp.server`; when the body turns out not to fit, the commands are replayed into it, so
both ways say the same.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable
from typing import cast

from posthouse.smtp.body import BodyCheck
from posthouse.smtp.command import Mail, Rcpt
from posthouse.smtp.events import AuthData, DataChunk, DataEnd, DataStart, Event, Reset, StartTls
from posthouse.smtp.reply import Reply
from posthouse.smtp.server import Server
from posthouse.smtpd.sink.behaviour import GREYLISTED, NEEDS_TLS, WORDS, Behaviour
from posthouse.smtpd.sink.counts import code_of
from posthouse.smtpd.sink.journal import Entry, message_id
from posthouse.smtpd.sink.state import FAST_SIZE, State

_LABEL = rb"[A-Za-z0-9][A-Za-z0-9-]{0,39}"
_DOMAIN = rb"%s(?:\.%s){1,4}" % (_LABEL, _LABEL)
_LOCAL = rb"(?=[^@]{1,64}@)[A-Za-z0-9_=-]+(?:[.+][A-Za-z0-9_=-]+){0,3}"
_PLAIN = re.compile(
    rb"MAIL FROM:<((?:%s@%s)?)>(?: SIZE=[0-9]{1,7})?(?: BODY=(?:8BITMIME|7BIT))?\r\n"
    rb"RCPT TO:<((?!(?i:%s)[-+@])%s@%s)>\r\n"
    rb"(?:DATA|BDAT ([0-9]{1,7}) LAST)\r\n" % (_LOCAL, _DOMAIN, "|".join(WORDS).encode(), _LOCAL, _DOMAIN)
)
"""A part of what `smtp.server` accepts; 10,000,000 octets bound SIZE and BDAT."""

_SENDER_RECIPIENT = b"250 2.1.0 Sender ok\r\n250 2.1.5 Recipient ok\r\n"
_GO_AHEAD = _SENDER_RECIPIENT + b"354 End data with <CR><LF>.<CR><LF>\r\n"
_END = b"\r\n.\r\n"
_ACCEPTED = b"250 2.0.0 Ok\r\n"
_ALL_ACCEPTED = _SENDER_RECIPIENT + _ACCEPTED
_OK = Reply(250, "2.0.0", ("Ok",))
_HEAD = 65_536  # octets remembered for the Message-ID when messages are not kept


class Session(asyncio.Protocol):
    """:param state: shared by all sessions of a sink."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._core = Server(state.offer, state.options.limits)
        self._transport = cast(asyncio.Transport, None)
        self._idle = False
        self._begun: bytes | None = None  # the commands before a body on the fast path
        self._plain: re.Match[bytes] | None = None
        self._sender = ""
        self._recipients: list[str] = []
        self._final: list[Behaviour] = []
        self._body: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._upgrade: asyncio.Task[None] | None = None
        self._secure = False  # what comes now comes through TLS
        self._early: list[bytes] = []  # came through TLS before the upgrade was told
        self._tls: str | None = None
        self._peer = ""
        self._paused = False  # reading
        self._choked = False  # writing
        self.active = True

    # -- asyncio ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        self._state.opened(self)
        self._run()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        self._begun = None
        self._core.lost()
        self._state.closed(self)

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        self.active = True
        if self._begun is not None:
            if self._fast_body(data):
                return
        elif self._idle and self._fast(data):
            return
        if self._upgrade is not None:
            if self._secure:
                self._early.append(data)
            return  # in the clear after STARTTLS: dropped
        self._core.receive(data)
        self._run()

    def pause_writing(self) -> None:
        self._choked = True  # a peer that does not read our replies is not read either
        self._flow()

    def resume_writing(self) -> None:
        self._choked = False
        self._flow()

    def _flow(self) -> None:
        paused = self._choked or not self._core.wants_data
        if paused is not self._paused:
            self._paused = paused
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    def stop(self, reply: Reply) -> None:
        """Say 421 and close."""
        self._cancel()
        self._begun = None
        self._core.close(reply)
        self._run()

    # -- the fast path ------------------------------------------------------------------

    def _fast(self, data: bytes) -> bool:
        """Whether `data` was one plain transaction, or its commands up to DATA, and was answered."""
        plain = _PLAIN.match(data)
        if plain is None or (self._state.mixed and self._state.behaviours.draw(plain[2]) is not None):
            return False
        rest = len(data) - plain.end()
        octets = plain[3]
        if octets is None:
            if rest == 0:
                self._begun, self._plain = data, plain
                self._transport.write(_GO_AHEAD)
            return rest == 0
        if rest != int(octets):
            return False
        body = data[plain.end() :]
        good = not self._state.check or BodyCheck(FAST_SIZE).look(body)
        if good:
            self._accepted_fast(plain, body)
            self._transport.write(_ALL_ACCEPTED)
        return good

    def _fast_body(self, data: bytes) -> bool:
        """Whether `data` was the whole body of the transaction begun; else the core takes over."""
        begun, plain = self._begun, self._plain
        assert begun is not None
        assert plain is not None
        self._begun = None
        state = self._state
        dot = data.find(b"\r\n." if state.check or state.records else _END)
        end = dot if dot < 0 or data.startswith(_END, dot) else data.find(_END, dot)
        if end > 0 and end == len(data) - 5 and data[0] != 0x2E:
            body = data[: end + 2]
            if dot < end:
                body = body.replace(b"\r\n.", b"\r\n")
            if not state.check or BodyCheck(FAST_SIZE).look(body):
                self._accepted_fast(plain, body)
                self._transport.write(_ACCEPTED)
                return True
        self._core.receive(begun)
        self._listen()
        self._core.take()  # said already
        return False

    def _accepted_fast(self, plain: re.Match[bytes], body: bytes) -> None:
        state = self._state
        now = time.time()
        state.counts.accept(1, len(body), now)
        self._core.forgive()
        if state.records:
            to = [plain[2].decode()]
            sender = plain[1].decode()
            entry = Entry(now, sender, to, "250 2.0.0", "data", len(body), message_id(body), self._tls, self._peer)
            state.record(entry, body)
        if state.counting:
            state.count()

    # -- the whole protocol -------------------------------------------------------------

    def _run(self) -> None:
        """Decide what can be decided, write what is to be said."""
        self._listen()
        core = self._core
        out = core.take()
        latency = self._state.options.latency
        if out and latency:
            asyncio.get_running_loop().call_later(latency, self._transport.write, out)
        elif out:
            self._transport.write(out)
        if core.closed:
            self._idle = False
            if latency:
                asyncio.get_running_loop().call_later(latency, self._transport.close)
            else:
                self._transport.close()
            return
        self._idle = self._state.fast and core.idle
        self._flow()

    def _listen(self) -> None:
        while (event := self._core.next_event()) is not None:
            self._on(event)

    def _on(self, event: Event) -> None:
        match event:
            case DataChunk():
                self._collect(event.data)
            case Rcpt():
                self._on_rcpt(event.forward_path)
            case Mail():
                self._forget()
                self._sender = event.reverse_path
                self._core.accept()
            case DataStart():
                self._on_start()
            case DataEnd():
                self._on_end(event.size)
            case Reset():
                if event.refused is not None:
                    self._refused(event.refused, "data", self._recipients)
                self._forget()
            case StartTls():
                self._core.accept()
                self._upgrade = asyncio.get_running_loop().create_task(self._start_tls())
            case AuthData(response=None):
                pass
            case _:
                self._core.accept()

    def _on_rcpt(self, recipient: str) -> None:
        behaviour = self._state.behaviours.of(recipient)
        if behaviour is None:
            self._take(recipient)
        elif behaviour.stage != "rcpt":
            self._final.append(behaviour)
            self._take(recipient)
        elif behaviour.kind == "slow":
            self._later(behaviour, lambda: self._take(recipient))
        elif behaviour.kind == "drop":
            self._drop("rcpt", [recipient])
        else:
            reply = self._refusal(behaviour, recipient)
            if reply is None:
                self._take(recipient)
            else:
                self._refused(reply, "rcpt", [recipient])
                self._core.reject(reply)

    def _refusal(self, behaviour: Behaviour, recipient: str) -> Reply | None:
        match behaviour.kind:
            case "tls":
                return None if self._core.tls else NEEDS_TLS
            case "greylist":
                seconds = behaviour.seconds if behaviour.seconds is not None else self._state.options.greylist
                waits = self._state.greylisted((self._peer, self._sender, recipient), seconds)
                return GREYLISTED if waits else None
            case _:
                again = behaviour.times == 0 or self._state.tried((self._sender, recipient)) <= behaviour.times
                return behaviour.reply if again else None

    def _take(self, recipient: str) -> None:
        self._recipients.append(recipient)
        self._core.accept()

    def _on_start(self) -> None:
        if any(behaviour.kind == "drop" and behaviour.stage == "data" for behaviour in self._final):
            self._drop("data", self._recipients)
        else:
            self._core.accept()

    def _collect(self, data: bytes) -> None:
        if self._state.keeps or (self._state.records and self._size < _HEAD):
            self._body.append(data)
        self._size += len(data)

    def _on_end(self, size: int) -> None:
        slow = [behaviour for behaviour in self._final if behaviour.kind == "slow"]
        if slow:
            self._later(max(slow, key=lambda behaviour: behaviour.seconds or 0.0), lambda: self._finish(size))
        else:
            self._finish(size)

    def _finish(self, size: int) -> None:
        for behaviour in self._final:
            if behaviour.kind == "drop":
                self._drop("data", self._recipients)
                return
            if behaviour.reply is not None:
                self._refused(behaviour.reply, "data", self._recipients)
                self._forget()
                self._core.reject(behaviour.reply)
                return
        self._accepted(size)
        self._core.accept(_OK)
        if self._state.counting:
            self._state.count()

    def _accepted(self, size: int) -> None:
        state = self._state
        now = time.time()
        state.counts.accept(len(self._recipients), size, now)
        if state.records:
            state.record(self._entry(now, "250 2.0.0", "data", self._recipients), b"".join(self._body))
        self._forget()

    def _entry(self, now: float, outcome: str, stage: str, to: list[str]) -> Entry:
        identity = message_id(b"".join(self._body))
        return Entry(now, self._sender, list(to), outcome, stage, self._size, identity, self._tls, self._peer)

    def _refused(self, reply: Reply, stage: str, recipients: list[str]) -> None:
        self._state.counts.refuse(reply)
        self._note(code_of(reply), stage, recipients)

    def _drop(self, stage: str, recipients: list[str]) -> None:
        self._state.counts.dropped += 1
        self._note("dropped", stage, recipients)
        self._core.lost()

    def _note(self, outcome: str, stage: str, recipients: list[str]) -> None:
        if self._state.journal is not None:
            self._state.journal.add(self._entry(time.time(), outcome, stage, recipients))

    def _forget(self) -> None:
        self._recipients = []
        self._final.clear()
        self._body.clear()
        self._size = 0

    def _later(self, behaviour: Behaviour, act: Callable[[], None]) -> None:
        def due() -> None:
            self._timer = None
            act()
            self._run()

        seconds = behaviour.seconds if behaviour.seconds is not None else self._state.options.slow
        self._timer = asyncio.get_running_loop().call_later(seconds, due)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _start_tls(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(self._state.options.latency)  # the reply has to be out first
            context = self._state.context()
            self._secure = True  # start_tls takes the transport over before it first waits
            transport = await loop.start_tls(self._transport, self, context, server_side=True, ssl_handshake_timeout=30)
        except (OSError, ssl.SSLError):  # the peer gave up or speaks no TLS
            self._transport.abort()
            return
        if transport is None or self._core.closed:
            return
        self._transport = transport
        self._upgrade = None
        version = transport.get_extra_info("ssl_object")
        self._tls = version.version() if version is not None else "TLS"
        self._state.counts.tls += 1
        self._core.tls_started()
        for data in self._early:
            self._core.receive(data)
        self._early.clear()
        self._run()
