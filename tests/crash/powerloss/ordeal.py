"""One ordeal of receiving on a machine whose power is cut, now and then."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

from tests.crash.powerloss.machine import Machine
from tests.crash.receive_load import Load
from tests.crash.receive_ordeal import Result, all_stored, furnished, judged, killed, names
from tests.product import Town
from tests.receiving import free_port, gateway


def machine_of(directory: Path) -> Machine:
    """For the first server of a town in this directory."""
    return Machine(directory, directory / "server-1" / "data")


def cut(machine: Machine, chance: random.Random | None = None) -> None:
    """The directory is what the power cut leaves of it, and durable as that."""
    after = machine.root.with_name("after")
    machine.cut(after, chance)
    shutil.rmtree(machine.root)
    after.rename(machine.root)
    machine.begin()


async def power_cuts(directory: Path, *, kills: int, seed: int, longest: float = 0.5) -> Result:
    """Some ends are the process's alone: what it wrote is there, and not durable yet. Of the
    others some leave nothing that was not durable, and some a part of it."""
    chance = random.Random(seed)
    port = free_port()
    machine = machine_of(directory)

    def dead() -> None:
        if chance.random() < 0.7:
            cut(machine, chance if chance.random() < 0.6 else None)
        else:
            machine.killed()

    with await asyncio.to_thread(Town, directory, machine.environment) as town:
        async with names() as dns:
            server = await asyncio.to_thread(furnished, town, gateway(port, dns=dns))
            machine.begin()
            machine.set(sync_delay=0.002)
            await asyncio.to_thread(server.start)
            load = Load(lambda: port, seed)
            await killed(server, load, kills, chance, longest, dead)
            await asyncio.to_thread(all_stored, server)
            await asyncio.to_thread(server.kill)
            cut(machine)
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(all_stored, server)
            assert await asyncio.to_thread(server.stop) == 0, server.errors.read_text()[-2000:]
    return Result(len(load.accepted), kills, load.repeats, await judged(server, load))
