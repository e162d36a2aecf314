"""The SMTP client without sockets: bytes in, events and bytes out, one object a connection.

1. The shell connects, makes a `Client` and passes what it reads to `receive`.
2. After every call it writes what `take` returns, then `next_block` while it has room.
3. `receive` returns events: `StartTls` (do the handshake, then say `tls_started` or
   `tls_failed`), `Ready`, a `Delivery` for each `deliver`, and at the end a `Failure` or `Closed`.
4. `timeout` is how many seconds the peer has for the reply that is awaited now; it starts
   anew when `progress` changes. When it passes: `timed_out`. At the end of input: `lost`.

Sources: RFC 5321; 1870 SIZE; 2920 PIPELINING; 3030 CHUNKING; 3207 STARTTLS; 3461 DSN;
4954 AUTH; 6152 8BITMIME; 6531 SMTPUTF8; 9422 LIMITS.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from posthouse.errors import Conflict, Invalid
from posthouse.smtp import sasl
from posthouse.smtp.capabilities import Capabilities, parse_capabilities
from posthouse.smtp.command import MAX_AUTH, Auth, Hello
from posthouse.smtp.content import canonical as to_canonical
from posthouse.smtp.outcome import (
    AWAITED,
    Cause,
    Closed,
    Delivery,
    Envelope,
    Event,
    Failure,
    Peer,
    Ready,
    Stage,
    StartTls,
    Timeouts,
    UseTls,
)
from posthouse.smtp.reply import ProtocolViolation, Reply, ReplyParser, printable
from posthouse.smtp.transaction import Transaction, local_refusal, sender_refusal

_MAX_CHALLENGE = 8192


class Client:
    """:param tls: what the policy says about STARTTLS.
    :raises Invalid: `name`, which goes with EHLO, is no domain or address literal.
    """

    def __init__(
        self,
        name: str,
        peer: Peer,
        *,
        tls: UseTls = UseTls.OFFERED,
        credentials: sasl.Credentials | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.peer = peer
        self.capabilities = Capabilities()
        self.progress = 0
        """Changes with every reply; the deadline of `timeout` starts anew."""
        self.transactions = 0
        """How many MAIL commands this connection has carried."""
        self._hello = Hello("EHLO", name)
        self._hello.encode()
        self._tls = tls
        self._encrypted = tls is UseTls.DONE
        self._credentials = credentials
        self._mechanisms: list[str] = []
        self._exchange: sasl.Exchange | None = None
        self._challenge = ""
        self._timeouts = timeouts or Timeouts()
        self._parser = ReplyParser()
        self._wire = b""
        self._stage = Stage.GREETING
        self._transaction: Transaction | None = None
        self._unclean = False
        self._on_reply: Callable[[Reply], Event | None] = self._on_greeting

    # What the shell asks for

    @property
    def stage(self) -> Stage:
        transaction = self._transaction
        return self._stage if transaction is None else transaction.stage

    @property
    def timeout(self) -> float | None:
        """Seconds for the step that is awaited now; None when nothing is."""
        stage = self.stage
        return None if stage is Stage.IDLE or stage is Stage.CLOSED else getattr(self._timeouts, stage)

    @property
    def reusable(self) -> bool:
        """Another message can be delivered on this connection."""
        most = self.capabilities.mails_max  # RFC 9422 §4.1
        return self._stage is Stage.IDLE and (most is None or self.transactions < most)

    @property
    def closed(self) -> bool:
        return self._stage is Stage.CLOSED

    @property
    def has_blocks(self) -> bool:
        return self._transaction is not None and self._transaction.has_blocks

    def take(self) -> bytes:
        """What is to be written now, once."""
        wire = self._wire
        self._wire = b""
        return wire

    def next_block(self) -> memoryview | None:
        """More of a large message; ask again when there is room. None after the last."""
        if self._transaction is None:
            return None
        self.progress += 1
        return self._transaction.next_block()

    def deliver(self, envelope: Envelope, data: bytes, *, canonical: bool = False) -> Delivery | None:
        """Begin a transaction.

        :param data: the message; line ends are made CR LF.
        :param canonical: the caller vouches that every line ends in CR LF and nothing else
            is CR or LF, which saves the check (14 µs for 8 KiB).
        :returns: the outcome when this peer cannot take the message and nothing was sent.
        :raises Conflict: a transaction is in flight, or the connection is not `reusable`.
        """
        if not self.reusable or self._transaction is not None:
            raise Conflict("This connection cannot carry another message now", code="smtp_connection_busy")
        content = data if canonical else to_canonical(data)
        refusal = local_refusal(envelope, len(content), self.capabilities)
        if refusal is None:
            try:
                return self._begin(Transaction(envelope, content, self.capabilities, reset=self._unclean))
            except Invalid as error:
                refusal = sender_refusal(error)
        count = len(envelope.recipients)
        return Delivery((refusal,) * count, None, Stage.MAIL, self.peer, ours=frozenset(range(count)))

    def _begin(self, transaction: Transaction) -> Delivery | None:
        if transaction.done:
            return transaction.result(self.peer)
        self._transaction = transaction
        self._on_reply = self._on_transaction
        self._wire = transaction.wire
        transaction.wire = b""
        self.transactions += 1
        self.progress += 1
        return None

    def quit(self) -> bool:
        """Begin to close; the answer does not matter. False when this is no moment for it."""
        if self._stage is not Stage.IDLE or self._transaction is not None:
            return False
        self._stage = Stage.QUIT
        self._wire = b"QUIT\r\n"
        self.progress += 1
        return True

    # What the shell tells

    def receive(self, data: bytes) -> list[Event]:
        """Bytes from the peer; after the end they are ignored."""
        events: list[Event] = []
        if self._stage is Stage.CLOSED:
            return events
        parser = self._parser
        parser.feed(data)
        try:
            while (reply := parser.next()) is not None:
                self.progress += 1
                if self._wire and reply.code != 421:
                    _refuse_early(reply)
                event = self._on_reply(reply)
                if event is not None:
                    events.append(event)
                    if self._stage is Stage.TLS:
                        _refuse_plaintext(parser)
                    elif self.closed:
                        break
        except ProtocolViolation as violation:
            events = [event for event in events if not isinstance(event, StartTls)]
            reply = Reply(451, "4.5.0", (violation.public,))
            events += self._break(Failure(self.stage, Cause.GARBLED, reply, detail=violation.detail))
        return events

    def lost(self, detail: str = "") -> list[Event]:
        """The connection is at its end."""
        stage = self.stage
        if stage is Stage.CLOSED:
            return []
        if stage is Stage.IDLE or stage is Stage.QUIT:
            self._stage = Stage.CLOSED
            return [Closed()]
        if stage is Stage.TLS:  # some servers close when they cannot agree
            return self.tls_failed(detail or "the connection was lost")
        reply = Reply(451, "4.4.2", (f"The connection was lost {AWAITED[stage]}",))
        return self._break(Failure(stage, Cause.LOST, reply, detail=detail))

    def timed_out(self) -> list[Event]:
        """`timeout` has passed without progress."""
        stage = self.stage
        if stage is Stage.CLOSED or stage is Stage.IDLE:
            return []
        if stage is Stage.QUIT:
            self._stage = Stage.CLOSED
            return [Closed()]
        if stage is Stage.TLS:
            return self.tls_failed("the handshake took too long")
        reply = Reply(451, "4.4.2", (f"Time ran out {AWAITED[stage]}",))
        return self._break(Failure(stage, Cause.TIMEOUT, reply))

    def tls_started(self, peer: Peer) -> list[Event]:
        """The handshake is done; what was offered in plain text is forgotten (RFC 3207 §4.2)."""
        self.peer = peer
        self._encrypted = True
        self.capabilities = Capabilities()
        self._parser = ReplyParser()
        self._say_hello(Hello("EHLO", self._hello.domain))
        return []

    def tls_failed(self, detail: str) -> list[Event]:
        reply = Reply(451, "4.7.5", ("The TLS handshake failed",))
        again = self._tls is UseTls.OFFERED
        failure = Failure(Stage.TLS, Cause.TLS_FAILED, reply, detail=printable(detail), without_tls=again)
        return self._break(failure)

    # The states, each the handler of the next reply

    def _on_greeting(self, reply: Reply) -> Event | None:
        if reply.code == 220:
            self._say_hello(self._hello)
            return None
        if reply.code >= 400:
            return self._refused(Stage.GREETING, reply)
        raise ProtocolViolation("That is no SMTP greeting", detail=str(reply))

    def _say_hello(self, hello: Hello) -> None:
        self._hello = hello
        self._stage = Stage.EHLO
        self._on_reply = self._on_hello
        self._wire = hello.encode()
        self.progress += 1

    def _on_hello(self, reply: Reply) -> Event | None:
        if reply.ok:
            if self._hello.verb == "EHLO":
                self.capabilities = parse_capabilities(reply)
            return self._after_hello()
        if reply.permanent and self._hello.verb == "EHLO" and not self._encrypted:  # RFC 5321 §3.2
            self._say_hello(Hello("HELO", self._hello.domain))
            return None
        if reply.code >= 400:
            return self._refused(Stage.EHLO, reply)
        raise ProtocolViolation(f"That is no reply to {self._hello.verb}", detail=str(reply))

    def _after_hello(self) -> Event | None:
        if not self._encrypted and self._tls is not UseTls.NEVER:
            if self.capabilities.starttls:
                self._stage = Stage.STARTTLS
                self._on_reply = self._on_starttls
                self._wire = b"STARTTLS\r\n"
                return None
            if self._tls is UseTls.REQUIRED:
                return self._fail(Stage.STARTTLS, Cause.TLS_MISSING, "4.7.10", "TLS is required and not offered")
        return self._authenticate()

    def _on_starttls(self, reply: Reply) -> Event | None:
        if reply.code == 220:
            self._stage = Stage.TLS
            self._on_reply = self._on_idle
            return StartTls()
        if reply.code == 421:
            return self._refused(Stage.STARTTLS, reply)
        if reply.code < 400:
            raise ProtocolViolation("That is no reply to STARTTLS", detail=str(reply))
        if self._tls is UseTls.REQUIRED:
            # The refusal may be a 5xx, but the message is not at fault: another MX, or later.
            return self._fail(
                Stage.STARTTLS, Cause.TLS_MISSING, "4.7.10", "TLS is required and was refused", str(reply)
            )
        return self._authenticate()

    def _authenticate(self) -> Event | None:
        if self._credentials is None:
            return self._ready()
        allowed = self._credentials.allowed(encrypted=self._encrypted)
        offered = self.capabilities.auth
        self._mechanisms = [name for name in allowed if name in offered and sasl.known(name)]
        if not self._mechanisms:
            text = "No authentication that may be used here is offered"
            return self._fail(Stage.AUTH, Cause.AUTH_MISSING, "4.7.0", text, " ".join(sorted(offered)))
        return self._begin_auth()

    def _begin_auth(self) -> Event | None:
        assert self._credentials is not None
        mechanism = self._mechanisms.pop(0)
        self._exchange = sasl.begin(mechanism, self._credentials, host=self.peer.host, port=self.peer.port)
        self._challenge = ""
        wire = Auth(mechanism, self._exchange.initial).encode()
        if len(wire) > MAX_AUTH:
            return self._fail(Stage.AUTH, Cause.AUTH_MISSING, "4.7.0", "The credentials are too long for AUTH")
        self._stage = Stage.AUTH
        self._on_reply = self._on_auth
        self._wire = wire
        return None

    def _on_auth(self, reply: Reply) -> Event | None:
        if reply.code == 334:
            self._respond(reply)
            return None
        if reply.ok:
            self._exchange = None
            return self._ready()
        if reply.code < 400:
            raise ProtocolViolation("That is no reply to AUTH", detail=str(reply))
        if reply.code == 504 and self._mechanisms:  # RFC 4954 §4: not this mechanism after all
            return self._begin_auth()
        return self._refused(Stage.AUTH, reply, self._challenge)

    def _respond(self, reply: Reply) -> None:
        exchange = self._exchange
        if exchange is None:
            raise ProtocolViolation("The server goes on with an AUTH that was cancelled", detail=str(reply))
        try:
            challenge = base64.b64decode(reply.text[:_MAX_CHALLENGE], validate=True)
            answer = exchange.respond(challenge)
        except (sasl.Cancelled, binascii.Error, ValueError):
            self._wire = b"*\r\n"  # RFC 4954 §4: cancel; a 501 follows
            self._exchange = None
            return
        if exchange.initial is not None:  # what XOAUTH2 and OAUTHBEARER say went wrong
            self._challenge = printable(challenge[:500].decode("utf-8", "backslashreplace"))
        self._wire = base64.b64encode(answer) + b"\r\n"

    def _ready(self) -> Event:
        self._stage = Stage.IDLE
        self._on_reply = self._on_idle
        return Ready(self.capabilities)

    def _on_idle(self, reply: Reply) -> Event | None:
        if reply.code == 421 or self._stage is Stage.QUIT:
            self._wire = b""
            self._stage = Stage.CLOSED
            return Closed(reply)
        raise ProtocolViolation("The server answers what was not asked", detail=str(reply))

    def _on_transaction(self, reply: Reply) -> Event | None:
        transaction = self._transaction
        assert transaction is not None
        transaction.on_reply(reply)
        if not transaction.done:
            self._wire = transaction.wire
            transaction.wire = b""
            return None
        self._transaction = None
        self._on_reply = self._on_idle
        self._unclean = transaction.unclean
        if transaction.closing:
            self._wire = b""
            self._stage = Stage.CLOSED
        return transaction.result(self.peer)

    # Ends

    def _refused(self, stage: Stage, reply: Reply, detail: str = "") -> Failure:
        self._wire = b""
        self._stage = Stage.CLOSED
        return Failure(stage, Cause.REFUSED, reply, local=False, detail=detail)

    def _fail(self, stage: Stage, cause: Cause, enhanced: str, text: str, detail: str = "") -> Failure:
        self._wire = b""
        self._stage = Stage.CLOSED
        return Failure(stage, cause, Reply(451, enhanced, (text,)), detail=detail)

    def _break(self, failure: Failure) -> list[Event]:
        sent = not self._wire
        self._wire = b""
        transaction = self._transaction
        self._transaction = None
        self._stage = Stage.CLOSED
        if transaction is None:
            return [failure]
        return [transaction.broken(failure, self.peer, sent=sent), failure]


def _refuse_early(reply: Reply) -> None:
    """A reply to what was not sent yet says nothing about it: least of all that content was taken."""
    raise ProtocolViolation("The server answers before it was asked", detail=str(reply))


def _refuse_plaintext(parser: ReplyParser) -> None:
    if parser.pending:  # RFC 3207 §6: somebody injected it
        raise ProtocolViolation("There is plain text after the reply to STARTTLS")
