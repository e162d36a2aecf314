"""Where the records are: `sqlite:///data/posthouse.db` or `postgresql://user@host/name`."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from posthouse import errors

_COMMAND_TAKES = 10.0
"""Seconds for which a command that has the database is waited for."""
_PAUSE = 0.05


class Holder(StrEnum):
    """Who has a database to itself. A server stays; a command is soon done."""

    SERVER = "posthouse serve"
    COMMAND = "posthouse command"


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    path: Path

    def create(self) -> None:
        """The file, for nobody else to read; SQLite gives its log the same mode.

        :raises Misconfigured: it cannot be made.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise errors.Misconfigured(
                f"the database {self.path} cannot be opened: {error.strerror}",
                code="database_unreachable",
                detail=str(error),
            ) from error

    def lock(self, holder: Holder, *, wait: float = _COMMAND_TAKES) -> int:
        """Take `<path>.lock`; the descriptor holds it, so it ends with the process, however
        that ends.

        :param holder: who takes it, as others are told.
        :param wait: seconds for which a command that has it is waited for.
        :raises Misconfigured: a server has it (`database_in_use`), or a command for too long (`database_busy`).
        """
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        there, until = "", time.monotonic() + wait
        while not _taken(lock):
            if there == Holder.SERVER or time.monotonic() >= until:
                os.close(lock)
                raise _in_use(self.path, there)
            time.sleep(_PAUSE)  # whoever has just taken it has not yet said who that is
            there = os.pread(lock, 64, 0).decode(errors="replace")
        with suppress(OSError):  # a disk that is full: whoever comes next waits in vain, and is refused all the same
            os.pwrite(lock, holder.encode(), 0)
            os.truncate(lock, len(holder))
        return lock


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_use(path: Path, holder: str) -> errors.Misconfigured:
    if holder == Holder.SERVER:
        return errors.Misconfigured(
            f"another posthouse serve uses the database {path}; stop it first, or use PostgreSQL for several processes",
            code="database_in_use",
        )
    return errors.Misconfigured(
        f"a posthouse command is at work on the database {path}; try again when it has ended", code="database_busy"
    )


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    url: str
    """As libpq and asyncpg take it; it may name several hosts, `h1:5432,h2:5432`."""

    @property
    def each(self) -> tuple[str, ...]:
        """A URL for each host, in their order."""
        parts = urlsplit(self.url)
        user, at, hosts = parts.netloc.rpartition("@")
        return tuple(urlunsplit(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(","))


def parse(url: str) -> SqliteAddress | PostgresAddress:
    """`sqlite:///relative/path`, `sqlite:////absolute/path`, `postgresql://…` (one host or several).

    :raises Misconfigured: another scheme, or no path.
    """
    parts = urlsplit(url)
    if parts.scheme in ("postgresql", "postgres") and _ports_are_numbers(parts):
        return PostgresAddress("postgresql://" + url.split("://", 1)[1])
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return SqliteAddress(Path(os.path.abspath(unquote(parts.path[1:]))))  # noqa: PTH100 - touches no disk
    raise errors.Misconfigured(
        "the records URL is sqlite:///relative/path, sqlite:////absolute/path or postgresql://user@host/database",
        code="records_url",
    )


def _ports_are_numbers(parts: SplitResult) -> bool:
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    try:
        return all(host.port is None or host.port > 0 for host in hosts)
    except ValueError:
        return False
