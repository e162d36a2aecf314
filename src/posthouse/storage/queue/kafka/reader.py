"""The consumer of one stage on a thread of its own: records in, assignments in, orders out.

It decides nothing: partitions are paused when they come, and read from where the loop says.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import confluent_kafka
import structlog
from confluent_kafka import TopicPartition

from posthouse.storage.queue.kafka.partitions import Name
from posthouse.storage.queue.kafka.producer import told
from posthouse.storage.queue.kafka.wire import Record, decode

log = structlog.get_logger("queue")

_AT_ONCE = 500
_POLL = 0.1
_TRIES = 100

Arrival = tuple[str, int, int, Record | None]
"""Topic, number, offset, and the record; None: it is not one of ours."""


class Reader:
    def __init__(
        self,
        brokers: Mapping[str, str],
        group: str,
        topics: Sequence[str],
        *,
        came: Callable[[list[Arrival]], None],
        assigned: Callable[[list[Name]], None],
        revoked: Callable[[list[Name]], None],
    ) -> None:
        """The three are called in the loop that made this. :param brokers: how to reach them."""
        self._loop = asyncio.get_running_loop()
        self._came, self._assigned, self._revoked = came, assigned, revoked
        self._orders: SimpleQueue[Callable[[Any], None]] = SimpleQueue()
        self._stopping = False
        self._topics = list(topics)
        self._settings: dict[str, Any] = {
            **brokers,
            "group.id": group,
            "group.protocol": "consumer",  # KIP-848: cooperative, and no stop of the whole group
            # Of each topic everybody an equal part. "uniform" only counts partitions: it gives a
            # lane as a whole to one consumer and another lane to the next.
            "group.remote.assignor": "range",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 100,
            "queued.min.messages": 2000,
            "queued.max.messages.kbytes": 16 * 1024,
            "fetch.message.max.bytes": 4 * 1024 * 1024,
            "topic.metadata.refresh.interval.ms": 30_000,
            "log_level": 0,
            "error_cb": told("consumer"),
        }
        self._thread = threading.Thread(target=self._run, name=f"kafka-{group}", daemon=True)
        self._thread.start()

    # Orders, from the loop.

    def read_from(self, name: Name, offset: int, *, paused: bool) -> None:
        self._orders.put(_Seek(self._orders, name, offset, paused=paused))

    def pause(self, names: Sequence[Name]) -> None:
        self._orders.put(lambda consumer: _each(consumer.pause, names))

    def resume(self, names: Sequence[Name]) -> None:
        self._orders.put(lambda consumer: _each(consumer.resume, names))

    def commit(self, marks: Sequence[tuple[str, int, int]]) -> None:
        """Only for those who watch the lag: where reading begins is told by the records."""
        offsets = [TopicPartition(*one) for one in marks]
        self._orders.put(lambda consumer: consumer.commit(offsets=offsets, asynchronous=True))

    async def close(self) -> None:
        """Leaves the group."""
        self._stopping = True
        await asyncio.to_thread(self._thread.join, 15)

    # On the thread.

    def _run(self) -> None:
        consumer: Any = confluent_kafka.Consumer(self._settings)
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)
        while not self._stopping:
            try:
                self._obey(consumer)
                first = consumer.poll(_POLL)
                if first is not None:
                    self._hand_on([first, *consumer.consume(_AT_ONCE, 0)])
            except Exception as error:  # the thread must live: the consumer tries again by itself
                log.warning("consumer_fault", error=repr(error))
                threading.Event().wait(_POLL)
        consumer.close()

    def _obey(self, consumer: Any) -> None:
        for _ in range(self._orders.qsize()):
            try:
                order = self._orders.get_nowait()
            except Empty:
                return
            try:
                order(consumer)
            except confluent_kafka.KafkaException as error:  # a partition that is no longer ours
                log.debug("consumer_order_failed", detail=str(error))

    def _hand_on(self, messages: list[Any]) -> None:
        arrivals: list[Arrival] = []
        for message in messages:
            if message.error() is not None:
                log.warning("consumer_error", detail=str(message.error()))
                continue
            arrivals.append((message.topic(), message.partition(), message.offset(), _record(message)))
        if arrivals:
            self._tell(self._came, arrivals)

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        consumer.incremental_assign([TopicPartition(one.topic, one.partition, 0) for one in partitions])
        consumer.pause(partitions)
        self._tell(self._assigned, _names(partitions))

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        consumer.incremental_unassign(partitions)
        self._tell(self._revoked, _names(partitions))

    def _tell(self, what: Callable[[Any], None], about: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, about)
        except RuntimeError:  # the loop has ended
            self._stopping = True


class _Seek:
    """Tried again while the partition is only being assigned."""

    def __init__(self, orders: SimpleQueue[Callable[[Any], None]], name: Name, offset: int, *, paused: bool) -> None:
        self._orders = orders
        self._name, self._offset, self._paused = name, offset, paused
        self._left = _TRIES

    def __call__(self, consumer: Any) -> None:
        try:
            consumer.seek(TopicPartition(*self._name, self._offset))
            if not self._paused:
                consumer.resume([TopicPartition(*self._name)])
        except confluent_kafka.KafkaException:
            self._left -= 1
            if not self._left:
                raise
            self._orders.put(self)


def _record(message: Any) -> Record | None:
    try:
        return decode(message.value() or b"")
    except ValueError:
        log.exception("record_unreadable", topic=message.topic(), number=message.partition(), offset=message.offset())
        return None


def _each(verb: Callable[[list[Any]], None], names: Sequence[Name]) -> None:
    for name in names:
        verb([TopicPartition(*name)])


def _names(partitions: Sequence[Any]) -> list[Name]:
    return [(one.topic, one.partition) for one in partitions]
