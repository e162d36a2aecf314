"""Starting while storage is away."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from posthouse.app import waiting
from posthouse.app.waiting import entered
from posthouse.errors import StorageUnavailable


class Engine:
    """Away for the first `away` attempts."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.closed = 0

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[str, None]:
        try:
            if self.away:
                self.away -= 1
                raise StorageUnavailable(detail="away")
            yield "parts"
        finally:
            self.closed += 1


async def test_waits_until_storage_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_FIRST", 0.001)
    engine = Engine(away=3)
    async with AsyncExitStack() as stack:
        assert await entered(stack, engine.opened, wait=True) == "parts"
        assert engine.closed == 3  # what an attempt had opened is closed before the next
    assert engine.closed == 4


async def test_embedded_storage_is_not_waited_for() -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(StorageUnavailable):
            await entered(stack, Engine(away=1).opened, wait=False)
