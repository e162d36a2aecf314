"""One ordeal: load, kills at random moments, and the judgement."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.checker import FINAL, Verdict, judge, judge_events
from tests.crash.load import TEMPLATE, Load
from tests.product import Server, Town, routes, wait_until

MIX = "bounce=3%,defer=6%,slow-final-0.1=3%"
CONNECTIONS = 8


@dataclass(slots=True)
class Result:
    verdict: Verdict
    accepted: int
    kills: int
    repeats: int
    wrong: list[str] = field(default_factory=list[str])


def ordeal(
    directory: Path, *, kills: int, seed: int, records: str = "", longest: float = 1.2, events: int = 150
) -> Result:
    """
    :param longest: seconds that the server lives at most between two kills.
    :param events: messages whose history is read too.
    """
    with Town(directory) as town:
        sink = town.sink("--no-tls", "--mix", MIX, "--seed", str(seed))
        extra = f'[records]\nurl = "{records}"\n\n[worker]\nlease = 2\n' if records else ""
        server = town.server(routes(sink.port, CONNECTIONS, extra))
        server.post("/v1/templates", TEMPLATE).raise_for_status()
        load = Load(lambda: (server.url, server.key), seed)
        restarts = asyncio.run(_killed(server, load, kills, random.Random(seed), longest, sink.counts))
        _all_final(server)
        ledger = server.ledger()
        wrong = load.wrong + _histories(server, ledger, events, random.Random(seed))
        sink.stop()
        verdict = judge(load.accepted, ledger, sink.entries(), restarts, CONNECTIONS)
        assert server.stop() == 0, server.errors.read_text()
    return Result(verdict, len(load.accepted), kills, load.repeats, wrong + verdict.wrong)


def _all_final(server: Server) -> None:
    try:
        wait_until(lambda: server.waiting() == 0, "every message is final")
    except TimeoutError:
        left = [row for row in server.ledger() if row["status"] not in FINAL]
        story = [line["text"] for line in server.get(f"/v1/messages/{left[0]['id']}/explain").json()["story"]]
        raise AssertionError(
            f"{len(left)} messages never ended: {story}; {server.errors.read_text()[-2000:]}"
        ) from None


async def _killed(
    server: Server, load: Load, kills: int, chance: random.Random, longest: float, counts: object
) -> list[float]:
    """When it was started again, each time."""
    running = asyncio.create_task(load.run())
    restarts: list[float] = []
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.0, longest))
        if running.done():
            break
        server.kill()
        assert callable(counts)
        # All that the dead server sent is read before the next one lives, so every line of
        # the log belongs to one life.
        await asyncio.to_thread(wait_until, lambda: counts()["open"] == 0, "the sink has read it all")
        restarts.append(time.time())
        server.launch()
        if chance.random() < 0.8:  # else it is killed while it starts
            await asyncio.to_thread(wait_until, server.ready, "it is up again")
    await asyncio.to_thread(wait_until, server.ready, "it is up again")
    load.stopping = True
    async with asyncio.timeout(60):
        await running
    return restarts


def _histories(server: Server, ledger: list[dict[str, object]], count: int, chance: random.Random) -> list[str]:
    rows = chance.sample(ledger, min(count, len(ledger)))
    wrong: list[str] = []
    with server.client() as http:
        for row in rows:
            told = http.get(f"/v1/messages/{row['id']}/events").raise_for_status().json()["data"]
            wrong += judge_events(str(row["id"]), told, str(row["status"]))
    return wrong
