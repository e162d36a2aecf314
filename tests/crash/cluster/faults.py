"""What can happen to a world. A fault begins, lasts and ends; it says which processes' open SMTP
transactions it may make come twice, and of none it may anything else."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.crash.cluster import network
from tests.crash.cluster.world import LAYOUT, LEASE, SENDERS, SKEWED, World, faketime


class Fault(ABC):
    """:param hold: seconds between its begin and its end."""

    def __init__(self, name: str, hold: tuple[float, float], hits: Sequence[str] = ()) -> None:
        self.name = name
        self._hold = hold
        self.hits = tuple(hits)
        """Processes whose connections may each repeat the transaction that was open."""

    def hold(self, chance: random.Random) -> float:
        return chance.uniform(*self._hold)

    def cannot(self, world: World) -> str | None:
        """Why it cannot happen here."""
        return None

    @abstractmethod
    def begin(self, world: World) -> None: ...

    @abstractmethod
    def end(self, world: World) -> None:
        """Returns when what it struck is ready again. :raises RuntimeError: it does not get so."""


class Kill(Fault):
    """SIGKILL of processes, one shortly after the other; then they are started again."""

    def __init__(self, *nodes: str, name: str = "", hold: tuple[float, float] = (0.0, 2.0)) -> None:
        super().__init__(f"kill:{name or '+'.join(nodes)}", hold, [node for node in nodes if node in SENDERS])
        self._nodes = nodes

    def begin(self, world: World) -> None:
        for node in self._nodes:
            world.cluster.kill(node)
            world.cluster.nodes[node].process = None  # it did not end by itself
            time.sleep(0.1)

    def end(self, world: World) -> None:
        world.cluster.start(self._nodes)


class Stop(Fault):
    """SIGSTOP for longer than a lease, then SIGCONT: a zombie that believes it holds its jobs."""

    def __init__(self, node: str, hold: tuple[float, float] = (1.5 * LEASE, 2.5 * LEASE)) -> None:
        super().__init__(f"stop:{node}", hold, [node] if node in SENDERS else ())
        self._node = node

    def begin(self, world: World) -> None:
        self._pids = world.cluster.nodes[self._node].pids()
        _tell(self._pids, signal.SIGSTOP)

    def end(self, world: World) -> None:
        _tell(self._pids, signal.SIGCONT)
        time.sleep(0.5)
        world.cluster.wait_for(self._node)


class Crash(Fault):
    """SIGKILL of an engine, which is started again on what it had made durable."""

    def __init__(self, engine: str, hold: tuple[float, float] = (1.0, 6.0), *, hits: Sequence[str] = ()) -> None:
        super().__init__(f"crash:{engine}", hold, hits)
        self._engine = engine

    def cannot(self, world: World) -> str | None:
        return None if self._engine in world.engines else f"{self._engine} is not part of this run"

    def begin(self, world: World) -> None:
        world.engines[self._engine].kill()

    def end(self, world: World) -> None:
        _started(world, self._engine)
        _all_ready(world)


class Restart(Crash):
    """PostgreSQL's immediate shutdown (SIGQUIT: every back end ends in mid-statement)."""

    def __init__(self, engine: str = "postgres", hold: tuple[float, float] = (0.0, 4.0)) -> None:
        super().__init__(engine, hold, hits=SENDERS)
        self.name = f"restart:{engine}"

    def begin(self, world: World) -> None:
        one = world.engines[self._engine]
        pids = one.pids()
        os.kill(pids[0], signal.SIGQUIT)
        end = time.monotonic() + 20.0
        while not all(map(_is_dead, pids)) and time.monotonic() < end:
            time.sleep(0.02)


class Hang(Crash):
    """SIGSTOP of an engine: it takes connections and answers nobody, then goes on."""

    def __init__(self, engine: str, hold: tuple[float, float] = (4.0, 9.0), *, hits: Sequence[str] = ()) -> None:
        super().__init__(engine, hold, hits=hits)
        self.name = f"hang:{engine}"

    def begin(self, world: World) -> None:
        self._pids = world.engines[self._engine].pids()
        _tell(self._pids, signal.SIGSTOP)

    def end(self, world: World) -> None:
        _tell(self._pids, signal.SIGCONT)
        _all_ready(world)


class StartWithout(Crash):
    """A process that is killed and started while an engine is away waits for it, or starts without."""

    def __init__(self, engine: str, node: str, *, hits: Sequence[str] = ()) -> None:
        super().__init__(engine, (3.0, 5.0), hits=hits)
        self.name = f"start:{node}-without-{engine}"
        self._node = node

    def begin(self, world: World) -> None:
        super().begin(world)
        world.cluster.kill(self._node)
        world.cluster.launch(self._node)


class FailOver(Fault):
    """PostgreSQL's primary is killed for good, and its standby takes over; a new standby is for next time."""

    def __init__(self, hold: tuple[float, float] = (0.5, 4.0)) -> None:
        super().__init__("failover:postgres", hold, SENDERS)

    def begin(self, world: World) -> None:
        world.standby.follow()
        world.standby.primary.kill()

    def end(self, world: World) -> None:
        world.standby.take_over()
        _all_ready(world)


