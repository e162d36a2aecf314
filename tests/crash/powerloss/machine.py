"""A machine whose power can be cut: the shim, its control page and its log."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from functools import cache
from pathlib import Path
from shutil import which
from tempfile import mkdtemp

from tests.crash.powerloss.replay import Disk

_SOURCE = Path(__file__).with_name("shim.c")
_INSTALL = Path(__file__).resolve().parents[3] / "scripts" / "services" / "cc.sh"
_PAGE = 4096


@cache
def shim() -> Path:
    """The library, built once a process; the compiler is installed where it is missing."""
    built = Path(mkdtemp(prefix="posthouse-shim-")) / "shim.so"
    compiler = os.environ.get("CC", "cc")
    if which(compiler) is None:
        subprocess.run(["bash", str(_INSTALL), "install"], check=True, timeout=600)
    subprocess.run(
        [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", built, _SOURCE, "-ldl", "-lpthread"],
        check=True,
        timeout=60,
    )
    return built


class Machine:
    """:param work: where its own files go; `root`: the directory whose durability is judged."""

    def __init__(self, work: Path, root: Path) -> None:
        self.root = root
        self._log = work / "shim.log"
        self._control = work / "shim.control"
        self._control.write_bytes(bytes(_PAGE))
        self._settings = {"clock": 0, "full": 0, "delay": 0, "fails": 0}
        self._disk: Disk | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes on it."""
        return {
            "LD_PRELOAD": str(shim()),
            "SHIM_ROOT": str(self.root),
            "SHIM_LOG": str(self._log),
            "SHIM_CONTROL": str(self._control),
        }

    def begin(self) -> None:
        """All that is there is durable. No process may be changing it."""
        self._log.write_bytes(b"")
        self._disk = Disk(self.root)

    def set(
        self,
        *,
        clock: float | None = None,
        full: bool | None = None,
        sync_delay: float | None = None,
        sync_fails: bool | None = None,
    ) -> None:
        """At once, for every process on it.

        :param clock: seconds added to the wall clock, and when positive, to the steady one.
        :param full: no octet more fits.
        :param sync_delay: seconds that an fsync takes.
        :param sync_fails: an fsync fails, and makes nothing durable.
        """
        given = {"clock": clock, "full": full, "delay": sync_delay, "fails": sync_fails}
        scale = {"clock": 1_000_000_000, "full": 1, "delay": 1_000_000, "fails": 1}
        self._settings |= {name: int(value * scale[name]) for name, value in given.items() if value is not None}
        with self._control.open("r+b") as page:
            page.write(struct.pack("=qiii", *self._settings.values()))

    def killed(self) -> None:
        """The processes are dead, and the machine goes on: what they wrote is there, durable or not."""
        assert self._disk is not None
        self._disk.follow(self._log)
        self._disk.look()
        self._log.write_bytes(b"")

    def cut(self, target: Path, chance: random.Random | None = None) -> None:
        """What the disk holds after the power went; the processes are dead already."""
        assert self._disk is not None
        self._disk.follow(self._log)
        self._disk.cut(target, chance)
        self._disk = None
