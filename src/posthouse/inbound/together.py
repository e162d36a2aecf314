"""Batches side by side that are written in the order of their claims, and share transactions.

A transaction costs more than a message. So what is handed over while others are written goes
into the next one together; nobody waits for company that is not there yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from posthouse.errors import Unavailable

T = TypeVar("T")


class Turn:
    """A batch's place in the order of claims: it hands over when its turn comes."""

    def __init__(self, before: Turn | None) -> None:
        self._before = None if before is None else before.passed
        self.passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def comes(self) -> None:
        if self._before is not None:
            await asyncio.shield(self._before)
            self._before = None

    def pass_on(self, _: object = None) -> None:
        """To the batch behind, at once or when the turn comes. Again is fine."""
        if self._before is not None and not self._before.done():
            self._before.add_done_callback(self.pass_on)
        elif not self.passed.done():
            self.passed.set_result(None)


class Together(Generic[T]):
    """:param write: everything of it or nothing.
    :param most: things in one `write`; one batch may have more."""

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]], *, most: int) -> None:
        self._write = write
        self._most = most
        self._waiting: list[tuple[Sequence[T], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    def hand_over(self, batch: Sequence[T]) -> asyncio.Future[None]:
        """Resolves when these are written, or with what `write` raised for them."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        if not batch:
            written.set_result(None)
            return written
        self._waiting.append((batch, written))
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write_all())
        return written

    async def _write_all(self) -> None:
        while self._waiting:
            taken, size = 1, len(self._waiting[0][0])
            for batch, _ in self._waiting[1:]:
                size += len(batch)
                if size > self._most:
                    break
                taken += 1
            batches, self._waiting = self._waiting[:taken], self._waiting[taken:]
            await self._attempt(batches)

    async def _attempt(self, batches: Sequence[tuple[Sequence[T], asyncio.Future[None]]]) -> None:
        """What one of them cannot help is not the others' fault: then each by itself."""
        error: Exception | None = None
        try:
            await self._write([one for batch, _ in batches for one in batch])
        except Exception as raised:
            if len(batches) > 1 and not isinstance(raised, Unavailable):
                for batch in batches:
                    await self._attempt([batch])
                return
            error = raised
        for _, written in batches:
            if written.done():  # nobody waits any more
                continue
            if error is None:
                written.set_result(None)
            else:
                written.set_exception(error)
