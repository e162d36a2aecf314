"""Mail as other programs keep it on disk, found and read: mbox files, Maildirs, .eml files.

A `Store` is one mbox file or one folder of files. Its `letters` come in an order that does not
change, each with a mark that stays the same from one run to the next: of an mbox file, where the
letter ends in it; of a file, its own name. Bytes are given as they are, but for two things: what
mbox quotes is unquoted, and a message that has no CR LF at all gets CR LF at its line ends.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from posthouse.errors import Invalid
from posthouse.mail import maildir, mbox

_KEYWORDS_FILE = "dovecot-keywords"
_MESSAGE = re.compile(r".+\.(?:eml|rfc822)|\d+\.?", re.IGNORECASE)
"""Names of files that are a message each; MH and Cyrus only number them."""
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|%]')
_DEPTH = 20
_START = 4096


@dataclass(frozen=True, slots=True)
class Letter:
    """One message. `source` and `position`: its mark. `received_at` None: as its header says."""

    source: str
    position: int
    name: str
    """For people: where it is."""
    size: int
    read: Callable[[], bytes]
    keywords: tuple[str, ...] = ()
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """`place`: the mailbox that it was, as names from the top; empty: where the import goes.
    `sources`: those of its letters, of an mbox file the only one. `octets`: of all of it."""

    path: Path
    kind: str
    place: tuple[str, ...]
    octets: int
    letters: Callable[[Mapping[str, int]], Iterator[Letter]]
    """Given how far each source has come: those of an mbox file that are left, all others."""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """How to read. `label`: another one is another import. `into`: the mailbox that it goes to."""

    into: str = ""
    label: str = ""
    form: mbox.Form = "auto"

    def source(self, kind: str, *names: str) -> str:
        told = "\0".join((self.into, self.label, *names)).encode(errors="surrogateescape")
        return f"{kind}:{hashlib.sha256(told).hexdigest()[:40]}"


def stores(path: Path, look: Look) -> list[Store]:
    """What lies there, in order of name.

    :raises Invalid: code `no_mail`: nothing that could be mail.
    :raises OSError:
    """
    path = path.resolve(strict=True)
    if path.is_file():
        return [_of_file(path, look, ())]
    found = list(_walk(path, look, (), 0))
    if not found:
        raise Invalid(
            f"{path} holds no mail: no mbox file, no Maildir (with cur and new), no .eml file", code="no_mail"
        )
    return found


def _of_file(path: Path, look: Look, place: tuple[str, ...]) -> Store:
    with path.open("rb") as file:
        start = file.read(_START)
    if start.lstrip(b"\r\n").startswith(b"From "):
        return _mbox(path, look, place, start.lstrip(b"\r\n").partition(b"\n")[0])
    return _files(path.parent, [path], look, place)


def _walk(folder: Path, look: Look, place: tuple[str, ...], depth: int) -> Iterator[Store]:
    """Symbolic links to folders are not followed."""
    if depth > _DEPTH:
        return
    entries = sorted(folder.iterdir(), key=lambda one: one.name)
    is_maildir = _is_maildir(folder)
    if is_maildir:
        yield _maildir(folder, look, place)
    loose = [one for one in entries if _MESSAGE.fullmatch(one.name) and one.is_file()]
    if loose:
        yield _files(folder, loose, look, place)
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink() and not (is_maildir and entry.name in {"cur", "new", "tmp"}):
            named = entry.name.startswith(".") and _is_maildir(entry)
            below = maildir.folder(entry.name) if named else (_named(entry.name.removesuffix(".mbox")),)
            yield from _walk(entry, look, (*place, *below), depth + 1)
        elif entry.is_file() and entry not in loose and _looks_like_mbox(entry):
            name = _named(entry.name.removesuffix(".mbox"))
            yield _of_file(entry, look, place if name == "mbox" else (*place, name))


def _is_maildir(folder: Path) -> bool:
    return (folder / "cur").is_dir() and (folder / "new").is_dir()


def _looks_like_mbox(path: Path) -> bool:
    """By its beginning: files of indexes and settings lie beside mail."""
    try:
        with path.open("rb") as file:
            return file.read(_START).lstrip(b"\r\n").startswith(b"From ")
    except OSError:
        return False


def _mbox(path: Path, look: Look, place: tuple[str, ...], first: bytes) -> Store:
    # By its first line too: another file under the same name is another import.
    source = look.source("mbox", str(path), hashlib.sha256(first).hexdigest())

    def letters(come: Mapping[str, int]) -> Iterator[Letter]:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = come.get(source, 0)
            for piece in mbox.pieces(data, at, look.form):
                raw = mbox.message(data, piece)
                # The separating octets count with the letter before them, so that the sum is the file.
                size, at = piece.after - at, piece.after
                when, words = mbox.received_at(piece.envelope), tuple(mbox.keywords(data, piece))
                name = f"{path} at octet {piece.start}"
                yield Letter(source, piece.after, name, size, lambda raw=raw: raw, words, when)

    return Store(path, "mbox", place, path.stat().st_size, letters, (source,))


def _maildir(folder: Path, look: Look, place: tuple[str, ...]) -> Store:
    files = [
        file
        for sub in ("new", "cur")
        for file in (folder / sub).iterdir()
        if not file.name.startswith(".") and file.is_file()
    ]
    files.sort(key=lambda file: maildir.in_order(file.name))
    custom = _custom(folder)
    # A flag that changes renames the file; what is before the flags stays.
    marks = {file: look.source("maildir", str(folder), maildir.base_name(file.name)) for file in files}

    def letters(_: Mapping[str, int]) -> Iterator[Letter]:
        for file in files:
            at = _moved(folder, file)
            if at is None:
                continue
            told = at.stat()
            when = datetime.fromtimestamp(told.st_mtime, UTC)
            words = tuple(maildir.keywords(at.name, custom))
            yield Letter(marks[file], 0, str(at), told.st_size, lambda at=at: _read(at), words, when)

    return Store(folder, "maildir", place, sum(file.stat().st_size for file in files), letters, tuple(marks.values()))


def _moved(folder: Path, file: Path) -> Path | None:
    """Where the file is now: a reader may have moved it from new to cur, or set a flag."""
    if file.exists():
        return file
    base = maildir.base_name(file.name)
    return next((one for one in (folder / "cur").iterdir() if maildir.base_name(one.name) == base), None)


def _custom(folder: Path) -> list[str]:
    """What the letters a to z mean; Dovecot keeps it in the folder, one `number name` a line."""
    try:
        lines = (folder / _KEYWORDS_FILE).read_text(errors="replace").splitlines()[:26]
    except OSError:
        return []
    names: dict[int, str] = {}
    for line in lines:
        number, _, name = line.partition(" ")
        if number.isdecimal() and name:
            names[int(number)] = name
    return [names.get(n, "") for n in range(max(names, default=-1) + 1)] if max(names, default=0) < 26 else []


def _files(folder: Path, files: list[Path], look: Look, place: tuple[str, ...]) -> Store:
    marks = {file: look.source("eml", str(file)) for file in files}

    def letters(_: Mapping[str, int]) -> Iterator[Letter]:
        for file in files:
            yield Letter(marks[file], 0, str(file), file.stat().st_size, lambda file=file: _read(file))

    return Store(folder, "eml", place, sum(file.stat().st_size for file in files), letters, tuple(marks.values()))


def _read(file: Path) -> bytes:
    return mbox.with_crlf(file.read_bytes())


def free_name(name: str) -> str:
    """A mailbox's name as a file's, on every system: what cannot be is percent-encoded."""
    kept = _NOT_IN_NAMES.sub(lambda found: quote(found[0], safe=""), name)
    return kept if kept.strip(".") else kept.replace(".", "%2E")


def _named(file: str) -> str:
    """What `free_name` made it of; another name is as it is."""
    name = unquote(file)
    return name if free_name(name) == file else file


def same_device_name(path: Path) -> Path:
    """Where a file is written before it is complete and takes its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
