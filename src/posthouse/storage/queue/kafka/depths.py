"""How much waits: what the brokers hold and the rows do not call done, and what is parked."""

from __future__ import annotations

from posthouse.storage.queue.base import Depth
from posthouse.storage.queue.kafka import partitions
from posthouse.storage.queue.kafka.progress import Progress
from posthouse.storage.queue.kafka.topics import Topics
from posthouse.storage.queue.kafka.wire import Options
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records


async def depths(records: Records, parked: RecordsQueue, topics: Topics, options: Options) -> list[Depth]:
    """:raises StorageUnavailable: records or brokers are away."""
    found = {(depth.stage, depth.lane): depth for depth in await parked.depths()}
    seen = await records.read(lambda tx: partitions.seen(tx, options.prefix))
    for (topic, number), end in (await topics.ends(await topics.all())).items():
        place = options.stage_and_lane(topic)
        row = seen.get((topic, number))
        undone = end - (row.low + Progress.decode(row.low, row.done).above if row is not None else 0)
        if place is not None and undone > 0:
            found[place] = _plus(found.get(place, Depth(*place, 0, 0, 0, None)), undone, row.oldest if row else None)
    return [found[place] for place in sorted(found)]


def _plus(depth: Depth, ready: int, oldest: int | None) -> Depth:
    known = [at for at in (depth.oldest_due_at, oldest) if at is not None]
    return Depth(depth.stage, depth.lane, depth.ready + ready, depth.delayed, depth.buried, min(known, default=None))
