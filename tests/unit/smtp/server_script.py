"""Drives a server session with byte strings and writes down what it says and tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from posthouse.smtp.command import Auth, Hello, Mail, Rcpt
from posthouse.smtp.events import AuthData, Connected, DataChunk, DataEnd, DataStart, Event, Reset, StartTls
from posthouse.smtp.offer import Limits, Offer
from posthouse.smtp.reply import Reply
from posthouse.smtp.server import Server

OFFER = Offer("mx.test")
ANSWERED = Connected | Hello | Mail | Rcpt | Auth | DataStart | DataEnd | StartTls
Decide = Callable[[Event], Reply | None]


def nothing_wrong(_event: Event) -> Reply | None:
    return None


class Script:
    """Accepts everything unless `decide` gives a reply; keeps whole messages that were accepted."""

    def __init__(
        self, offer: Offer = OFFER, limits: Limits | None = None, decide: Decide = nothing_wrong, greet: bool = True
    ) -> None:
        self.server = Server(offer, limits)
        self.decide = decide
        self.events: list[Event] = []
        self.messages: list[bytes] = []
        self.replies = b""
        self._body = b""
        if greet:
            self.send(b"")
            self.send(b"LHLO client.test\r\n" if offer.lmtp else b"EHLO client.test\r\n")
            self.replies = b""
            self.events.clear()

    def send(self, data: bytes) -> bytes:
        """Feed, answer all events, and give the replies back."""
        self.server.receive(data)
        while (event := self.server.next_event()) is not None:
            self._on(event)
        out = self.server.take()
        self.replies += out
        return out

    def feed(self, pieces: Iterable[bytes]) -> bytes:
        for piece in pieces:
            self.send(piece)
        return self.replies

    def _on(self, event: Event) -> None:
        if isinstance(event, DataChunk):
            self._body += event.data
            return
        self.events.append(event)
        if isinstance(event, Reset):
            self._body = b""
        elif isinstance(event, AuthData):
            if event.response is not None:
                self._answer(event)
        else:
            self._answer(event)

    def _answer(self, event: Event) -> None:
        reply = self.decide(event)
        if isinstance(event, DataEnd):
            if reply is None:
                assert len(self._body) == event.size
                self.messages.append(self._body)
            self._body = b""
        if reply is None:
            self.server.accept()
        else:
            self.server.reject(reply)


def codes(replies: bytes) -> list[int]:
    """The codes of whole replies, one for each."""
    return [int(line[:3]) for line in replies.split(b"\r\n")[:-1] if line[3:4] == b" "]


ENVELOPE = b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@mx.test>\r\n"
