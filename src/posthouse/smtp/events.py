"""What a server session tells its shell. `Hello`, `Mail`, `Rcpt` and `Auth` are the commands themselves.

Events marked (answer) hold the session until the shell calls `accept` or `reject`; that may
be much later. The others are only told.
"""

from __future__ import annotations

import msgspec

from posthouse.smtp.command import Auth, Hello, Mail, Rcpt
from posthouse.smtp.reply import Reply


class Connected(msgspec.Struct, frozen=True, gc=False):
    """(answer) The greeting is due. Refused with 421 the connection closes; with 554 it only takes QUIT."""


class StartTls(msgspec.Struct, frozen=True, gc=False):
    """(answer) After `accept`: write what is there, upgrade the transport, call `tls_started`."""


class AuthData(msgspec.Struct, frozen=True, gc=False):
    """(answer) The client's response to a `challenge`, decoded; None when it gave up (no answer then)."""

    response: bytes | None


class DataStart(msgspec.Struct, frozen=True, gc=False):
    """(answer) A body is about to come; `chunked` by BDAT, else by DATA."""

    chunked: bool


class DataChunk(msgspec.Struct, frozen=True, gc=False):
    """Octets of the body, unstuffed. They never end between CR and LF but at the very end."""

    data: bytes


class DataEnd(msgspec.Struct, frozen=True, gc=False):
    """(answer) The body is whole, `size` octets; LMTP answers with `answer_each`."""

    size: int


class Reset(msgspec.Struct, frozen=True, gc=False):
    """The open transaction is over without a message: forget what was collected.

    `refused` is the reply that the session itself gave or will give; None when the client
    (RSET, EHLO, QUIT, STARTTLS) or the network ended it.
    """

    refused: Reply | None = None


Event = Connected | Hello | Mail | Rcpt | Auth | AuthData | StartTls | DataStart | DataChunk | DataEnd | Reset
