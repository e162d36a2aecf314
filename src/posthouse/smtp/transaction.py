"""One mail transaction as a state machine: MAIL, RCPT for each recipient, then the content.

With PIPELINING and CHUNKING a message of up to 64 KiB is one write and its replies one read.
Larger ones wait for the replies to RCPT, so that content is not sent for nothing.

    replies awaited, in order:  RSET?  MAIL  RCPT × n  DATA?  FINAL

`wire` is what to write now; `blocks` follow it as the transport has room for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from posthouse.errors import Invalid
from posthouse.smtp.capabilities import Capabilities
from posthouse.smtp.command import Body, Mail, Rcpt
from posthouse.smtp.content import blocks, dotted
from posthouse.smtp.outcome import Delivery, Envelope, Failure, Peer, Stage
from posthouse.smtp.parameter import Notify, OriginalRecipient
from posthouse.smtp.reply import ProtocolViolation, Reply

ONE_WRITE = 65_536
"""Octets of content that go out with the commands, before the first reply."""


def local_refusal(envelope: Envelope, octets: int, capabilities: Capabilities) -> Reply | None:
    """Why this peer cannot take this message at all, in our words; None when it can."""
    if capabilities.size is not None and octets > capabilities.size:
        return Reply(552, "5.3.4", (f"The message has {octets} octets and the server takes {capabilities.size}",))
    if envelope.smtputf8 and not (capabilities.smtputf8 and capabilities.eight_bit):
        return Reply(550, "5.6.7", ("The message needs SMTPUTF8 and the server does not offer it",))  # RFC 6531 §3.5
    if envelope.body_8bit and not capabilities.eight_bit:
        return Reply(554, "5.6.3", ("The message needs 8BITMIME and the server does not offer it",))  # RFC 6152 §3
    return None


class Transaction:
    """`content` is canonical (see content.py). After each `on_reply`, write `wire`, then blocks
    while there are. Recipients whose address cannot be sent are refused in our words, those over
    the peer's LIMITS are put off; when none is left, it is `done` from the start.

    :raises Invalid: the reverse-path or a parameter cannot be sent.
    """

    __slots__ = (
        "_accepted",
        "_blocks",
        "_capabilities",
        "_commands",
        "_content",
        "_content_sent",
        "_count",
        "_data_refusal",
        "_final",
        "_mail_refusal",
        "_ours",
        "_replies",
        "_sent",
        "_step",
        "_targets",
        "_void",
        "closing",
        "done",
        "stage",
        "unclean",
        "wire",
    )

    def __init__(self, envelope: Envelope, content: bytes, capabilities: Capabilities, *, reset: bool) -> None:
        self.done = False
        self.stage = Stage.MAIL
        self.closing = False
        """The connection cannot be used after this."""
        self.unclean = False
        """The peer may still hold this transaction: RSET comes before the next one."""
        self._capabilities = capabilities
        self._content = content
        self._content_sent = False
        self._blocks: Iterator[memoryview] | None = None
        self._replies: list[Reply | None] = [None] * len(envelope.recipients)
        self._targets: Sequence[int] = range(len(envelope.recipients))
        """Indices of the recipients that RCPT is said for, in order."""
        self._ours: frozenset[int] = frozenset()
        self._accepted = 0
        self._mail_refusal: Reply | None = None
        self._data_refusal: Reply | None = None
        self._final: Reply | None = None
        self._void = False
        """Content is awaited though nobody is to get it."""
        self._step = 0
        """What the next reply is for: 0 MAIL, 1 … count RCPT, then DATA or the content."""
        self._sent = 0
        """Commands written so far; their replies may still be awaited."""
        self._commands = [_mail(envelope, len(content), capabilities)]
        self._add_recipients(envelope)
        self._count = len(self._targets)
        self.wire = b""
        if not self._count:
            self.done = True
        elif reset:
            # Never pipelined: were RSET refused, content could reach the recipients before it.
            self._step = -1
            self.stage = Stage.RSET
            self.wire = b"RSET\r\n"
        else:
            self._start()

    def _add_recipients(self, envelope: Envelope) -> None:
        capabilities = self._capabilities
        notify: tuple[Notify, ...] = envelope.notify if capabilities.dsn else ()
        originals: tuple[OriginalRecipient | None, ...] = envelope.orcpt if capabilities.dsn else ()
        count = len(envelope.recipients)
        if count > (capabilities.recipients_max or count) or count > (capabilities.domains_max or count):
            self._limit(envelope.recipients)
        for index in self._targets:
            original = originals[index] if index < len(originals) else None
            command = Rcpt(envelope.recipients[index], notify, original)
            try:
                self._commands.append(command.encode(utf8=envelope.smtputf8))
            except Invalid as error:
                self._replies[index] = _refusal(error, "5.1.3")
        self._leave_out()

    def _limit(self, recipients: tuple[str, ...]) -> None:
        """Put off those over RCPTMAX and RCPTDOMAINMAX (RFC 9422 §4)."""
        most = self._capabilities.recipients_max or len(recipients)
        domains = self._capabilities.domains_max or len(recipients)
        seen: set[str] = set()
        for index, recipient in enumerate(recipients):
            seen.add(recipient.rpartition("@")[2].lower())
            if index >= most or len(seen) > domains:
                text = f"Not tried: the server takes {index} of these recipients at a time"
                self._replies[index:] = [Reply(452, "4.5.3", (text,))] * (len(recipients) - index)
                break
        self._leave_out()

    def _leave_out(self) -> None:
        """Whoever has a reply already has it from us."""
        if len(self._commands) <= len(self._replies):
            self._ours = frozenset(index for index, reply in enumerate(self._replies) if reply is not None)
            self._targets = [index for index, reply in enumerate(self._replies) if reply is None]

    def _start(self) -> None:
        capabilities = self._capabilities
        if not capabilities.pipelining:
            self._send_next()
            return
        commands = self._commands
        self._sent = len(commands)
        if not capabilities.chunking:
            self._sent += 1
            commands.append(b"DATA\r\n")
        elif len(self._content) <= ONE_WRITE:
            self._sent += 1
            self._content_sent = True
            commands.append(b"BDAT %d LAST\r\n" % len(self._content))
            commands.append(self._content)
        self.wire = b"".join(commands)

    def _send_next(self) -> None:
        self.wire = self._commands[self._sent]
        self._sent += 1

    def on_reply(self, reply: Reply) -> None:
        """The next reply of the peer; `done` at the last one.

        :raises ProtocolViolation: a reply that cannot come here.
        """
        step = self._step
        self._step = step + 1
        if reply.code == 421:
            self._on_shutdown(step, reply)
        elif step > self._count:
            self._on_content(reply)
        elif 300 <= reply.code < 400:
            raise ProtocolViolation("The server asks for content too early", detail=str(reply))
        elif step > 0:
            self._on_rcpt(step, reply)
        elif step == 0:
            self._on_mail(reply)
        elif reply.ok:
            self.stage = Stage.MAIL
            self._start()
        else:
            raise ProtocolViolation("The server refuses to start over", detail=str(reply))

    def _on_mail(self, reply: Reply) -> None:
        if reply.ok:
            self.unclean = True
        else:
            self._mail_refusal = reply
            if self._sent == 1:
                self.done = True
                return
        self.stage = Stage.RCPT
        if self._sent == 1:
            self._send_next()

    def _on_rcpt(self, step: int, reply: Reply) -> None:
        if reply.ok:
            self._accepted += 1
        else:
            self._replies[self._targets[step - 1]] = reply
        if step < self._count:
            if step + 1 == self._sent:
                self._send_next()
        elif self._sent > step + 1:  # DATA or BDAT is out already
            self.stage = Stage.FINAL if self._content_sent else Stage.DATA
        elif not self._wanted:
            self.done = True
        elif self._capabilities.chunking:
            self._sent += 1
            self._write_content(b"BDAT %d LAST\r\n" % len(self._content), self._content)
        else:
            self._sent += 1
            self.stage = Stage.DATA
            self.wire = b"DATA\r\n"

    @property
    def _wanted(self) -> bool:
        """MAIL was accepted, and a recipient."""
        return self._accepted > 0 and self._mail_refusal is None

    def _on_content(self, reply: Reply) -> None:
        if self.stage is Stage.DATA:
            self._on_data(reply)
            return
        early = not self._content_sent
        if 300 <= reply.code < 400 or (early and reply.ok):
            raise ProtocolViolation("That is no reply to the content", detail=str(reply))
        self.closing = early  # the peer takes the rest of the content for commands
        self._blocks = None
        self._final = reply
        if reply.ok or not self._capabilities.chunking:  # a refused BDAT needs RSET
            self.unclean = False
        self.done = True

    def _on_data(self, reply: Reply) -> None:
        if reply.ok:
            raise ProtocolViolation("That is no reply to DATA", detail=str(reply))
        if reply.code >= 400:
            self._data_refusal = reply
            self.done = True
        elif self._wanted:
            self._write_content(b"", dotted(self._content))
        else:  # RFC 2920 §3.1: the peer waits for content, so end it at once
            self._void = True
            self._write_content(b"", b".\r\n")

    def _on_shutdown(self, step: int, reply: Reply) -> None:
        """421: the peer closes, and answers nothing that came after."""
        if step > self._count and self.stage is not Stage.DATA:
            self._final = reply
        self._replies = [reply if known is None else known for known in self._replies]
        self._blocks = None
        self.closing = self.done = True

    def _write_content(self, head: bytes, content: bytes) -> None:
        self._content = b""
        if len(content) <= ONE_WRITE:
            self.wire = head + content
            self._content_sent = True
            self.stage = Stage.FINAL
        else:
            self.wire = head
            self._blocks = blocks(content)
            self.stage = Stage.BLOCK

    @property
    def has_blocks(self) -> bool:
        return self._blocks is not None

    def next_block(self) -> memoryview | None:
        """The next part of the content to write, None after the last."""
        if self._blocks is None:
            return None
        block = next(self._blocks, None)
        if block is None:
            self._blocks = None
            self._content_sent = True
            self.stage = Stage.FINAL
        return block

    def result(self, peer: Peer) -> Delivery:
        """When `done`."""
        final = self._final
        if self._count == 1 == len(self._replies) and final is not None and self._wanted and not self.closing:
            return Delivery((final,), final, Stage.FINAL, peer)
        return self._delivery(self._data_refusal or final, self._ended_at(), peer)

    def _ended_at(self) -> Stage:
        if self._mail_refusal is not None:
            return Stage.MAIL
        if self.closing or self._accepted:
            return self.stage
        return Stage.RCPT

    def broken(self, failure: Failure, peer: Peer, *, sent: bool) -> Delivery:
        """The session broke before `done`: who has no refusal yet gets the failure's reply.

        :param sent: all of `wire` was taken.
        """
        unknown = sent and self._content_sent and not self._void and self._mail_refusal is None
        if self._step > self._count and not self._accepted:
            unknown = False
        return self._delivery(failure.reply, failure.stage, peer, failure, unknown=unknown)

    def _delivery(
        self, rest: Reply | None, stage: Stage, peer: Peer, failure: Failure | None = None, *, unknown: bool = False
    ) -> Delivery:
        """:param rest: the reply for who has none."""
        replies = self._replies
        ours = self._ours
        if self._mail_refusal is not None:
            for index in self._targets:
                replies[index] = self._mail_refusal
        elif failure is not None:
            ours = ours.union(index for index in self._targets if replies[index] is None)
        final = self._final if self._accepted else None
        decided = tuple(reply or rest for reply in replies)
        assert None not in decided, "a recipient without an outcome"
        return Delivery(cast("tuple[Reply, ...]", decided), final, stage, peer, unknown, ours, failure)


def _mail(envelope: Envelope, octets: int, capabilities: Capabilities) -> bytes:
    dsn = capabilities.dsn
    mail = Mail(
        envelope.reverse_path,
        size=octets if "SIZE" in capabilities.keywords else None,
        body=Body.EIGHT if envelope.body_8bit or envelope.smtputf8 else None,
        smtputf8=envelope.smtputf8,
        ret=envelope.ret if dsn else None,
        envid=envelope.envid if dsn else None,
    )
    return mail.encode()


def _refusal(error: Invalid, enhanced: str) -> Reply:
    """Of an address, in our words."""
    return Reply(553, "5.6.7" if error.code == "smtputf8_needed" else enhanced, (error.public,))


def sender_refusal(error: Invalid) -> Reply:
    return _refusal(error, "5.1.7")
