"""What is broken around the receiving side: no room, no fsync, no name server, no index, no
database, another time of day. Peers are told clearly, the gateway stays up, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mail_house import MailHouse, letters, mail_house, some_small
from tests.conftest import Service
from tests.crash.receive_load import Letter, Load
from tests.crash.receive_ordeal import names
from tests.flow.dns_server import DnsServer
from tests.product import wait_until
from tests.receiving import open_house

AWAY = "451 4.3.0"
NO_ROOM = "452 4.3.1"
QUICK = "[worker]\nlease = 3\n"
"""What could not be handed back comes again so soon."""


async def _until_taken(house: MailHouse, letter: Letter, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while (said := await house.brought(letter)) != "250":
        assert said.startswith("4"), said
        assert time.monotonic() < end, said
        await asyncio.sleep(0.05)


# -- storage ----------------------------------------------------------------------------------


@pytest.mark.timeout(90)
async def test_a_file_that_may_not_grow_puts_mail_off(tmp_path: Path) -> None:
    async with mail_house(tmp_path, more=QUICK) as house:
        assert set(await house.all_brought(letters(20))) == {"250"}
        await house.stored()
        size = max(path.stat().st_size for path in house.server.data.glob("posthouse.db*"))
        resource.prlimit(house.server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        more = letters(40, seed=2)
        said = await house.all_brought(more)
        refused = [letter for letter, one in zip(more, said, strict=True) if one != "250"]
        assert refused
        assert {one[:9] for one in said} <= {"250", AWAY}
        resource.prlimit(house.server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for letter in refused:
            await _until_taken(house, letter)
        assert await house.judged() == []


@pytest.mark.timeout(90)
@pytest.mark.parametrize("fault", ["full", "sync_fails"])
async def test_a_disk_that_is_full_or_fails(tmp_path: Path, fault: str) -> None:
    async with mail_house(tmp_path, shim=True, more=QUICK) as house:
        assert set(await house.all_brought(letters(20))) == {"250"}
        house.machine.set(**{fault: True})
        more = letters(20, seed=2)
        said = await house.all_brought(more)
        assert {one[:9] for one in said} == {AWAY}
        assert house.server.get("/healthz").status_code == 200
        house.machine.set(**{fault: False})
        for letter in more:
            await _until_taken(house, letter)
        assert await house.judged() == []


@pytest.mark.timeout(60)
async def test_a_disk_that_is_nearly_full_is_left_to_what_is_stored_already(tmp_path: Path) -> None:
    async with mail_house(tmp_path, least_free=10**15) as house:
        said = await house.all_brought(letters(5))
        assert {one[:9] for one in said} == {NO_ROOM}
        assert house.server.get("/readyz").status_code == 200
        assert await house.judged() == []


@pytest.mark.timeout(240)
async def test_postgresql_stopped_and_started_under_load(tmp_path: Path, postgres_server: str) -> None:
    """:param postgres_server: only to know that it can be had; this test has one of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = Service("postgres", tmp_path / "services", {"POSTGRES_PORT": str(port)})
    url = await asyncio.to_thread(service.start)
    try:
        more = f'[records]\nurl = "{url}"\n[worker]\nlease = 5\n'
        async with names() as dns, mail_house(tmp_path, dns=dns, more=more) as house:
            load = Load(lambda: house.port, seed=5)
            running = asyncio.create_task(load.run())
            await _reaches(load, 50)
            await asyncio.to_thread(service.stop)
            (early,) = some_small(1, seed=6)
            assert (await house.brought(early)).startswith(AWAY)
            assert (await asyncio.to_thread(house.server.get, "/readyz")).status_code == 503
            await asyncio.to_thread(service.start)
            await _reaches(load, len(load.accepted) + 50)
            load.stopping = True
            async with asyncio.timeout(60):
                await running
            house.accepted += load.accepted
            assert await house.judged() == []
    finally:
        await asyncio.to_thread(service.stop)


async def _reaches(load: Load, count: int) -> None:
    async with asyncio.timeout(60):
        while len(load.accepted) < count:
            await asyncio.sleep(0.05)


# -- search -----------------------------------------------------------------------------------


