"""What a client's session is asked for and how it ends, as frozen types.

Every way to end says the stage, whose words the reply is (the peer's or ours), and whether
the message may have been accepted all the same.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TypeAlias

import msgspec

from posthouse.errors import Error
from posthouse.smtp.capabilities import Capabilities
from posthouse.smtp.parameter import Notify, OriginalRecipient, Ret
from posthouse.smtp.reply import Reply


class Stage(StrEnum):
    """The reply (or the step) that was awaited."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    TLS = "tls"
    AUTH = "auth"
    IDLE = "idle"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BLOCK = "block"
    """Content is being sent."""
    FINAL = "final"
    """All content is sent; the reply to it decides."""
    QUIT = "quit"
    CLOSED = "closed"


AWAITED = {
    Stage.GREETING: "while waiting for the greeting",
    Stage.EHLO: "while waiting for the reply to EHLO",
    Stage.STARTTLS: "while waiting for the reply to STARTTLS",
    Stage.AUTH: "while authenticating",
    Stage.RSET: "while waiting for the reply to RSET",
    Stage.MAIL: "while waiting for the reply to MAIL",
    Stage.RCPT: "while waiting for the reply to RCPT",
    Stage.DATA: "while waiting for the reply to DATA",
    Stage.BLOCK: "while sending the content",
    Stage.FINAL: "while waiting for the reply to the content",
}
"""In words, for replies of our own."""


class Cause(StrEnum):
    """Why a session is over."""

    REFUSED = "refused"
    """By a reply of the peer."""
    UNREACHABLE = "unreachable"
    LOST = "lost"
    """The peer closed or reset the connection."""
    TIMEOUT = "timeout"
    GARBLED = "garbled"
    """What the peer said is not SMTP."""
    TLS_FAILED = "tls_failed"
    """The handshake failed, or a certificate was not what the policy asks for."""
    TLS_MISSING = "tls_missing"
    """TLS is required and the peer does not offer it, or refused it."""
    AUTH_MISSING = "auth_missing"
    """No mechanism that we may use is offered here."""


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds to wait for each reply: RFC 5321 §4.5.3.2, and what it leaves open."""

    greeting: float = 300.0  # §4.5.3.2.1
    ehlo: float = 300.0
    starttls: float = 120.0
    tls: float = 60.0
    auth: float = 180.0
    rset: float = 60.0
    mail: float = 300.0  # §4.5.3.2.2
    rcpt: float = 300.0  # §4.5.3.2.3
    data: float = 120.0  # §4.5.3.2.4
    block: float = 180.0  # §4.5.3.2.5, without any progress
    final: float = 600.0  # §4.5.3.2.6
    quit: float = 5.0
    """Nothing depends on the answer to QUIT."""


class Peer(msgspec.Struct, frozen=True):
    """Whom we talk to. `tls` and `cipher` as the ssl module names them, None in plain text."""

    host: str
    ip: str | None = None
    port: int = 25
    tls: str | None = None
    cipher: str | None = None
    verified: bool = False


class Envelope(msgspec.Struct, frozen=True):
    """Of one transaction. `reverse_path` is empty for the null path.

    `smtputf8`: the message needs it (an address or a header field is not ASCII);
    `body_8bit`: the content has octets over 127. `orcpt` is parallel to `recipients`, or empty.
    """

    reverse_path: str
    recipients: tuple[str, ...]
    smtputf8: bool = False
    body_8bit: bool = False
    ret: Ret | None = None
    envid: str | None = None
    notify: tuple[Notify, ...] = ()
    orcpt: tuple[OriginalRecipient | None, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """The session is over. `reply` is the peer's last word, or ours when `local`."""

    stage: Stage
    cause: Cause
    reply: Reply
    local: bool = True
    detail: str = ""
    without_tls: bool = False
    """The policy allows to connect again and not to use STARTTLS."""


class Delivery(msgspec.Struct, frozen=True):
    """How one transaction ended. `replies` decide: one for each recipient, in order, the
    refusal it met or the reply to the message.
    """

    replies: tuple[Reply, ...]
    final: Reply | None
    """The peer's reply to the content; None when it did not come to that."""
    stage: Stage
    peer: Peer
    unknown: bool = False
    """The connection broke when the content was sent and not answered: perhaps accepted."""
    ours: frozenset[int] = frozenset()
    """The recipients, by index, whose reply is in our words: the peer could not take the message
    (size, SMTPUTF8, 8BITMIME) or the address, had too many recipients, or did not answer."""
    failure: Failure | None = None
    """The session broke; this connection is of no more use."""


class UseTls(Enum):
    """What to do about STARTTLS."""

    NEVER = "never"
    OFFERED = "offered"
    """When the server offers it; in plain text when not."""
    REQUIRED = "required"
    DONE = "done"
    """The connection is encrypted from its first byte."""


class StartTls(msgspec.Struct, frozen=True):
    """The server waits for the handshake. Nothing may be read until it begins."""


class Ready(msgspec.Struct, frozen=True):
    """The session is open for `deliver`."""

    capabilities: Capabilities


class Closed(msgspec.Struct, frozen=True):
    """QUIT was answered, or the peer closed an idle connection with `reply` or without."""

    reply: Reply | None = None


Event: TypeAlias = StartTls | Ready | Delivery | Failure | Closed


class SessionFailed(Error):
    """No session came about; `failure` says at which stage and why."""

    code = "smtp_session_failed"
    status = 502
    enhanced = "4.4.0"
    temporary = True
    title = "The mail server could not be used"

    def __init__(self, failure: Failure, peer: Peer) -> None:
        super().__init__(str(failure.reply), detail=failure.detail)
        self.failure = failure
        self.peer = peer
        self.temporary = not failure.reply.permanent
        self.enhanced = failure.reply.enhanced or self.enhanced
