"""Whatever a client says, in whatever pieces, and whatever is answered: the conversation is
asked in the order that it is promised, and nothing is kept when the connection is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from mmap import mmap
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posthouse.smtp.command import Hello, Mail, Rcpt
from posthouse.smtp.offer import Limits
from posthouse.smtp.peer import Peer, Tls
from posthouse.smtp.reply import Reply
from posthouse.smtpd.gateway import Listener, Options, Spooling
from posthouse.smtpd.gateway.connection import Connection
from posthouse.smtpd.gateway.options import Kind
from posthouse.smtpd.gateway.shared import Shared

OK = Reply(250, "2.0.0", ("Ok",))
ANSWERS = [None, Reply(450, "4.2.0", ("Later",)), Reply(550, "5.7.1", ("No",)), OK, Reply(421, "4.3.0", ("Away",))]
PIECES = [
    b"EHLO x.test\r\n",
    b"LHLO x.test\r\n",
    b"HELO x.test\r\n",
    b"MAIL FROM:<a@x.test>\r\n",
    b"MAIL FROM:<> BODY=BINARYMIME\r\n",
    b"RCPT TO:<b@mx.test>\r\n",
    b"RCPT TO:<c@mx.test> NOTIFY=NEVER\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n",
    b"\r\n.\r\n",
    b".\r\n",
    b"\r\n",
    b"x" * 900 + b"\r\n",
    b"bare\n",
    b"\0\r\n",
    b"BDAT 4\r\nabcd",
    b"BDAT 4 LAST\r\nabcd",
    b"BDAT 0 LAST\r\n",
    b"BDAT 300\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"STARTTLS\r\n",
    b"QUIT\r\n",
    b"",
]


class Strict:
    """Fails on a call out of order. `draw` says what is answered, now or later."""

    def __init__(self, draw: Any, lmtp: bool) -> None:
        self._draw = draw
        self._lmtp = lmtp
        self.state = "new"
        self.accepted = 0
        self.gone = False

    def _answer(self, then: str, index: int) -> Any:
        answer = ANSWERS[index % len(ANSWERS)]
        if answer is None or answer.ok:
            self.state = then
        if index // len(ANSWERS) % 2:

            async def later() -> Reply | None:
                await asyncio.sleep(0)
                return answer

            return later()
        return answer

    def connected(self) -> Any:
        assert self.state == "new"
        return self._answer("connected", 0)

    def early(self) -> None:
        assert self.state == "connected"

    def hello(self, command: Hello, tls: Tls | None) -> Any:
        assert self.state in {"connected", "greeted"}, self.state
        return self._answer("greeted", self._draw())

    def mail(self, command: Mail) -> Any:
        assert self.state == "greeted", self.state
        self.accepted = 0
        return self._answer("open", self._draw())

    def rcpt(self, command: Rcpt) -> Any:
        assert self.state == "open", self.state
        index = self._draw()
        answer = ANSWERS[index % len(ANSWERS)]
        self.accepted += answer is None or answer.ok
        return self._answer("open", index)

    def end(self, message: bytes | mmap) -> Awaitable[Sequence[Reply]]:
        assert self.state == "open", self.state
        assert self.accepted
        self.state = "greeted"
        future: asyncio.Future[Sequence[Reply]] = asyncio.get_running_loop().create_future()
        future.set_result([OK] * (self.accepted if self._lmtp else 1))
        return future

    def reset(self) -> None:
        assert self.state == "open", self.state
        self.state = "greeted"

    def lost(self) -> None:
        assert not self.gone
        self.gone = True


class Transport:
    def __init__(self) -> None:
        self.said = b""
        self.closed = False

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return ("192.0.2.1", 4000)

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.said += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed


async def talk(kind: Kind, pieces: list[bytes], answers: list[int], spool: Path) -> None:
    left = iter(answers)
    listener = Listener(kind)
    strict: list[Strict] = []

    def begin(_: Peer) -> Any:
        strict.append(Strict(lambda: next(left, 0), kind == "lmtp"))
        return strict[-1]

    options = Options("mx.test", [listener], Spooling(spool, 1000, 2000, 0), limits=Limits(size=3000, errors=20))
    shared = Shared(begin, options)
    connection, transport = Connection(shared, listener), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    for piece in pieces:
        if not transport.closed:
            connection.data_received(piece)
            await asyncio.sleep(0)
    for _ in range(200):
        await asyncio.sleep(0.0005 if shared.spool.used else 0)
        if not shared.spool.used:
            break
    connection.connection_lost(None)
    for _ in range(10):
        await asyncio.sleep(0)
    (conversation,) = strict
    assert conversation.gone
    assert shared.spool.used == 0
    assert (shared.admission.open, shared.connections) == (0, set())
    assert all(line[:3].isdigit() for line in transport.said.split(b"\r\n") if line)
    shared.spool.close()


@given(
    st.sampled_from(["mx", "lmtp"]),
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=25),
    st.lists(st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]), max_size=30),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_conversation_is_asked_in_order(
    tmp_path: Path, kind: Kind, pieces: list[bytes], answers: list[int]
) -> None:
    hello = b"LHLO x.test\r\n" if kind == "lmtp" else b"EHLO x.test\r\n"
    asyncio.run(asyncio.wait_for(talk(kind, [hello, *pieces], answers, tmp_path), 20))
