"""A network namespace in which a process lives, joined to us by one cable that can be pulled.

Inside, 127.0.0.1 has the same servers as outside: a forwarder on each side of the cable. With
the cable pulled packets vanish; nobody is told by a reset.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench import material


@dataclass(frozen=True, slots=True)
class Network:
    """`outside` and `inside`: the addresses at the two ends."""

    name: str
    outside: str
    inside: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Of a command that is to run inside."""
        return ("ip", "netns", "exec", self.name)

    def pull(self) -> None:
        _ip("-n", self.name, "link", "set", f"{self.name}i", "down")

    def plug(self) -> None:
        _ip("-n", self.name, "link", "set", f"{self.name}i", "up")


def cannot() -> str | None:
    """Why there is none to be had here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "no `ip` (Debian: iproute2)"
    made = subprocess.run(["ip", "netns", "add", f"ph{os.getpid()}t"], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces: {made.stderr.strip()}"
    _ip("netns", "del", f"ph{os.getpid()}t")
    return None


@contextmanager
def network(ports: Sequence[int]) -> Generator[Network, None, None]:
    """:param ports: of servers on 127.0.0.1 that are to be there inside as well."""
    number = os.getpid()
    base = f"198.18.{number // 64 % 256}.{number % 64 * 4}".rpartition(".")
    one = Network(f"ph{number}", f"{base[0]}.{int(base[2]) + 1}", f"{base[0]}.{int(base[2]) + 2}")
    outer, inner = f"{one.name}o", f"{one.name}i"
    _ip("netns", "add", one.name)
    try:
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", one.name)
        _ip("addr", "add", f"{one.outside}/30", "dev", outer)
        _ip("link", "set", outer, "up")
        _ip("-n", one.name, "addr", "add", f"{one.inside}/30", "dev", inner)
        _ip("-n", one.name, "link", "set", inner, "up")
        _ip("-n", one.name, "link", "set", "lo", "up")
        with ExitStack() as stack:
            stack.enter_context(_forwarder([], one.outside, "127.0.0.1", ports))
            stack.enter_context(_forwarder(one.prefix, "127.0.0.1", one.outside, ports))
            yield one
    finally:
        _ip("netns", "del", one.name)  # and the cable with it


@contextmanager
def _forwarder(prefix: Sequence[str], listen: str, connect: str, ports: Sequence[int]) -> Generator[None, None, None]:
    command = [*prefix, sys.executable, "-m", "tests.crash.cluster.forward", listen, connect, *map(str, ports)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=material.environment(), text=True)
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the forwarder from {listen} to {connect} did not start")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)
