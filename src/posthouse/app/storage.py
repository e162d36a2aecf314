"""What everything lies on: records, blobs, the queue, the clock; brought up to this release's schema."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from posthouse.app import values
from posthouse.app.duties import Round, guarded
from posthouse.app.replica import lagging_records
from posthouse.app.set_back import SetBack
from posthouse.clock import Clock
from posthouse.config import Settings
from posthouse.events.handover import RELAY
from posthouse.inbound.model import INDEX, STORE
from posthouse.moving import refuse_left, refuse_unfinished
from posthouse.storage.blob_uses import NotedBlobs
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.blobs.cached import Memory, near
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Queue
from posthouse.storage.queue.factory import open_queue
from posthouse.storage.records.address import Holder
from posthouse.storage.records.base import Records
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.lease import Lease
from posthouse.storage.records.migrations.run import migrate
from posthouse.storage.records.server_clock import cluster_clock


@dataclass(frozen=True, slots=True)
class Storage:
    records: Records
    queue: Queue
    blobs: Blobs
    arrived: Blobs
    contents: Contents
    set_back: SetBack
    clock: Clock
    measure: Round | None
    once: Records
    """For what one process does for all: guarded by `lease`, where several could."""
    lease: Lease | None
    lagging: Records
    """For lists: a replica, where there is one."""


async def own_records(settings: Settings, stack: AsyncExitStack, holder: Holder) -> Records:
    """With this release's schema. :param holder: of a database for one process.

    :raises Misconfigured: another process has them, or they were moved away, or not yet here.
    """
    refuse_left(settings.records.url)
    await migrate(settings.records.url)
    records = await open_records(
        settings.records.url,
        exclusive=holder,
        connections=settings.records.pool_size,
        statement_timeout=settings.records.statement_timeout,
    )
    stack.push_async_callback(records.close)
    await refuse_unfinished(records)
    return records


async def open_storage(settings: Settings, stack: AsyncExitStack, holder: Holder) -> Storage:
    """As `own_records`, and what goes with them."""
    records = await own_records(settings, stack, holder)
    clock, measure = await cluster_clock(records)
    lagging = await lagging_records(settings, records, stack)
    memory = Memory(settings.blobs.cache)
    blobs = NotedBlobs(records, near(await open_blobs(**values.blob_options(settings)), memory), clock)
    stack.push_async_callback(blobs.close)
    queue = await open_queue(settings.queue.url, records, blobs, clock=clock)
    stack.push_async_callback(queue.close)
    if records.capabilities.exclusive:
        await queue.free_leases()
    set_back = SetBack(queue, (STORE, INDEX, RELAY), clock, lease=settings.worker.lease)
    await set_back.at_start()
    # Apart from the attachments of the sending flow, which nobody counts: what arrived is collected.
    arrived = await open_blobs(**values.blob_options(settings, "mail"))
    copied = near(arrived, memory)  # what checks and mends looks at the store itself
    stack.push_async_callback(copied.close)
    contents = Contents(records, copied, small=settings.receive.small, clock=clock)
    return Storage(records, queue, blobs, arrived, contents, set_back, clock, measure, *guarded(records), lagging)
