"""One ordeal of receiving: mail on several connections, kills at random moments, the judgement."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.crash.receive_checker import judge
from tests.crash.receive_load import ACCOUNTS, CREW, SENDER, Load
from tests.flow.dns_server import DnsServer
from tests.product import Server, Town, wait_until
from tests.receiving import free_port, gateway, make_accounts, open_house


@dataclass(slots=True)
class Result:
    accepted: int
    kills: int
    repeats: int
    wrong: list[str]


@asynccontextmanager
async def names() -> AsyncGenerator[str, None]:
    """A name server that knows the peer; its address."""
    zones = {
        SENDER: {"MX": [f"10 mx.{SENDER}."], "TXT": ['"v=spf1 ip4:127.0.0.1 -all"']},
        f"mx.{SENDER}": {"A": ["127.0.0.1"]},
        "1.0.0.127.in-addr.arpa": {"PTR": [f"mx.{SENDER}."]},
    }
    async with DnsServer(zones) as server:
        yield "{}:{}".format(*server.nameserver)


def furnished(town: Town, settings: str, *, top: str = "") -> Server:
    """A server that is set up for `receive_load`, and does not run."""
    server = town.server(settings, top=top, start=False)
    make_accounts(server.settings, ACCOUNTS, aliases={"crew": CREW})
    return server


async def ordeal(directory: Path, *, kills: int, seed: int, records: str = "", longest: float = 0.45) -> Result:
    """:param longest: seconds that the server lives at most between two kills."""
    extra = f'[records]\nurl = "{records}"\n\n[worker]\nlease = 2\n' if records else ""
    port = free_port()
    with Town(directory) as town:
        async with names() as dns:
            server = await asyncio.to_thread(furnished, town, gateway(port, dns=dns, more=extra))
            await asyncio.to_thread(server.start)
            load = Load(lambda: port, seed)
            await killed(server, load, kills, random.Random(seed), longest)
            await asyncio.to_thread(all_stored, server)
            stopped = await asyncio.to_thread(server.stop)
            assert stopped == 0, server.errors.read_text()[-2000:]
    return Result(len(load.accepted), kills, load.repeats, await judged(server, load))


def all_stored(server: Server) -> None:
    try:
        wait_until(lambda: server.waiting() == 0, "every message is stored")
    except TimeoutError as error:
        raise AssertionError(f"{error}: {server.errors.read_text()[-2000:]}") from None


async def judged(server: Server, load: Load) -> list[str]:
    """:param server: stopped."""
    async with open_house(server.settings) as house:
        wrong = judge(load.accepted, await house.held(), list(load.open.values()))
        return wrong + await house.findings()


async def killed(
    server: Server,
    load: Load,
    kills: int,
    chance: random.Random,
    longest: float,
    dead: Callable[[], None] | None = None,
) -> None:
    """:param dead: called after each kill, before the next life."""
    running = asyncio.create_task(load.run())
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.0, longest))
        if running.done():
            break
        await asyncio.to_thread(server.kill)
        if dead is not None:
            await asyncio.to_thread(dead)
        server.launch()
        if chance.random() < 0.8:  # else it is killed while it starts
            await asyncio.to_thread(wait_until, server.ready, "it is up again")
    await asyncio.to_thread(wait_until, server.ready, "it is up again")
    load.stopping = True
    async with asyncio.timeout(60):
        await running
