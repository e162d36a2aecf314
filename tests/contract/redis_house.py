"""A Redis of a test's own, to be stopped, wiped and hung; and processes' shares of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from posthouse.storage.bus.redis_link import Address, Link
from tests.conftest import Service


class OwnRedis:
    """Started by `start`; the same address each time, without what it held."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.service = Service("redis", directory, {"REDIS_PORT": str(self.port)})
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert self.service.start() == self.url

    def stop(self) -> None:
        self.service.stop()

    def wipe(self) -> None:
        self.command("FLUSHALL")

    def command(self, *words: str) -> str:
        return subprocess.run(
            ["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout

    def hang(self) -> None:
        os.kill(self._pid(), signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid(), signal.SIGCONT)

    def _pid(self) -> int:
        return int(self.command_pid())

    def command_pid(self) -> str:
        (found,) = list(self.service.directory.rglob("*.pid"))
        return found.read_text().strip()


async def opened(url: str, namespace: str = "t") -> Link:
    link = Link(Address(f"{url}?namespace={namespace}"))
    await link.open()
    return link


async def until(true: Callable[[], bool], seconds: float = 15.0) -> float:
    """Seconds that it took."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)
    return time.monotonic() - started
