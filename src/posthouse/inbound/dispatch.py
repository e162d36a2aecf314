"""What leaves because something came in: copies, answers, and notices of what failed.

Everything is made before the store stage's transaction and written in it, so that a message
is sent on exactly as often as it is stored: once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from posthouse.clock import Clock
from posthouse.events.handover import Handover, keep_and_hand_over
from posthouse.events.notice import Undelivered, report
from posthouse.inbound import answering
from posthouse.inbound.answering import Answering
from posthouse.inbound.decision import Failed, Order, Parcel
from posthouse.inbound.forwarding import Forwarding, own_address
from posthouse.inbound.proof import untold
from posthouse.mail.dsn import MAX_HEADERS
from posthouse.storage.contents import Content, Contents
from posthouse.storage.queue.base import Queue
from posthouse.storage.records.base import Tx

_STATUS = "5.3.0"


class Dispatch:
    """`inbound.decision.Sender`.

    :param host: ours, the Reporting-MTA of notices.
    :param wake: the stage `relay` has jobs.
    """

    def __init__(
        self,
        queue: Queue,
        contents: Contents,
        forwarding: Forwarding,
        *,
        host: str,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._queue = queue
        self._contents = contents
        self._forwarding = forwarding
        self._answering = Answering(contents, clock=clock)
        self._host = host
        self._clock = clock
        self.wake = wake

    async def prepare(self, orders: Sequence[Order]) -> list[Parcel]:
        """One for each; what an alias sends to several addresses elsewhere is one message.

        :raises Unavailable:
        """
        forwards: dict[tuple[str, str], tuple[Order, dict[str, None]]] = {}
        for order in orders:
            if order.kind == "forward":
                forwards.setdefault(_sender(order), (order, {}))[1].update(dict.fromkeys(order.to))
        # Side by side: a seal is two signatures, in threads.
        sealed = await asyncio.gather(*[self._forwarding.parcel(order, tuple(to)) for order, to in forwards.values()])
        made = dict(zip(forwards, sealed, strict=True))
        return [
            made[_sender(order)] if order.kind == "forward" else await self._answering.parcel(order) for order in orders
        ]

    async def send(self, tx: Tx, parcels: Sequence[Parcel]) -> list[str]:
        """:raises StorageUnavailable: a content like it is being removed."""
        due = await answering.due(tx, parcels)
        given: dict[str, tuple[Content, Handover]] = {}
        said: list[str] = []
        for one in parcels:
            if one.content is None or one.handover is None:
                said.append(one.said)
            elif one.answered is not None and one.handover.id not in due:
                days = one.answered[3]
                said.append(f"No automatic answer: the sender had one within {days} days.")
            else:
                given[one.handover.id] = (one.content, one.handover)
                said.append(one.said)
        if given:
            await keep_and_hand_over(tx, self._queue, self._contents, list(given.values()), self._clock())
        return said

    async def tell(self, tx: Tx, failed: Sequence[Failed]) -> list[str]:
        """:raises StorageUnavailable:"""
        now = self._clock()
        given: list[tuple[Content, Handover]] = []
        said: list[str] = []
        for one in failed:
            why = untold(one.arrival, one.parsed)
            made = report(_undelivered(one), host=self._host, now=now) if not why else None
            if made is None:
                said.append(f"Nobody was told: {why or 'the sender has no address that can be written to'}.")
            else:
                given.append(made)
                said.append(f"{one.arrival.reverse_path} is told by {made[1].id}.")
        if given:
            await keep_and_hand_over(tx, self._queue, self._contents, given, now)
        return said


def _sender(order: Order) -> tuple[str, str]:
    return order.arrival.id, own_address(order.recipient, order.account)


def _undelivered(one: Failed) -> Undelivered:
    arrival, recipient = one.arrival, one.recipient
    return Undelivered(
        arrival.id,
        str(recipient.n),
        recipient.tenant_id,
        arrival.id,
        own_address(recipient, None).rpartition("@")[2],
        arrival.reverse_path,
        recipient.address,
        arrival.received_at,
        arrival.raw[: min(one.parsed.header_length, MAX_HEADERS)],
        _STATUS,
        one.reason,
    )