@pytest.mark.timeout(90)
@pytest.mark.parametrize("fault", ["deleted", "garbage"])
async def test_mail_arrives_without_the_index(tmp_path: Path, fault: str) -> None:
    """And what it missed is in it after the next start."""
    async with mail_house(tmp_path) as house:
        assert set(await house.all_brought(letters(10))) == {"250"}
        await asyncio.to_thread(wait_until, lambda: house.waiting() == 0, "everything is indexed")
        for path in house.server.data.glob("search.db*"):
            if fault == "deleted":
                path.unlink()
            else:
                with path.open("r+b") as file:
                    file.write(os.urandom(path.stat().st_size))
        assert set(await house.all_brought(letters(10, seed=2))) == {"250"}
        await house.stored(seconds=10)
        assert house.server.get("/readyz").status_code == 200
        await house.kill()
        await house.start()
        await asyncio.to_thread(wait_until, lambda: house.waiting() == 0, "everything is indexed again")
        assert await house.judged() == []


# -- names ------------------------------------------------------------------------------------


class Liar(DnsServer):
    """Answers, but not what was asked."""

    def _answer(self, data: bytes, *, udp: bool) -> bytes | None:
        kind = len(self.queries) % 4
        self.queries.append(("?", "?"))
        lies = [os.urandom(200), data[:2] + b"\x81\x80" + os.urandom(60), os.urandom(2) + data[2:], data[:11]]
        return lies[kind]


@asynccontextmanager
async def _name_server(kind: str) -> AsyncGenerator[str, None]:
    async with (Liar if kind == "lying" else DnsServer)({}) as server:
        server.silent = kind == "silent"
        if kind == "failing":
            server.zones = _Everything("SERVFAIL")
        yield "{}:{}".format(*server.nameserver)


class _Everything(dict[str, str]):
    def __init__(self, answer: str) -> None:
        super().__init__()
        self._all = answer

    def get(self, key: str, default: object = None) -> str:  # type: ignore[override]
        return self._all


@pytest.mark.timeout(90)
@pytest.mark.parametrize("kind", ["silent", "failing", "lying"])
async def test_name_servers_that_do_not_help(tmp_path: Path, kind: str) -> None:
    """Mail is taken on what is known, each within a few seconds."""
    async with _name_server(kind) as dns, mail_house(tmp_path, dns=dns) as house:
        async with asyncio.timeout(60):
            said = await asyncio.gather(*(house.brought(letter) for letter in letters(20)))
        assert set(said) == {"250"}
        assert await house.judged() == []


# -- time -------------------------------------------------------------------------------------


@pytest.mark.timeout(90)
@pytest.mark.parametrize("hours", [-24, 24])
async def test_a_clock_that_is_set(tmp_path: Path, hours: int) -> None:
    """Under load, and while mail waits for the stages behind accept."""
    async with names() as dns, mail_house(tmp_path, shim=True, dns=dns) as house:
        load = Load(lambda: house.port, seed=7)
        running = asyncio.create_task(load.run())
        await _reaches(load, 50)
        house.machine.set(clock=hours * 3600)
        await _reaches(load, 150)
        house.machine.set(clock=hours * 7200)
        await house.kill()
        await house.start()
        await _reaches(load, 250)
        load.stopping = True
        async with asyncio.timeout(60):
            await running
        house.accepted += load.accepted
        await house.stored(20)
        assert await house.judged() == []


@pytest.mark.timeout(60)
async def test_mail_that_waits_does_not_wait_for_a_clock_that_was_set_back(tmp_path: Path) -> None:
    async with mail_house(tmp_path, shim=True, top='roles = ["api", "mx"]\n') as house:
        assert set(await house.all_brought(letters(10))) == {"250"}
        await house.stop()
        house.machine.set(clock=-24 * 3600)
        house.server.settings.write_text(house.server.settings.read_text().replace('roles = ["api", "mx"]\n', ""))
        await house.start()
        await house.stored(20)
        assert await house.judged() == []


# -- the stages behind ------------------------------------------------------------------------


@pytest.mark.timeout(90)
async def test_accept_goes_on_alone_and_the_backlog_drains_in_order(tmp_path: Path) -> None:
    alone = 'roles = ["api", "mx"]\n'
    found = some_small(120)
    async with names() as dns, mail_house(tmp_path, dns=dns, top=alone) as house:
        assert set(await house.all_brought(found)) == {"250"}
        assert house.waiting("store") == len(found)
        await house.kill()
        await house.start()
        assert set(await house.all_brought(letters(10, seed=3))) == {"250"}
        await house.stop()
        house.server.settings.write_text(house.server.settings.read_text().replace(alone, ""))
        await house.start()
        await house.stored()
        numbers = {letter.raw: letter.number for letter in found}
        assert await house.judged() == []
        async with open_house(house.server.settings) as opened:
            for name, held in (await opened.held()).items():
                order = [numbers[raw] for raw, mailbox in held.letters if raw in numbers and mailbox == "inbox"]
                assert order == sorted(order), name
                assert order
