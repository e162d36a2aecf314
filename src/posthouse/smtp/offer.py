"""What a server announces after EHLO, and the bounds it keeps.

The minimum that RFC 5321 §4.5.3.1 asks of every server stands beside each constant; the
lengths of command lines and paths are kept by `command.py` and `path.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

RECIPIENTS_MIN = 100
"""RFC 5321 §4.5.3.1.8: a server must take at least as many recipients."""
MESSAGE_MIN = 65_536
"""RFC 5321 §4.5.3.1.7: a server must take at least as many octets."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one session. Counts start anew with each connection.

    `size`: octets of a message (announced, RFC 1870, and counted). `text_line`: octets of a
    line of a message, 0 for any length. `recipients`: of one transaction. `refusals`: recipients
    refused, `errors`: commands refused, `idle`: commands that move no mail, each in a row
    without a message accepted. `transactions`: of one connection, 0 for any number.
    """

    size: int = 36 * 1024 * 1024
    text_line: int = 1000
    recipients: int = 1000
    refusals: int = 100
    errors: int = 10
    idle: int = 100
    transactions: int = 0

    def __post_init__(self) -> None:
        if self.recipients < 1 or self.size < 1 or min(self.errors, self.refusals, self.idle) < 0:
            raise ValueError("a limit of a session is below its least value")


EXTENSIONS = ("pipelining", "eight_bit", "smtputf8", "chunking", "binarymime", "enhanced", "dsn", "size", "limits")
"""Names of those that can be turned off: fields of `Offer`."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The server's name and its extensions.

    `starttls` and `auth` (SASL mechanisms) are off until the shell can do them; AUTH is
    announced without TLS only when `auth_in_clear` is set.
    """

    hostname: str
    pipelining: bool = True  # RFC 2920
    eight_bit: bool = True  # RFC 6152
    smtputf8: bool = True  # RFC 6531
    chunking: bool = True  # RFC 3030 §2
    binarymime: bool = True  # RFC 3030 §3; needs CHUNKING
    enhanced: bool = True  # RFC 2034
    dsn: bool = True  # RFC 3461
    size: bool = True  # RFC 1870; counted even when not announced
    limits: bool = True  # RFC 9422
    starttls: bool = False  # RFC 3207
    auth: tuple[str, ...] = ()  # RFC 4954
    auth_in_clear: bool = False
    lmtp: bool = False  # RFC 2033

    def lines(self, limits: Limits, *, tls: bool, authenticated: bool) -> tuple[str, ...]:
        """The lines of the answer to EHLO, the name first."""
        words = [
            (self.pipelining, "PIPELINING"),
            (self.size, f"SIZE {limits.size}"),
            (self.starttls and not tls, "STARTTLS"),
            (self.auth_open(tls=tls) and not authenticated, f"AUTH {' '.join(self.auth)}"),
            (self.enhanced, "ENHANCEDSTATUSCODES"),
            (self.eight_bit, "8BITMIME"),
            (self.smtputf8, "SMTPUTF8"),
            (self.dsn, "DSN"),
            (self.chunking, "CHUNKING"),
            (self.chunking and self.binarymime, "BINARYMIME"),
            (self.limits, _limits(limits)),
        ]
        return (self.hostname, *(word for offered, word in words if offered))

    def auth_open(self, *, tls: bool) -> bool:
        return bool(self.auth) and (tls or self.auth_in_clear)


def _limits(limits: Limits) -> str:
    most = f" MAILMAX={limits.transactions}" if limits.transactions else ""
    return f"LIMITS RCPTMAX={limits.recipients}{most}"  # RFC 9422 §5
