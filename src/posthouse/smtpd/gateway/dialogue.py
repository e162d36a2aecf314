"""One session: the core's events become the conversation's questions, its answers the core's.

What the conversation knows at once is answered in the same turn of the loop; what it has to
wait for holds the session, and nothing else, until it is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast

import structlog

from posthouse import ids
from posthouse.smtp.answers import SHUTDOWN, simple
from posthouse.smtp.command import Hello, Mail, Rcpt
from posthouse.smtp.events import Connected, DataChunk, DataEnd, DataStart, Event, Reset, StartTls
from posthouse.smtp.peer import Tls
from posthouse.smtp.reply import Reply
from posthouse.smtp.server import Server
from posthouse.smtpd.conversation import Answer, Conversation
from posthouse.smtpd.gateway.metrics import Meters
from posthouse.smtpd.gateway.shared import Shared
from posthouse.smtpd.gateway.spool import NO_ROOM, Body

log = structlog.get_logger("gateway")
T = TypeVar("T")

FAULT = simple(451, "4.3.0", "Something failed on our side; try again later")
_OUTCOMES = {2: "accepted", 4: "deferred", 5: "refused"}


class Dialogue:
    """:param wake: called when an answer has come that had to be waited for, or the body no
    longer waits for the disk.
    :param upgrade: called when STARTTLS was accepted; `tls_started` is to follow.
    """

    __slots__ = (
        "_body",
        "_conversation",
        "_each",
        "_lost",
        "_meters",
        "_open",
        "_recipients",
        "_shared",
        "_task",
        "_upgrade",
        "_wake",
        "core",
        "name",
        "tls",
    )

    def __init__(
        self,
        core: Server,
        conversation: Conversation,
        shared: Shared,
        meters: Meters,
        wake: Callable[[], None],
        upgrade: Callable[[], None],
    ) -> None:
        self.core = core
        self.name = ids.new("ses")
        self.tls: Tls | None = None
        self._conversation = conversation
        self._shared = shared
        self._meters = meters
        self._wake = wake
        self._upgrade = upgrade
        self._each = core.offer.lmtp
        self._body: Body | None = None
        self._recipients = 0
        self._open = False  # the conversation has a transaction that is not ended
        self._lost = False
        self._task: asyncio.Task[Reply | None] | None = None

    @property
    def busy(self) -> bool:
        """The body waits for the disk."""
        return self._body is not None and self._body.busy

    @property
    def in_body(self) -> bool:
        """A message is on its way, whole chunks and refused ones counted."""
        return self._body is not None or self.core.in_body

    @property
    def quiet(self) -> bool:
        """No transaction is open and no answer is due."""
        return not (self._open or self.core.waiting or self.in_body)

    def pump(self) -> None:
        """Put all questions that can be put."""
        core, on = self.core, _ON
        while (event := core.next_event()) is not None:
            on[type(event)](self, event)

    def lost(self) -> None:
        """The connection is gone. What `end` was given stays its own."""
        if self._lost:
            return
        self.core.lost()
        self.pump()
        self._lost = True
        if self._task is not None:
            self._task.cancel()
        self._tell(self._conversation.lost)

    # -- questions ----------------------------------------------------------------------

    def _on_connected(self, event: Connected) -> None:
        self._ask(event, self._conversation.connected)

    def _on_hello(self, event: Hello) -> None:
        self._ask(event, self._conversation.hello, event, self.tls)

    def _on_mail(self, event: Mail) -> None:
        if self._shared.stopping:
            self.core.close(SHUTDOWN)
            return
        refusal = self._shared.spool.refusal(event.size)
        if refusal is not None:
            self.core.reject(refusal)
        else:
            self._ask(event, self._conversation.mail, event)

    def _on_rcpt(self, event: Rcpt) -> None:
        self._ask(event, self._conversation.rcpt, event)

    def _on_start(self, _event: DataStart) -> None:
        self._body = Body(self._shared.spool, self._wake)
        self.core.accept()

    def _on_chunk(self, event: DataChunk) -> None:
        if self._body is not None:
            self._body.add(event.data)

    def _on_reset(self, _event: Reset) -> None:
        if self._body is not None:
            self._body.drop()
            self._body = None
        self._abandon()

    def _on_tls(self, _event: StartTls) -> None:
        self.core.accept()
        self._upgrade()

    def _ask(self, event: Event, question: Callable[..., Answer], *what: object) -> None:
        try:
            answer = question(*what)
        except Exception:
            answer = self._fault(type(event).__name__)
        if answer is None or isinstance(answer, Reply):
            self._apply(event, answer)
        else:
            self._await(event, answer)

    def _await(self, event: Event, answer: Awaitable[Reply | None]) -> None:
        future = _future(answer)
        if future is not answer:
            self._task = cast("asyncio.Task[Reply | None]", future)  # ours to cancel
        if future.done():
            self._apply(event, self._result(future, type(event).__name__, FAULT))
        else:
            future.add_done_callback(partial(self._answered, event))

    def _answered(self, event: Event, future: asyncio.Future[Reply | None]) -> None:
        self._task = None
        reply = self._result(future, type(event).__name__, FAULT)
        if not (self._lost or self.core.closed):
            self._apply(event, reply)
            self._wake()

    def _apply(self, event: Event, reply: Reply | None) -> None:
        if reply is not None and not reply.ok:
            self.core.reject(reply)
            return
        kind = type(event)
        if kind is Rcpt:
            self._recipients += 1
        elif kind is Mail:
            self._open = True
            self._recipients = 0
        elif kind is Connected and self.core.buffered:
            self._tell(self._conversation.early)
        self.core.accept(reply)

    # -- the end of a message --------------------------------------------------------------

    def _on_end(self, event: DataEnd) -> None:
        body, self._body = self._body, None
        assert body is not None
        if body.failed:
            body.drop()
            self._abandon()
            self.core.reject(NO_ROOM)
            return
        self._open = False
        self._meters.octets.inc(event.size)
        started = time.perf_counter()
        try:
            answer = self._end_mapped(body) if body.spooled else self._conversation.end(body.whole())
        except Exception:
            body.drop()
            self._say((self._fault("DataEnd"),))
            return
        future = _future(answer)
        if future.done():
            self._settle(body, started, future)
        else:
            future.add_done_callback(partial(self._ended, body, started))

    async def _end_mapped(self, body: Body) -> Sequence[Reply]:
        try:
            message = await body.mapped()
        except OSError:
            self._tell(self._conversation.reset)
            return (NO_ROOM,)
        try:
            return await self._conversation.end(message)
        finally:
            with suppress(BufferError):  # somebody still looks at it; closed when that ends
                message.close()

    def _ended(self, body: Body, started: float, future: asyncio.Future[Sequence[Reply]]) -> None:
        self._settle(body, started, future)
        self._wake()

    def _settle(self, body: Body, started: float, future: asyncio.Future[Sequence[Reply]]) -> None:
        body.drop()
        self._meters.seconds.observe(time.perf_counter() - started)
        replies = self._result(future, "DataEnd", (FAULT,))
        if self._lost or self.core.closed:
            self._meters.lost.inc()
        else:
            self._say(replies)

    def _say(self, replies: Sequence[Reply]) -> None:
        due = self._recipients if self._each else 1
        if len(replies) != due:
            if len(replies) != 1 or replies[0].ok:
                log.error("gateway.wrong_replies", session=self.name, due=due, given=len(replies))
                replies = (FAULT,)
            replies = tuple(replies) * due
        best = min(replies, key=_code)
        getattr(self._meters, _OUTCOMES.get(best.code // 100, "refused")).inc()
        if self._each:
            self.core.answer_each(replies)
        elif best.ok:
            self.core.accept(best)
        else:
            self.core.reject(best)

    # -- faults of the conversation --------------------------------------------------------

    def _abandon(self) -> None:
        if self._open:
            self._open = False
            self._tell(self._conversation.reset)

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception:
            self._fault(what.__name__)

    def _result(self, future: asyncio.Future[T], step: str, fault: T) -> T:
        if future.cancelled():
            return fault
        error = future.exception()
        if error is None:
            return future.result()
        log.error("gateway.conversation_failed", session=self.name, step=step, exc_info=error)
        return fault

    def _fault(self, step: str) -> Reply:
        """Called where an exception is at hand."""
        log.exception("gateway.conversation_failed", session=self.name, step=step)
        return FAULT


def _code(reply: Reply) -> int:
    return reply.code


def _future(answer: Awaitable[T]) -> asyncio.Future[T]:
    if isinstance(answer, asyncio.Future):
        return answer
    if asyncio.iscoroutine(answer):
        return asyncio.get_running_loop().create_task(cast("Coroutine[Any, Any, T]", answer))
    return asyncio.get_running_loop().create_task(_awaited(answer))


async def _awaited(answer: Awaitable[T]) -> T:
    return await answer


_ON: dict[type, Callable[[Any, Any], None]] = {
    Connected: Dialogue._on_connected,  # pyright: ignore[reportPrivateUsage] - the class's own table
    Hello: Dialogue._on_hello,  # pyright: ignore[reportPrivateUsage]
    Mail: Dialogue._on_mail,  # pyright: ignore[reportPrivateUsage]
    Rcpt: Dialogue._on_rcpt,  # pyright: ignore[reportPrivateUsage]
    StartTls: Dialogue._on_tls,  # pyright: ignore[reportPrivateUsage]
    DataStart: Dialogue._on_start,  # pyright: ignore[reportPrivateUsage]
    DataChunk: Dialogue._on_chunk,  # pyright: ignore[reportPrivateUsage]
    DataEnd: Dialogue._on_end,  # pyright: ignore[reportPrivateUsage]
    Reset: Dialogue._on_reset,  # pyright: ignore[reportPrivateUsage]
}