class Wipe(Fault):
    """FLUSHALL: Redis forgets everything."""

    def __init__(self) -> None:
        super().__init__("wipe:redis", (0.0, 0.5))

    def cannot(self, world: World) -> str | None:
        return None if "redis" in world.engines else "redis is not part of this run"

    def begin(self, world: World) -> None:
        found = urlsplit(world.engines["redis"].address)
        with socket.create_connection((found.hostname or "127.0.0.1", found.port or 6379), 10) as redis:
            redis.sendall(b"FLUSHALL\r\n")
            if not redis.recv(100).startswith(b"+OK"):
                raise RuntimeError("redis did not forget")

    def end(self, world: World) -> None:
        _all_ready(world)


class Skew(Fault):
    """A process's clock leaps by minutes, and back. Its leases and due times must not follow."""

    def __init__(self, node: str, seconds: float, hold: tuple[float, float] = (LEASE, 2 * LEASE)) -> None:
        super().__init__(f"clock{seconds:+.0f}s:{node}", hold)
        assert node in SKEWED
        self._node, self._seconds = node, seconds

    def cannot(self, world: World) -> str | None:
        return None if faketime() else "no libfaketime (scripts/services/faketime.sh install)"

    def begin(self, world: World) -> None:
        world.set_clock(self._node, self._seconds)

    def end(self, world: World) -> None:
        world.set_clock(self._node, 0)
        time.sleep(1.2)  # the library looks once a second


class Cut(Fault):
    """The cable to the process `far` is pulled: packets vanish, to the engines and to the sink."""

    def __init__(self, hold: tuple[float, float] = (2 * LEASE, 3 * LEASE)) -> None:
        super().__init__("cut:far", hold, ["far"])

    def cannot(self, world: World) -> str | None:
        return network.cannot() if world.network is None else None

    def begin(self, world: World) -> None:
        assert world.network is not None
        world.network.pull()

    def end(self, world: World) -> None:
        assert world.network is not None
        world.network.plug()
        world.cluster.wait_for("far")


class Together(Fault):
    """Several faults at once, as long as the longest of them."""

    def __init__(self, *faults: Fault) -> None:
        hold = (max(one._hold[0] for one in faults), max(one._hold[1] for one in faults))
        super().__init__(" & ".join(one.name for one in faults), hold, [hit for one in faults for hit in one.hits])
        self._faults = faults

    def cannot(self, world: World) -> str | None:
        return next((why for one in self._faults if (why := one.cannot(world)) is not None), None)

    def begin(self, world: World) -> None:
        for one in self._faults:
            one.begin(world)

    def end(self, world: World) -> None:
        for one in self._faults:
            one.end(world)


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _tell(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _started(world: World, engine: str) -> None:
    for attempt in range(3):
        try:
            world.engines[engine].start()
        except RuntimeError:
            if attempt == 2:
                raise
            time.sleep(1.0)
        else:
            return


def _all_ready(world: World) -> None:
    for name, node in world.cluster.nodes.items():
        if node.alive:
            world.cluster.wait_for(name)


def catalogue() -> dict[str, Fault]:
    """By name."""
    faults: list[Fault] = [Kill(node) for node in LAYOUT]
    faults.append(Kill(*LAYOUT, name="everybody"))
    faults += [Stop(node) for node in ("worker", "store", "schedule", "api", "mx")]
    faults += [
        Restart(),
        Crash("postgres", hits=SENDERS),
        Hang("postgres", hits=SENDERS),
        StartWithout("postgres", "worker", hits=SENDERS),
        FailOver(),
        Crash("kafka", hits=SENDERS),
        Hang("kafka", hits=SENDERS),
        StartWithout("kafka", "store", hits=SENDERS),
        Wipe(),
        Crash("redis"),
        Hang("redis"),
        StartWithout("redis", "api"),
        Crash("s3"),
        Hang("s3"),
        StartWithout("s3", "mx"),
        Crash("opensearch", (1.0, 3.0)),
        Hang("opensearch"),
        StartWithout("opensearch", "index"),
        Skew("worker", -300),
        Skew("worker", +300),
        Skew("store", -300),
        Skew("store", +300),
        Cut(),
    ]
    return {fault.name: fault for fault in faults}


def each_once() -> list[Fault]:
    """Every kind but a plain crash of an engine, as few and as short as they can be: for `make test`."""
    return [
        Kill(*LAYOUT, name="everybody", hold=(0.0, 0.0)),
        Together(Stop("worker", (LEASE + 2, LEASE + 2)), Stop("store", (LEASE + 2, LEASE + 2)), Skew("worker", 300)),
        Together(Restart(hold=(1.0, 1.0)), Wipe()),
        Together(Cut((LEASE + 3, LEASE + 3)), Skew("store", -300)),
        StartWithout("postgres", "schedule", hits=SENDERS),
        FailOver((0.5, 0.5)),
    ]
