"""A whole server that takes mail, in a process of its own, with the eight accounts of `receive_load`.

async with mail_house(tmp_path) as house:
    assert await house.brought(letter) == "250"
    ...
    assert await house.judged() == []
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.crash.powerloss.machine import Machine
from tests.crash.receive_checker import judge
from tests.crash.receive_load import Claim, Letter, Refused, Writer, brought
from tests.crash.receive_ordeal import furnished
from tests.product import Server, Town, wait_until
from tests.receiving import SMALL, free_port, gateway, open_house

MEGABYTE = 1024 * 1024


class MailHouse:
    """`accepted`: what had its 250 and is judged."""

    def __init__(self, server: Server, port: int, machine: Machine | None) -> None:
        self.server = server
        self.port = port
        self._machine = machine
        self.accepted: list[Claim] = []
        self.unanswered: list[Claim] = []

    @property
    def machine(self) -> Machine:
        assert self._machine is not None
        return self._machine

    async def brought(self, letter: Letter) -> str:
        """`250`, or what was said instead."""
        claim = Claim(letter.number, letter.accounts, letter.digest)
        try:
            await brought(self.port, letter)
        except Refused as refused:
            self.unanswered.append(claim)
            return str(refused)
        self.accepted.append(claim)
        return "250"

    async def all_brought(self, letters: Iterable[Letter]) -> list[str]:
        """One after the other."""
        return [await self.brought(letter) for letter in letters]

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def kill(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def stop(self) -> None:
        assert await asyncio.to_thread(self.server.stop) == 0, self.server.errors.read_text()[-2000:]

    def waiting(self, *stages: str) -> int:
        """Jobs of these stages, or of any."""
        server = self.server
        depths = server.get("/v1/queue", key=server.operator_key).raise_for_status().json()["depths"]
        return sum(one["ready"] + one["delayed"] for one in depths if not stages or one["stage"] in stages)

    async def stored(self, seconds: float = 60) -> None:
        await asyncio.to_thread(wait_until, lambda: self.waiting("store") == 0, "every message is stored", seconds)

    async def judged(self) -> list[str]:
        """Stops it. What is wrong with the mailboxes, and what `check --deep` finds."""
        await self.stored()
        await self.stop()
        again = {(claim.number, claim.digest) for claim in self.accepted}
        open_ = [claim for claim in self.unanswered if (claim.number, claim.digest) not in again]
        async with open_house(self.server.settings) as house:
            return judge(self.accepted, await house.held(), open_) + await house.findings()

    def memory(self) -> int:
        """Octets of the server's memory that are resident."""
        return self._status("VmRSS")

    def most_memory(self) -> int:
        """Octets that were at most, since `forget_memory`."""
        return self._status("VmHWM")

    def forget_memory(self) -> int:
        """Octets that are resident now, from which `most_memory` counts."""
        Path(f"/proc/{self.server.pid}/clear_refs").write_text("5")
        return self.memory()

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.server.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@asynccontextmanager
async def mail_house(
    directory: Path,
    *,
    shim: bool = False,
    start: bool = True,
    dns: str = "127.0.0.1:1",
    top: str = "",
    least_free: int = 1,
    more: str = "",
) -> AsyncGenerator[MailHouse, None]:
    """:param shim: on a machine that can be filled, set back and cut off.
    :param dns: by default there is none; `least_free`, `more`: as `receiving.gateway`."""
    machine = Machine(directory, directory / "server-1" / "data") if shim else None
    port = free_port()
    settings = gateway(port, dns=dns, least_free=least_free, more=more)
    with await asyncio.to_thread(Town, directory, machine.environment if machine else None) as town:
        server = await asyncio.to_thread(furnished, town, settings, top=top)
        house = MailHouse(server, port, machine)
        if start:
            await house.start()
        yield house


def letters(count: int, seed: int = 1) -> list[Letter]:
    """Of every kind."""
    writer = Writer(seed)
    return [writer.letter() for _ in range(count)]


def some_small(count: int, seed: int = 1) -> list[Letter]:
    writer = Writer(seed)
    found: list[Letter] = []
    while len(found) < count:
        letter = writer.letter()
        if len(letter.raw) < SMALL:
            found.append(letter)
    return found
