"""What a power cut leaves of a directory, from the log that shim.c writes.

The rules of POSIX, at their strictest: a file holds what it held when the last fsync of it that
returned began; a directory has the names that it had at its last fsync, and the fsync of a new
file does not make its name durable. A rename that is seen at its old place only is undone, one
whose new name is durable may leave the old one too; a file is never without both.

What was changed after that may have reached the disk all the same: with a `random.Random`,
some of the later writes of each file (a part of one, too), and the first so many changes of each
directory, survive. `-shm` files of SQLite hold nothing durable (they are mapped) and are left out.
"""

from __future__ import annotations

import random
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_ENTRY = struct.Struct("=IIQq")
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Change:
    """Of a file: `data` written at `at`; None: cut to `at` octets."""

    at: int
    data: bytes | None

    def apply(self, held: bytearray) -> None:
        if self.data is None:
            del held[self.at :]
            held.extend(bytes(self.at - len(held)))
        else:
            held.extend(bytes(max(0, self.at - len(held))))
            held[self.at : self.at + len(self.data)] = self.data


@dataclass(slots=True, eq=False)
class Step:
    """Of a directory: `what` gets the name; None: the name goes. `after`: not without this one."""

    name: str
    what: File | Directory | None
    after: tuple[Directory, Step] | None = None
    done: bool = False


@dataclass(slots=True, eq=False)
class File:
    """`later`: changes that no fsync covers yet; `covered`: changes that one covers, in all."""

    mode: int = 0o600
    durable: bytearray = field(default_factory=bytearray)
    later: list[Change] = field(default_factory=list[Change])
    covered: int = 0
    begun: dict[int, int] = field(default_factory=dict[int, int])

    def sync_begins(self, number: int) -> None:
        self.begun[number] = self.covered + len(self.later)

    def sync_ends(self, number: int) -> None:
        count = max(0, self.begun.pop(number) - self.covered)
        for change in self.later[:count]:
            change.apply(self.durable)
        del self.later[:count]
        self.covered += count

    def become(self, data: bytes) -> None:
        held = bytearray(self.durable)
        for change in self.later:
            change.apply(held)
        if held != data:
            self.later += [Change(len(data), None), Change(0, data)]

    def left(self, chance: random.Random | None) -> bytes:
        held = bytearray(self.durable)
        for change in _some(self.later, chance) if chance else []:
            change.apply(held)
        return bytes(held)


def _some(later: list[Change], chance: random.Random) -> list[Change]:
    kind = chance.random()
    if kind < 0.2:
        return []
    if kind < 0.4:
        return later
    if kind < 0.6:
        return later[: chance.randint(0, len(later))]
    return [_torn(change, chance) for change in later if chance.random() < 0.5]


def _torn(change: Change, chance: random.Random) -> Change:
    if change.data is None or len(change.data) <= _SECTOR or chance.random() < 0.7:
        return change
    start, end = sorted(chance.randrange(0, len(change.data), _SECTOR) for _ in range(2))
    return Change(change.at + start, change.data[start:end])


@dataclass(slots=True, eq=False)
class Directory:
    durable: dict[str, File | Directory] = field(default_factory=dict)  # type: ignore[type-arg]
    now: dict[str, File | Directory] = field(default_factory=dict)  # type: ignore[type-arg]
    later: list[Step] = field(default_factory=list[Step])
    covered: int = 0
    begun: dict[int, int] = field(default_factory=dict[int, int])

    def add(self, step: Step) -> None:
        self.later.append(step)
        if step.what is None:
            self.now.pop(step.name, None)
        else:
            self.now[step.name] = step.what

    def sync_begins(self, number: int) -> None:
        self.begun[number] = self.covered + len(self.later)

    def sync_ends(self, number: int) -> None:
        self.settle(max(0, self.begun.pop(number) - self.covered))

    def settle(self, count: int) -> None:
        """The first so many steps are durable, and what they must not be without."""
        steps, self.later = self.later[:count], self.later[count:]
        self.covered += len(steps)
        for step in steps:
            if step.after is not None and not step.after[1].done:
                where, before = step.after
                where.settle(where.later.index(before) + 1)
            step.done = True
            if step.what is None:
                self.durable.pop(step.name, None)
            else:
                self.durable[step.name] = step.what


