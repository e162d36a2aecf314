"""A fault run from its beginning to the verdict."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.checker import judge_events, judge_states
from tests.crash.cluster.faults import Fault
from tests.crash.cluster.judge import (
    Happening,
    judge_critical,
    judge_repeats,
    repeats,
    twice_by_fault,
)
from tests.crash.cluster.world import CONNECTIONS, World
from tests.crash.receive_checker import judge as judge_mailboxes
from tests.receiving import open_house

_STUCK_SECONDS = 30.0
_HISTORIES = 200

Say = Callable[[str], None]


@dataclass
class Result:
    wrong: list[str] = field(default_factory=list[str])
    """Broken promises, in words."""
    happenings: list[Happening] = field(default_factory=list[Happening])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    """Faults that could not happen here, and why."""
    states: Counter[str] = field(default_factory=Counter[str])
    sent: int = 0
    """Messages of a 202."""
    received: int = 0
    """Letters of a 250."""
    asked_again: int = 0
    twice: Counter[str] = field(default_factory=Counter[str])
    critical: int = 0
    """Messages whose wait in calm was judged."""


class History:
    """What happened when, on lines of JSON."""

    def __init__(self, path: Path, say: Say) -> None:
        self._file = path.open("a", buffering=1)
        self._say = say
        self._began = time.time()

    def add(self, event: str, **more: Any) -> float:
        at = time.time()
        self._file.write(json.dumps({"at": at, "event": event, **more}) + "\n")
        words = " ".join(f"{value}" for value in more.values())
        self._say(f"{at - self._began:7.1f}  {event}  {words}")
        return at

    def close(self) -> None:
        self._file.close()


class Run:
    """:param calm: seconds between two faults, at least and at most."""

    def __init__(self, world: World, say: Say, *, seed: int, calm: tuple[float, float] = (1.0, 3.0)) -> None:
        self._world = world
        self._chance = random.Random(seed)
        self._seed = seed
        self._calm = calm
        self._history = History(world.directory / "history.jsonl", say)
        self.result = Result()

    def __call__(self, faults: Sequence[Fault], *, minutes: float = 0.0) -> Result:
        """Each once in this order; with `minutes`, at random for so long."""
        able = [fault for fault in faults if not self._skipped(fault)]
        self.begin()
        for fault in self._random(able, minutes) if minutes else able:
            self.happen(fault)
            if self._world.clients.failed() is not None:
                break
        return self.finish()

    def begin(self) -> None:
        """The clients begin."""
        self._history.add("begins", seed=self._seed)
        self._world.start_load(self._seed)
        time.sleep(2.0)

    def _skipped(self, fault: Fault) -> bool:
        why = fault.cannot(self._world)
        if why is not None:
            self.result.skipped[fault.name] = why
        return why is not None

    def _random(self, faults: Sequence[Fault], minutes: float) -> Iterator[Fault]:
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end:
            yield self._chance.choice(faults)

    def happen(self, fault: Fault, meanwhile: Callable[[], None] = lambda: None) -> None:
        """From its begin to its end, and a moment of calm. :param meanwhile: is done once it has begun."""
        hold = fault.hold(self._chance)
        begin = self._history.add("fault", name=fault.name, hold=round(hold, 1))
        fault.begin(self._world)
        try:
            meanwhile()
            time.sleep(hold)
        finally:
            self._end(fault, begin)
        time.sleep(self._chance.uniform(*self._calm))

    def _end(self, fault: Fault, begin: float) -> None:
        try:
            fault.end(self._world)
        except RuntimeError as error:
            self.result.wrong.append(f"{fault.name}: {error}")
        self._world.look_after()
        end = self._history.add("over", name=fault.name)
        self.result.happenings.append(Happening(fault.name, begin, end, fault.hits))

    def finish(self) -> Result:
        """Calm, the end of the clients' work and of everything in the queue; then all is stopped and judged."""
        world, result = self._world, self.result
        self._history.add("calm")
        if (error := world.clients.failed()) is not None:
            result.wrong.append(f"a client was told what it should not be: {error}")
        else:
            time.sleep(3.0)
            try:
                world.clients.stop(60)
            except (AssertionError, TimeoutError) as error:
                result.wrong.append(f"a client did not come to its end: {error!r}")
        self._history.add("drain", waiting=self._drained())
        ledger = world.ledger()
        result.wrong += self._histories(ledger)
        world.look_after()
        world.cluster.stop()
        time.sleep(0.3)  # the sink writes its log every 50 ms
        self._judge(ledger)
        result.wrong += world.died
        self._history.add("verdict", wrong=result.wrong, twice=dict(result.twice))
        self.close()
        return result

    def close(self) -> None:
        """The history is whole. Again is fine."""
        self._history.close()

    def _drained(self) -> Mapping[str, int]:
        """What still waits when it has not become less for a while."""
        waiting: dict[str, int] = {}
        least, end = 1_000_000_000, time.monotonic() + _STUCK_SECONDS
        while time.monotonic() < end:
            try:
                waiting = self._world.waiting()
            except OSError as error:
                waiting = {f"the API does not answer: {error}": least}
            if not waiting:
                return waiting
            if sum(waiting.values()) < least:
                least, end = sum(waiting.values()), time.monotonic() + _STUCK_SECONDS
            time.sleep(0.25)
        self.result.wrong.append(f"for {_STUCK_SECONDS:.0f} s of calm there waits {waiting}")
        return waiting

    def _histories(self, ledger: Sequence[dict[str, Any]]) -> list[str]:
        rows = self._chance.sample(list(ledger), min(_HISTORIES, len(ledger)))
        wrong: list[str] = []
        for row in rows:
            told = self._world.get(f"/v1/messages/{row['id']}/events")["data"]
            wrong += judge_events(str(row["id"]), told, str(row["status"]))
        return wrong

    def _judge(self, ledger: Sequence[dict[str, Any]]) -> None:
        world, result = self._world, self.result
        sending, receiving = world.clients.sending, world.clients.receiving
        log = world.entries()
        found = repeats(log)
        accepted = [*sending.accepted, *world.asked.accepted]
        result.sent, result.received = len(accepted), len(receiving.accepted)
        result.asked_again = sending.repeats + receiving.repeats
        wrong, result.states = judge_states(accepted, ledger, log, frozenset({"delivered", "bounced"}))
        result.wrong += sending.wrong + wrong
        result.wrong += judge_repeats(found, result.happenings, CONNECTIONS)
        result.twice = twice_by_fault(found, result.happenings)
        wrong, result.critical = judge_critical(sending.singles, log, result.happenings)
        result.wrong += wrong + asyncio.run(_mailboxes(world))


async def _mailboxes(world: World) -> list[str]:
    load = world.clients.receiving
    async with open_house(world.directory / "posthouse.toml") as house:
        taken = [*load.accepted, *world.asked.letters]
        wrong = judge_mailboxes(taken, await house.held(), list(load.open.values()))
        return wrong + await house.findings()
