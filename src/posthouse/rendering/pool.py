"""The render processes, and which contexts each of them knows.

Bulk costs a critical message at most the batch that a process is at (see `net/pool.py`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import msgspec
from prometheus_client import Counter

from posthouse.net.child import code
from posthouse.net.pool import Codec, Pool, Work
from posthouse.rendering.process import Context, Failure, Request, Result, Setup, Task
from posthouse.storage.queue.base import Lane

TASKS_IN_BATCH = 32
"""About ten milliseconds of signatures: what an urgent message waits for at most."""
_CHILD = code("posthouse.rendering.process")
_CONTEXTS = 288
_CONTEXT_OCTETS = 64 * 1024 * 1024
"""Bounds of what a process keeps of the messages' common parts."""
_PATIENCE = 60.0
"""Seconds for one batch."""

DEATHS = Counter("posthouse_render_process_deaths_total", "Render processes that ended by themselves or hung.")
RENDERED = Counter("posthouse_rendered_total", "Messages rendered, by result.", ["result"])

Told = tuple[Task, Context]


class RenderPool(Pool[Told, Result]):
    def __init__(self, setup: Setup, processes: int) -> None:
        work = Work(
            name="render",
            run=_CHILD,
            setup=msgspec.msgpack.encode(setup),
            codec=_Codec,
            fatal=_crashed,
            deaths=DEATHS,
            stopped="the render processes are stopped",
            patience=_PATIENCE,
            lanes=len(Lane),
        )
        super().__init__(work, processes)

    async def render(self, lane: int, tasks: Sequence[Task], contexts: Mapping[str, Context]) -> list[Result]:
        """Results in the order of `tasks`; `contexts` holds each task's context.

        :raises Unavailable: the pool was closed.
        """
        told = [(task, contexts[task.context]) for task in tasks]
        batches = [told[at : at + TASKS_IN_BATCH] for at in range(0, len(told), TASKS_IN_BATCH)]
        parts = await asyncio.gather(*await self.give(batches, lane))
        results = [result for part in parts for result in part]
        failed = sum(1 for result in results if isinstance(result, Failure))
        RENDERED.labels("ok").inc(len(results) - failed)
        RENDERED.labels("failed").inc(failed)
        return results


class _Codec(Codec[Told, Result]):
    """Contexts that its process knows are not sent again."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, int] = OrderedDict()
        """Contexts that the process keeps, the least used first, with about the octets that each takes."""
        self._kept = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[Result]).decode

    def encode(self, items: Sequence[Told]) -> bytes:
        fresh: list[Context] = []
        used = {task.context: context for task, context in items}
        for name, context in used.items():
            if name in self._known:
                self._known.move_to_end(name)
            else:
                fresh.append(context)
                self._known[name] = _weight(context)
                self._kept += self._known[name]
        return self._encode(Request(self._drop(len(used)), fresh, [task for task, _ in items]))

    def decode(self, frame: bytes) -> list[Result]:
        return self._decode(frame)

    def _drop(self, needed: int) -> list[str]:
        """Contexts to be forgotten; never the `needed` ones used last."""
        drop: list[str] = []
        while len(self._known) > needed and (len(self._known) > _CONTEXTS or self._kept > _CONTEXT_OCTETS):
            name, weight = self._known.popitem(last=False)
            self._kept -= weight
            drop.append(name)
        return drop


def _crashed(_: Told) -> Failure:
    """For now: what killed them may have come from outside (memory ran out, an operator)."""
    return Failure("render_crashed", "the render process ended twice at this message", True)


def _weight(context: Context) -> int:
    """Octets it takes in its process, about: an attachment is there as it is and encoded."""
    compiled = context.compiled.size() if context.compiled is not None else 0
    inline = len(context.html or "") + len(context.text or "")
    return compiled + inline + sum(ref.size for ref in context.attachments) * 12 // 5
