"""Power cuts while mail is taken and stored: whatever had its 250 is there afterwards."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest

from posthouse.storage.blobs.base import key_of
from tests.crash.powerloss.machine import Machine
from tests.crash.receive_load import Letter, Load, Writer, brought
from tests.crash.receive_ordeal import all_stored, furnished, judged, killed, names
from tests.product import Server, Town, wait_until
from tests.receiving import SMALL, free_port, gateway, open_house


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.timeout(120)
async def test_power_cuts_lose_nothing(tmp_path: Path, seed: int) -> None:
    """Some ends are the process's alone: what it wrote is there, and not durable yet."""
    chance = random.Random(seed)
    port = free_port()
    machine = machine_of(tmp_path)
    cuts = 0

    def dead() -> None:
        nonlocal cuts
        if chance.random() < 0.7:
            cuts += 1
            cut(machine, chance if chance.random() < 0.6 else None)
        else:
            machine.killed()

    with Town(tmp_path, machine.environment) as town:
        async with names() as dns:
            server = await asyncio.to_thread(furnished, town, gateway(port, dns=dns))
            machine.begin()
            machine.set(sync_delay=0.002)
            await asyncio.to_thread(server.start)
            load = Load(lambda: port, seed)
            await killed(server, load, 8, chance, 0.5, dead)
            await asyncio.to_thread(all_stored, server)
            await asyncio.to_thread(server.kill)
            cut(machine)
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(all_stored, server)
            assert await asyncio.to_thread(server.stop) == 0, server.errors.read_text()[-2000:]
    assert await judged(server, load) == []
    assert len(load.accepted) > 50
    assert cuts > 2


@pytest.mark.parametrize("where", ["records", "first directory", "second directory"])
@pytest.mark.timeout(60)
async def test_what_only_a_dead_process_had_written_is_durable_before_it_is_answered(
    tmp_path: Path, where: str
) -> None:
    """Killed in an fsync, it left something in the page cache: there for the next process to
    see, gone with the power. The peer brings its letter again, and is told that it is there."""
    port = free_port()
    machine = machine_of(tmp_path)
    small, first, second = letters(1)
    letter = {"records": small, "first directory": first, "second directory": second}[where]
    directory = machine.root / "blobs" / "mail" / key_of(first.raw)[:2]
    with Town(tmp_path, machine.environment) as town:
        server = await asyncio.to_thread(furnished, town, gateway(port), top='roles = ["api", "mx"]\n')
        machine.begin()
        await asyncio.to_thread(server.start)
        if where == "second directory":
            await brought(port, first)
        machine.set(sync_delay=60)
        waiting = asyncio.create_task(brought(port, letter))
        await asyncio.to_thread(
            wait_until, lambda: _is_written(server, letter, directory), "something of it is written"
        )
        await asyncio.to_thread(server.kill)
        with pytest.raises((OSError, EOFError)):
            await waiting
        machine.killed()
        machine.set(sync_delay=0)
        await asyncio.to_thread(server.start)
        await brought(port, letter)
        await asyncio.to_thread(server.kill)
        cut(machine)
        await asyncio.to_thread(server.start)
        assert server.waiting() == (2 if where == "second directory" else 1)
        assert await asyncio.to_thread(server.stop) == 0
    async with open_house(server.settings) as house:
        assert await house.findings() == []


def letters(seed: int) -> tuple[Letter, Letter, Letter]:
    """A small one, and two for the blob store, that go to one directory there."""
    writer = Writer(seed)
    small = next(one for one in iter(writer.letter, None) if len(one.raw) < SMALL)
    large = (one for one in iter(writer.letter, None) if SMALL < len(one.raw) < 4 * SMALL)
    first = next(large)
    key = key_of(first.raw)
    return small, first, next(one for one in large if key_of(one.raw)[:2] == key[:2] and one.raw != first.raw)


def _is_written(server: Server, letter: Letter, directory: Path) -> bool:
    """In the log of the database, or the last directory on the way to its blob that is not there yet."""
    log = server.data / "posthouse.db-wal"
    inner = directory / key_of(letter.raw)[2:4]
    made = inner.exists() or (directory.exists() and not any(directory.iterdir()))
    return made or (log.exists() and letter.raw[-60:] in log.read_bytes())
