"""Work that is begun at once: what DNS has in its cache needs no task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Done(Generic[T]):
    """A result that was there at once; answers like a task."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def result(self) -> T:
        return self._value


Begun = Done[T] | asyncio.Task[T]


def begin(work: Coroutine[Any, Any, T]) -> Begun[T]:
    """Runs `work` until it first waits; a task goes on from there. It must not ask for the
    current task (`asyncio.timeout` does) before it has waited for anything.

    :raises Exception: what `work` raises before it waits.
    """
    try:
        waited = work.send(None)
    except StopIteration as ended:
        return Done(ended.value)
    return asyncio.get_running_loop().create_task(_rest(work, waited))


async def _rest(work: Coroutine[Any, Any, T], waited: Any) -> T:
    return await _resumed(work, waited)


@coroutine
def _resumed(work: Coroutine[Any, Any, T], waited: Any) -> Generator[Any, Any, T]:
    while True:
        try:
            try:
                value = yield waited
            except BaseException as error:
                waited = work.throw(error)
            else:
                waited = work.send(value)
        except StopIteration as ended:
            return ended.value
