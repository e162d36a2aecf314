"""The queue on Kafka as contract tests want it: a claim sees what was put before."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from posthouse.storage.queue.base import Job
from posthouse.storage.queue.kafka.queue import KafkaQueue
from posthouse.storage.queue.kafka.wire import Options


def fresh_options(server: str, *, partitions: int = 2) -> Options:
    """Topics that no other test has."""
    return Options(server, prefix=f"test-{secrets.token_hex(6)}", partitions=partitions)


class SettledQueue(KafkaQueue):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, patience=0)

    async def claim(self, stage: str, lane: int, n: int, *, lease: float) -> list[Job]:
        if n > 0:
            await self.settle(stage)
        return await super().claim(stage, lane, n, lease=lease)

    async def settle(self, stage: str, seconds: float = 15) -> None:
        """All that was put is here: moved, assigned and read."""
        while await self.pump.move():
            continue
        source = await self.source(stage)
        ends = await self._topics.ends(list((await self._topics.of(stage)).values()))
        async with asyncio.timeout(seconds):
            while not all(
                (part := source.parts.get(name)) is not None and part.next >= end for name, end in ends.items()
            ):
                await asyncio.sleep(0.002)
        if source.fetching:
            await asyncio.wait(source.fetching, timeout=seconds)
