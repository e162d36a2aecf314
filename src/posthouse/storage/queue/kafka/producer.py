"""Durable produce: idempotent, acks=all, one for each process.

Delivery reports come on a thread of ours; one call into the loop settles all batches that a
poll finished."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import confluent_kafka
import structlog

from posthouse.errors import StorageUnavailable

log = structlog.get_logger("queue")

SECONDS = 10.0
"""A record that the brokers do not take for so long has failed."""
_POLL = 0.2


def told(who: str) -> Callable[[Any], None]:
    """The client's own troubles into our log: it mends them by itself."""

    def say(error: Any) -> None:
        log.warning("kafka_trouble", client=who, detail=str(error))

    return say


class Send(NamedTuple):
    topic: str
    partition: int
    key: str
    value: bytes


class _Batch:
    """`expected` is told after the last was handed over; reports may all have come by then."""

    __slots__ = ("done", "error", "expected", "finished", "reported")

    def __init__(self, done: asyncio.Future[None], finished: list[_Batch]) -> None:
        self.expected = -1
        self.reported = 0
        self.done = done
        self.error: Any = None
        self.finished = finished

    def delivered(self, error: Any, _: Any) -> None:
        """On the polling thread."""
        if error is not None:
            self.error = error
        self.reported += 1
        if self.reported == self.expected:
            self.finished.append(self)

    def expect(self, count: int) -> None:
        self.expected = count
        if self.reported == count and not self.done.done():
            self.done.set_result(None)


class Producer:
    def __init__(self, brokers: Mapping[str, str]) -> None:
        """:param brokers: how to reach them."""
        self._settings: dict[str, Any] = {
            **brokers,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "compression.type": "lz4",
            "message.timeout.ms": int(SECONDS * 1000),
            "message.max.bytes": 2_000_000,
            "queue.buffering.max.messages": 100_000,
            "queue.buffering.max.kbytes": 64 * 1024,
            "log_level": 0,  # what it has to say comes by `error_cb`
            "error_cb": told("producer"),
        }
        self._loop = asyncio.get_running_loop()
        self._finished: list[_Batch] = []
        self._stopping = False
        self._kafka: Any = None
        self._thread: threading.Thread | None = None

    async def send(self, records: Sequence[Send]) -> None:
        """On return all are on every replica in sync.

        :raises StorageUnavailable: some may be there and some not.
        """
        if not records:
            return
        batch = _Batch(self._loop.create_future(), self._finished)
        producer = self._producer()
        by_topic: dict[str, list[dict[str, Any]]] = {}
        for topic, partition, key, value in records:
            by_topic.setdefault(topic, []).append({"value": value, "key": key, "partition": partition})
        went = sum(_produce(producer, topic, messages, batch) for topic, messages in by_topic.items())
        batch.expect(went)
        await batch.done
        if batch.error is not None or went < len(records):
            self._failed(producer, batch.error)
            raise StorageUnavailable(detail=f"kafka: {batch.error or 'the buffer is full'}")

    def _producer(self) -> Any:
        if self._kafka is None:
            self._kafka = confluent_kafka.Producer(self._settings)
            self._thread = threading.Thread(target=self._poll, args=(self._kafka,), name="kafka-producer", daemon=True)
            self._thread.start()
        return self._kafka

    def _failed(self, producer: Any, error: Any) -> None:
        """A producer in a fatal state takes nothing more: the next send makes a new one."""
        if isinstance(error, confluent_kafka.KafkaError) and error.fatal() and producer is self._kafka:
            log.error("producer_failed", detail=str(error))
            self._kafka = None

    def _poll(self, producer: Any) -> None:
        while not self._stopping and producer is (self._kafka or producer):
            producer.poll(_POLL)
            self._report()
        producer.flush(SECONDS)
        self._report()

    def _report(self) -> None:
        if self._finished:
            finished, self._finished[:] = self._finished[:], []
            try:
                self._loop.call_soon_threadsafe(_settle, finished)
            except RuntimeError:  # the loop has ended: nobody waits
                return

    async def close(self) -> None:
        """What was sent is delivered or fails first."""
        self._stopping = True
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, SECONDS + 5)
        self._kafka = None


def _produce(producer: Any, topic: str, messages: list[dict[str, Any]], batch: _Batch) -> int:
    """How many went into the buffer."""
    try:
        return producer.produce_batch(topic, messages, on_delivery=batch.delivered)
    except (BufferError, confluent_kafka.KafkaException) as error:
        batch.error = error
        return 0


def _settle(finished: list[_Batch]) -> None:
    for batch in finished:
        if not batch.done.done():
            batch.done.set_result(None)
