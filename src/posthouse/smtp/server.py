"""The receiving side of SMTP and LMTP without sockets: bytes in, events and replies out.

    server.receive(data)
    while (event := server.next_event()) is not None:
        ...                    # decide; server.accept() or server.reject(reply), now or later
    transport.write(server.take())

While an event waits for its answer nothing further is read, so decisions may take their
time and order is kept. Replies of one group of pipelined commands come out of `take` as one
write (RFC 2920 §3.2). The session never collects a body and keeps no more than what it was
fed and has not yet looked at: feed it again only while `wants_data`.

Line ends are CR LF. A bare LF in a command, or a BDAT whose size cannot be read, ends the
session, since nobody can say any more where the next command begins; a body with a bare CR,
a bare LF or a NUL is read to its true end and refused with 550 5.6.11.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from posthouse.smtp import answers as say
from posthouse.smtp.body import BodyCheck, DotDecoder
from posthouse.smtp.command import MAX_AUTH, Auth, BadCommand, Bdat, Body, Command, Hello, Mail, Rcpt, Verb, parse
from posthouse.smtp.events import AuthData, Connected, DataEnd, DataStart, Event, StartTls
from posthouse.smtp.reply import Reply
from posthouse.smtp.session import Phase, Session, encode


class Server(Session):
    """One session. The first event is `Connected`.

    :param tls: the transport is TLS already (implicit TLS).
    """

    # -- what the shell sees ------------------------------------------------------------

    def next_event(self) -> Event | None:
        """None: feed more, or answer the event that waits, or (`closed`) close."""
        events = self._events
        while self._waiting is None:
            if events:
                event = events.popleft()
                if type(event) in _ANSWERED and event is not _GAVE_UP:
                    self._waiting = event
                return event
            if not self._step():
                return None
            events = self._events  # a session that ended has new ones
        return None

    def accept(self, reply: Reply | None = None) -> None:
        """Answer the event that waits. The reply is a usual one when left out."""
        self._answer(self._answered(), True, reply)

    def reject(self, reply: Reply) -> None:
        """Refuse what the event asked for; 421 also closes the connection (RFC 5321 §3.8)."""
        event = self._answered()
        if reply.code == 421:
            self.close(reply)
        else:
            self._answer(event, False, reply)

    def answer_each(self, replies: Sequence[Reply]) -> None:
        """LMTP (RFC 2033 §4.2): answer `DataEnd` with a reply per accepted recipient, in order."""
        if not isinstance(self._waiting, DataEnd) or len(replies) != self._accepted:
            raise ValueError("a reply per accepted recipient is due at the end of data")
        self._waiting = None
        for reply in replies:
            self._say(reply)
        self._finished(good=any(reply.ok for reply in replies))

    def challenge(self, data: bytes) -> None:
        """Answer `Auth` or `AuthData` with a challenge (RFC 4954 §4); the next event is `AuthData`."""
        event = self._answered()
        if not isinstance(event, Auth | AuthData):
            raise TypeError("only an authentication takes a challenge")
        self._out.append(b"334 " + base64.b64encode(data) + b"\r\n")
        self._phase = Phase.AUTH

    # -- reading ------------------------------------------------------------------------

    def _step(self) -> bool:
        """Look at some of the buffer. False when there is not enough of it."""
        phase = self._phase
        if Phase.NEW < phase <= Phase.AUTH:  # COMMAND or AUTH
            return self._read_line()
        if phase == Phase.DATA:
            return self._read_data()
        if phase == Phase.CHUNK:
            return self._read_chunk()
        return phase == Phase.END and self._read_end()

    def _read_line(self) -> bool:
        buffer, start = self._buffer, self._at
        feed = buffer.find(b"\n", start)
        if feed < 0:
            if len(buffer) - start > MAX_AUTH:
                self._skipping, self._buffer, self._at = True, buffer[-1:], 0  # it may be the CR
            return False
        if feed == start or buffer[feed - 1] != 0x0D:
            self.close(say.BARE_LINE)
            return True
        self._at = feed + 1
        line = buffer[start : feed - 1]
        if self._skipping or len(line) > MAX_AUTH:
            self._skipping = False
            self._long_line()
        elif self._phase is Phase.AUTH:
            self._auth_line(line)
        else:
            self._command_line(line)
        return True

    def _long_line(self) -> None:
        if self._phase is Phase.AUTH:
            self._give_up(say.LINE_TOO_LONG)
        else:
            self._fail(say.LINE_TOO_LONG)

    def _command_line(self, line: bytes) -> None:
        try:
            command = parse(line, utf8=self._mail is not None and self._mail.smtputf8)
        except BadCommand as bad:
            if line[:4].upper() == b"BDAT":
                self.close(bad.reply)  # how many octets follow cannot be known
            else:
                self._fail(say.NO_SERVICE if self._refused else bad.reply)
            return
        if not self.offer.pipelining and self.buffered and not isinstance(command, Bdat):
            self.close(say.EARLY)
            return
        if self._refused and command != _QUIT:
            self._fail(say.NO_SERVICE)
        else:
            self._command(command)

    def _command(self, command: Command) -> None:
        match command:
            case Mail():
                self._mail_from(command)
            case Rcpt():
                self._rcpt_to(command)
            case Bdat():
                self._bdat(command)
            case Verb():
                self._verb(command.name)
            case Hello():
                self._hello(command)
            case Auth():
                self._auth(command)

    # -- commands -----------------------------------------------------------------------

    def _hello(self, command: Hello) -> None:
        if (command.verb == "LHLO") is not self.offer.lmtp:
            self._fail(say.UNKNOWN)  # RFC 2033 §4.1
        elif self._count_idle():
            self._abandon()  # RFC 5321 §4.1.4
            self._events.append(command)

    def _mail_from(self, command: Mail) -> None:
        wrong = self._mail_wrong(command)
        if wrong is not None:
            self._fail(wrong)
        elif self.limits.transactions and self._transactions >= self.limits.transactions:
            self.close(say.TOO_MANY_MAILS)
        else:
            self._events.append(command)

    def _mail_wrong(self, command: Mail) -> Reply | None:
        if self.hello is None:
            return say.HELLO_FIRST
        if self._mail is not None:
            return say.NESTED
        if self._unoffered(command):
            return say.BAD_PARAMETER
        if command.size is not None and command.size > self.limits.size:
            return say.FLAWS["size"]  # RFC 1870 §6.1
        return None

    def _unoffered(self, command: Mail) -> bool:
        offer = self.offer
        return (
            (command.size is not None and not offer.size)
            or (command.body is not None and not offer.eight_bit)
            or (command.body is Body.BINARY and not (offer.chunking and offer.binarymime))
            or (command.smtputf8 and not offer.smtputf8)
            or ((command.ret is not None or command.envid is not None) and not offer.dsn)
            or (command.auth is not None and not offer.auth)
        )

    def _rcpt_to(self, command: Rcpt) -> None:
        if self._mail is None:
            self._fail(say.MAIL_FIRST if self.hello else say.HELLO_FIRST)
        elif self._chunked:
            self._fail(say.IN_CHUNKS)
        elif not self.offer.dsn and (command.notify or command.orcpt):
            self._fail(say.BAD_PARAMETER)
        elif self._accepted >= self.limits.recipients:
            self._say(say.TOO_MANY_RECIPIENTS)
            self._count_refusal()
        else:
            self._events.append(command)

    def _verb(self, name: str) -> None:
        match name:
            case "DATA":
                self._data()
            case "QUIT":
                self.close(say.BYE)
            case "STARTTLS":
                self._starttls()
            case "EXPN":
                self._fail(say.OFF)
            case _:
                if self._count_idle():
                    if name == "RSET":
                        self._abandon()
                    self._say(_SIMPLE[name])

    def _data(self) -> None:
        wrong = self._body_wrong()
        if wrong is None and self._mail is not None and self._mail.body is Body.BINARY:
            wrong = say.NEEDS_BDAT
        if wrong is None and self._chunked:
            wrong = say.IN_CHUNKS
        if wrong is not None:
            self._fail(wrong)
        else:
            self._events.append(DataStart(chunked=False))

    def _body_wrong(self) -> Reply | None:
        if self.hello is None:
            return say.HELLO_FIRST
        if self._mail is None:
            return say.MAIL_FIRST
        if not self._accepted:
            return say.NO_RECIPIENTS if self._attempted else say.RCPT_FIRST
        return None

    def _bdat(self, command: Bdat) -> None:
        # The octets follow at once, whatever we think of them (RFC 3030 §2).
        if not self.offer.chunking:
            self.close(say.OFF)
            return
        self._left, self._last = command.size, command.last
        self._chunk_reply = self._body_wrong() or (say.CHUNK_REFUSED if self._chunk_failed else None)
        if self._chunk_reply is not None:
            self._phase = Phase.CHUNK
            return
        self._phase = Phase.CHUNK
        first, self._chunked = not self._chunked, True
        if self._flaw is None and self._check.size + command.size > self.limits.size:
            self._spoil(say.FLAWS["size"])
        elif first:
            self._phase = Phase.COMMAND
            self._events.append(DataStart(chunked=True))

    def _starttls(self) -> None:
        if not self.offer.starttls or self.tls:
            self._fail(say.OFF)
        elif self.hello is None:
            self._fail(say.HELLO_FIRST)
        else:
            self._abandon()
            self._events.append(StartTls())

    def _auth(self, command: Auth) -> None:
        if not self.offer.auth_open(tls=self.tls):
            self._fail(say.OFF)
        elif self.hello is None:
            self._fail(say.HELLO_FIRST)
        elif self.authenticated or self._mail is not None:
            self._fail(say.AUTH_NOW)  # RFC 4954 §4
        elif command.mechanism not in self.offer.auth:
            self._fail(say.AUTH_MECHANISM)
        else:
            self._events.append(command)

    def _auth_line(self, line: bytes) -> None:
        if line == b"*":
            self._give_up(say.AUTH_GIVEN_UP)
            return
        try:
            response = base64.b64decode(line, validate=True)
        except (binascii.Error, ValueError):
            self._give_up(say.BAD_BASE64)
            return
        self._phase = Phase.COMMAND
        self._events.append(AuthData(response))

    def _give_up(self, reply: Reply) -> None:
        self._phase = Phase.COMMAND
        self._events.append(_GAVE_UP)
        self._fail(reply)

    # -- answers ------------------------------------------------------------------------

    def _answered(self) -> Event:
        event, self._waiting = self._waiting, None
        if event is None:
            raise ValueError("no event waits for an answer")
        return event

    def _answer(self, event: Event, ok: bool, reply: Reply | None) -> None:
        match event:
            case Rcpt():
                self._answer_rcpt(ok, reply)
            case Mail():
                self._answer_mail(event, ok, reply)
            case DataStart():
                self._answer_start(event, ok, reply)
            case DataEnd():
                self._say_each(reply or say.OK)
                self._finished(good=ok)
            case Connected():
                self._answer_connected(ok, reply)
            case Hello():
                self._answer_hello(event, ok, reply)
            case StartTls():
                self._answer_tls(ok, reply)
            case _:
                self._answer_auth(ok, reply)

    def _answer_connected(self, ok: bool, reply: Reply | None) -> None:
        self._refused = not ok
        self._phase = Phase.COMMAND
        kind = "LMTP" if self.offer.lmtp else "ESMTP"
        self._say(reply or Reply(220, None, (f"{self.offer.hostname} {kind} Posthouse",)))

    def _answer_hello(self, event: Hello, ok: bool, reply: Reply | None) -> None:
        if not ok:
            self._say(reply or say.HELLO_FIRST)
            return
        self.hello = event
        lines = (self.offer.hostname,)
        if event.verb != "HELO":
            lines = self.offer.lines(self.limits, tls=self.tls, authenticated=self.authenticated)
        self._out.append(encode(reply or Reply(250, None, lines), False))

    def _answer_mail(self, event: Mail, ok: bool, reply: Reply | None) -> None:
        if ok:
            self._mail = event
            self._check = BodyCheck(self.limits.size, self.limits.text_line, binary=event.body is Body.BINARY)
        self._say(reply or say.SENDER_OK)

    def _answer_rcpt(self, ok: bool, reply: Reply | None) -> None:
        self._attempted = True
        self._say(reply or say.RECIPIENT_OK)
        if ok:
            self._accepted += 1
        else:
            self._count_refusal()

    def _answer_start(self, event: DataStart, ok: bool, reply: Reply | None) -> None:
        if event.chunked:
            self._phase = Phase.CHUNK
            self._flaw = None if ok else reply  # said when the octets are through
        elif ok:
            self._phase = Phase.DATA
            self._dots = DotDecoder()
            self._say(reply or say.GO_AHEAD)
        else:
            self._say(reply or say.NO_SERVICE)
            self._forget()

    def _answer_tls(self, ok: bool, reply: Reply | None) -> None:
        self._say(reply or say.READY_FOR_TLS)
        if ok:
            self._phase = Phase.TLS
            self._buffer, self._at = b"", 0  # nothing injected in the clear survives

    def _answer_auth(self, ok: bool, reply: Reply | None) -> None:
        self.authenticated = ok
        if ok:
            self._say(reply or say.AUTHENTICATED)
        else:
            self._fail(reply or say.AUTH_FAILED)


_GAVE_UP = AuthData(None)
_SIMPLE = {"NOOP": say.OK, "RSET": say.OK, "VRFY": say.CANNOT_VERIFY, "HELP": say.HELP}
_QUIT = Verb("QUIT")
_ANSWERED = frozenset({Connected, Hello, Mail, Rcpt, DataStart, DataEnd, StartTls, Auth, AuthData})
