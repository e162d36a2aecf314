"""What the worker does with a claimed batch: prepare → render → send, one lane at a time."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse.outbound.prepare import Prepare
from posthouse.outbound.render import Render
from posthouse.outbound.send import Send
from posthouse.storage.queue.base import Job


class Flow:
    """Returns when the batch is with its sites (or ended): outcomes come as they come."""

    def __init__(self, prepare: Prepare, render: Render, send: Send) -> None:
        self._prepare = prepare
        self._render = render
        self._send = send

    async def __call__(self, jobs: Sequence[Job]) -> None:
        in_hand = await self._prepare(jobs)
        if in_hand:
            self._send(await self._render(in_hand))
