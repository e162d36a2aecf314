"""A process of several that is started while an engine is away waits for it, and takes its place by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

import structlog

from posthouse.errors import Unavailable

T = TypeVar("T")

log = structlog.get_logger("app")

_FIRST, _LONGEST = 0.25, 5.0
"""Seconds between two attempts."""


async def entered(stack: AsyncExitStack, opened: Callable[[], AbstractAsyncContextManager[T]], *, wait: bool) -> T:
    """What `opened` opens, closed with `stack`; tried again for as long as storage is away.

    :param wait: False for embedded storage, which does not come back by itself.
    :raises Unavailable: without `wait`.
    """
    pause = _FIRST
    while True:
        try:
            return await stack.enter_async_context(opened())
        except Unavailable as error:
            if not wait:
                raise
            log.warning("start_waits_for_storage", detail=error.detail)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST)
