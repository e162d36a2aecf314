"""What a mail listener asks of the house: the decisions of one connection, in order.

Each answer is None (go on, with the usual reply), a reply (a refusal, or for `end` the
outcome), or an awaitable of it; the session reads nothing further until it is there. What is
known at once is answered at once, so that a busy listener makes no task for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from mmap import mmap
from typing import Protocol

from posthouse.smtp.command import Hello, Mail, Rcpt
from posthouse.smtp.peer import Peer, Tls
from posthouse.smtp.reply import Reply

Answer = Reply | None | Awaitable[Reply | None]


class Conversation(Protocol):
    """One connection. Methods are called in the order of the protocol; none raises."""

    def connected(self) -> Answer:
        """Before the greeting: a refusal with 421 or 554 ends it."""
        ...

    def early(self) -> None:
        """The client spoke before its greeting was out, as robots do (RFC 5321 §3.1). Told, when
        it is so, after `connected`."""
        ...

    def hello(self, command: Hello, tls: Tls | None) -> Answer: ...

    def mail(self, command: Mail) -> Answer:
        """A transaction begins. 4xx when the house cannot take mail now."""
        ...

    def rcpt(self, command: Rcpt) -> Answer:
        """None: accepted."""
        ...

    def end(self, message: bytes | mmap) -> Awaitable[Sequence[Reply]]:
        """The message is whole. One reply over SMTP; over LMTP one per accepted recipient, in
        order. A 2xx is given only when it is durable. The shell owns `message` and closes a
        map when the answer is there."""
        ...

    def reset(self) -> None:
        """The open transaction is over without a message."""
        ...

    def lost(self) -> None:
        """The connection is gone; nothing is called after it."""
        ...


Begin = Callable[[Peer], Conversation]
