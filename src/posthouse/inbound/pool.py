"""Processes that examine messages, so that another core does what would hold up the loop.

A message at which they die (see `net/pool.py`) is stored plainly, with its octets as one text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain

from prometheus_client import Counter

from posthouse.errors import Unavailable
from posthouse.inbound.examine import LARGE, Examined, Given, examine, plain
from posthouse.inbound.examiner import ANSWER, encode
from posthouse.net.child import code
from posthouse.net.pool import Codec, Pool, Work

MESSAGES_AT_ONCE = 32
"""In one batch: about five milliseconds of a process."""
OCTETS_AT_ONCE = 1024 * 1024
_MOST = 4
"""Processes; more than these have nothing to do behind one loop."""
_PATIENCE = 20.0
"""Seconds for one batch."""
_WAIT = 120.0
"""Seconds for all batches of a call."""
_CHILD = code("posthouse.inbound.examiner")
_FATAL = "processes ended while they examined it"

DEATHS = Counter("posthouse_examine_process_deaths_total", "Examining processes that ended by themselves or hung.")


def processes_for(cores: int) -> int:
    """How many are worth it: accept, the loop and the records need a core as well."""
    return min(cores - 1, _MOST)


class ExaminePool(Pool[Given, Examined]):
    """`inbound.examine.Examine`, by `processes` processes."""

    def __init__(self, processes: int) -> None:
        work = Work(
            name="examine",
            run=_CHILD,
            setup=b"",
            codec=_Codec,
            fatal=lambda given: plain(given, _FATAL),
            deaths=DEATHS,
            stopped="the processes that examine messages are stopped",
            patience=_PATIENCE,
        )
        super().__init__(work, processes)

    async def __call__(self, given: Sequence[Given]) -> list[Examined]:
        """Large ones in a thread, so that no frame is.

        :raises Unavailable: the pool was closed, or its processes do not start.
        """
        large = {n for n, one in enumerate(given) if one.arrival.size > LARGE}
        batches = await self.give(_in_batches([one for n, one in enumerate(given) if n not in large]))
        threads = [asyncio.to_thread(examine, given[n]) for n in sorted(large)]
        try:
            async with asyncio.timeout(_WAIT):
                aside = await asyncio.gather(*threads)
                parts = await asyncio.gather(*batches)
        except TimeoutError:
            raise Unavailable(detail="the processes that examine messages do not answer") from None
        found, apart = chain(*parts), iter(aside)
        return [next(apart) if n in large else next(found) for n in range(len(given))]


class _Codec(Codec[Given, Examined]):
    def encode(self, items: Sequence[Given]) -> bytes:
        return encode(items)

    def decode(self, frame: bytes) -> list[Examined]:
        return ANSWER.decode(frame)


def _in_batches(given: Sequence[Given]) -> Iterator[list[Given]]:
    batch: list[Given] = []
    octets = 0
    for one in given:
        octets += one.arrival.size
        if batch and (len(batch) == MESSAGES_AT_ONCE or octets > OCTETS_AT_ONCE):
            yield batch
            batch, octets = [], one.arrival.size
        batch.append(one)
    if batch:
        yield batch
