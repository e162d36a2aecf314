"""`open_queue(url)`: the one place that maps a URL to a queue."""

from __future__ import annotations

from posthouse.clock import Clock
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.queue.base import Queue
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records


async def open_queue(url: str, records: Records, blobs: Blobs, *, clock: Clock) -> Queue:
    """
    :param url: `records:`, or `kafka://…` (`kafka.wire.options`).
    :param blobs: for payloads that a topic should not carry.
    :raises Misconfigured: the URL is wrong.
    """
    if url.split(":", 1)[0] == "records":
        return RecordsQueue(records, clock=clock)
    # Only where it is used: its client is a library of some megabytes.
    from posthouse.storage.queue.kafka import wire  # noqa: PLC0415
    from posthouse.storage.queue.kafka.queue import KafkaQueue  # noqa: PLC0415

    return KafkaQueue(records, blobs, wire.options(url), clock=clock)
