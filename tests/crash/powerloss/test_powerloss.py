"""Power cuts while mail is taken and stored: whatever had its 250 is there afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from posthouse.storage.blobs.base import key_of
from tests.crash.powerloss.ordeal import cut, machine_of, power_cuts
from tests.crash.receive_load import ACCOUNTS, Letter, Writer, brought
from tests.crash.receive_ordeal import furnished
from tests.product import Server, Town, wait_until
from tests.receiving import DOMAIN, SMALL, free_port, gateway, open_house


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.timeout(120)
async def test_power_cuts_lose_nothing(tmp_path: Path, seed: int) -> None:
    result = await power_cuts(tmp_path, kills=8, seed=seed)
    assert result.wrong == []
    assert result.accepted > 50
    assert result.repeats > 0


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


@pytest.mark.timeout(60)
async def test_what_was_set_up_and_the_first_letters_outlive_a_power_cut(tmp_path: Path) -> None:
    """From nothing: the keys, the database and the directories are all new."""
    port = free_port()
    machine = machine_of(tmp_path)
    machine.root.mkdir(parents=True)
    writer = Writer(2)
    found = [one for one in (writer.letter() for _ in range(200)) if "crew" not in one.to]
    small, large = (next(one for one in found if (len(one.raw) > SMALL) is is_large) for is_large in (False, True))
    with Town(tmp_path, machine.environment) as town:
        machine.begin()
        server = await asyncio.to_thread(town.server, gateway(port), top='roles = ["api", "mx"]\n')
        wanted = [("mail-domains", {"name": DOMAIN})]
        wanted += [("accounts", {"address": f"{name}@{DOMAIN}"}) for name in ACCOUNTS]
        for kind, body in wanted:
            answer = server.post(f"/v1/{kind}", body, key=server.operator_key)
            assert answer.status_code == 201, answer.text
        for letter in (small, large):
            await brought(port, letter)
        await asyncio.to_thread(server.kill)
        cut(machine)
        await asyncio.to_thread(server.start)
        assert server.waiting() == 2
        assert server.get("/v1/domains", key=server.operator_key).json()["data"][0]["name"] == "sender.example"
        assert await asyncio.to_thread(server.stop) == 0
    async with open_house(server.settings) as house:
        assert await house.findings() == []
