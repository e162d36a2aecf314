"""The round of a minute says whether it is under way."""

from __future__ import annotations

import asyncio
from typing import Any

from posthouse.outbound.housekeeping import Housekeeping


class Suppressions:
    async def sweep(self) -> int:
        return 0


class Records:
    async def write(self, work: Any, *, durable: bool) -> int:
        return 0


async def test_a_round_that_does_not_end_is_seen() -> None:
    go = asyncio.Event()
    kept = Housekeeping(Records(), Suppressions(), lambda: 0, also=[go.wait])  # type: ignore[arg-type]
    assert kept.progress() == {"rounds": (0, 0)}
    task = asyncio.create_task(kept.run())
    async with asyncio.timeout(30):
        while kept.progress() != {"rounds": (1, 1)}:
            await asyncio.sleep(0)
        go.set()
        while kept.progress() != {"rounds": (0, 2)}:
            await asyncio.sleep(0)
        kept.stop()
        await task