class Disk:
    """A directory and its log. Made from what is there, all of it durable."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[int, File | Directory] = {}
        self._top = self._read(root)

    def _read(self, path: Path) -> Directory:
        directory = Directory()
        self._known[path.stat().st_ino] = directory
        for entry in sorted(path.iterdir()):
            state = entry.stat()
            if stat.S_ISDIR(state.st_mode):
                found: File | Directory = self._read(entry)
            else:
                found = self._known[state.st_ino] = File(stat.S_IMODE(state.st_mode), bytearray(entry.read_bytes()))
            directory.durable[entry.name] = directory.now[entry.name] = found
        return directory

    def follow(self, log: Path) -> None:
        """Up to its last whole entry: the process may have been killed while it wrote one."""
        for kind, number, at, data in _entries(log.read_bytes()):
            self._take(kind, number, at, data)

    def look(self) -> None:
        """Learn what a killed process had done and could not tell: it is there, and not durable."""
        for known in self._known.values():
            known.begun.clear()
        self._look(self._top, self._root, {id(one) for one in _all(self._top)})

    def _look(self, directory: Directory, path: Path, named: set[int]) -> None:
        there = {entry.name: entry for entry in path.iterdir()}
        for name, entry in there.items():
            number, is_directory = entry.stat().st_ino, entry.is_dir()
            found = self._known.get(number)
            if found is None or id(found) not in named:
                found = self._known[number] = Directory() if is_directory else File()
            if directory.now.get(name) is not found:
                directory.add(Step(name, found))
            if isinstance(found, Directory):
                self._look(found, entry, named)
            elif not name.endswith("-shm"):
                found.become(entry.read_bytes())
        for name in directory.now.keys() - there.keys():
            directory.add(Step(name, None))

    def _take(self, kind: str, number: int, at: int, data: bytes) -> None:
        if kind in "cm":
            self._known[number] = made = File() if kind == "c" else Directory()
            where, name = self._place(data)
            where.add(Step(name, made))
        elif kind == "u":
            where, name = self._place(data)
            where.add(Step(name, None))
        elif kind == "r":
            self._rename(*data.split(b"\0"))
        elif kind in "wt":
            file = self._known[number]
            assert isinstance(file, File)
            file.later.append(Change(at, data if kind == "w" else None))
        elif kind == "s":
            self._known[number].sync_begins(at)
        else:
            assert kind == "S", kind
            self._known[number].sync_ends(at)

    def _rename(self, old: bytes, new: bytes) -> None:
        (source, before), (target, after) = self._place(old), self._place(new)
        added = Step(after, source.now[before])
        target.add(added)
        source.add(Step(before, None, (target, added)))

    def _place(self, path: bytes) -> tuple[Directory, str]:
        *parents, name = Path(path.decode()).relative_to(self._root).parts
        directory = self._top
        for parent in parents:
            found = directory.now[parent]
            assert isinstance(found, Directory)
            directory = found
        return directory, name

    def cut(self, target: Path, chance: random.Random | None = None) -> None:
        """Write what is left into the new directory `target`. Only once: the disk is as it is.

        :param chance: lets some of what was not made durable survive; None: nothing of it.
        """
        if chance is not None:
            self._survive(self._top, chance)
        _write(self._top, target, chance)

    def _survive(self, directory: Directory, chance: random.Random) -> None:
        directory.settle(chance.choice((0, len(directory.later), chance.randint(0, len(directory.later)))))
        for found in list(directory.durable.values()):
            if isinstance(found, Directory):
                self._survive(found, chance)


def _all(directory: Directory) -> Iterator[File | Directory]:
    yield directory
    for found in directory.now.values():
        if isinstance(found, Directory):
            yield from _all(found)
        else:
            yield found


def _write(directory: Directory, path: Path, chance: random.Random | None) -> None:
    path.mkdir(mode=0o700)
    for name, found in directory.durable.items():
        if isinstance(found, Directory):
            _write(found, path / name, chance)
        elif not name.endswith("-shm"):
            (path / name).write_bytes(found.left(chance))
            (path / name).chmod(found.mode)


def _entries(log: bytes) -> Iterator[tuple[str, int, int, bytes]]:
    place = 0
    while place + _ENTRY.size <= len(log):
        kind, length, number, at = _ENTRY.unpack_from(log, place)
        place += _ENTRY.size
        if place + length > len(log):
            return
        yield chr(kind), number, at, log[place : place + length]
        place += length
