"""Where a sink keeps what it accepts: memory, a directory of .eml files, an mbox, a Maildir."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from pathlib import Path
from typing import Protocol

import msgspec

from posthouse.smtpd.sink.journal import Entry
from posthouse.smtpd.sink.options import KeepAs

_FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as accepted: `entry` has the envelope, `data` the octets, CR LF as sent."""

    entry: Entry
    data: bytes


class Memory:
    """The newest messages, bounded by number and octets."""

    def __init__(self, count: int, octets: int) -> None:
        self.messages: deque[Message] = deque()
        self._count = count
        self._room = octets

    def add(self, entry: Entry, data: bytes) -> None:
        self.messages.append(Message(entry, data))
        self._room -= len(data)
        while self.messages and (len(self.messages) > self._count or self._room < 0):
            self._room += len(self.messages.popleft().data)


class Keeper(Protocol):
    def add(self, entry: Entry, data: bytes) -> None: ...


class EmlDirectory:
    """`00000001-PID.eml` with the octets as sent, and `index.jsonl` that names them."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._next = 0

    def add(self, entry: Entry, data: bytes) -> None:
        while True:
            self._next += 1
            name = f"{self._next:08d}-{os.getpid()}.eml"
            try:
                with (self._path / name).open("xb") as file:
                    file.write(data)
                break
            except FileExistsError:  # an earlier run had this process number
                continue
        line = msgspec.json.encode({"file": name, **msgspec.to_builtins(entry)})
        with (self._path / "index.jsonl").open("ab") as index:
            index.write(line + b"\n")


class Mbox:
    """One file in the mboxrd form (RFC 4155 and `>From ` quoting at every depth), LF line ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def add(self, entry: Entry, data: bytes) -> None:
        sender = (entry.sender or "MAILER-DAEMON").encode()
        date = time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(entry.at)).encode()
        body = _FROM_LINE.sub(rb">\1", data.replace(b"\r\n", b"\n"))
        ending = b"\n" if body.endswith(b"\n") else b"\n\n"
        with self._path.open("ab") as file:
            file.write(b"From %s %s\n%s%s" % (sender, date, body, ending))


class Maildir:
    """Delivered by way of `tmp`, so a reader never sees half a message."""

    def __init__(self, path: Path) -> None:
        for folder in ("tmp", "new", "cur"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        self._path = path
        self._next = 0

    def add(self, entry: Entry, data: bytes) -> None:
        self._next += 1
        name = f"{time.time_ns()}.P{os.getpid()}Q{self._next}.sink"
        (self._path / "tmp" / name).write_bytes(data.replace(b"\r\n", b"\n"))
        (self._path / "tmp" / name).rename(self._path / "new" / name)


class Sample:
    """Each N-th message, beginning with the first."""

    def __init__(self, into: Keeper, every: int) -> None:
        self._into = into
        self._every = every
        self._seen = 0

    def add(self, entry: Entry, data: bytes) -> None:
        if self._seen % self._every == 0:
            self._into.add(entry, data)
        self._seen += 1


def keeper(path: Path, form: KeepAs, every: int = 1) -> Keeper:
    """
    :param every: of so many messages one is kept.
    :raises OSError: the directory cannot be made.
    """
    return _of(path, form) if every == 1 else Sample(_of(path, form), every)


def _of(path: Path, form: KeepAs) -> Keeper:
    match form:
        case "eml":
            return EmlDirectory(path)
        case "mbox":
            return Mbox(path)
        case "maildir":
            return Maildir(path)
