"""Where the records are: `sqlite:///data/posthouse.db` or `postgresql://user@host/name`."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from posthouse import errors


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

    def lock(self) -> int:
        """Take `<path>.lock`; the descriptor holds it, so it ends with the process, however
        that ends.

        :raises Misconfigured: another process has it.
        """
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise errors.Misconfigured(
                f"another posthouse serve uses the database {self.path}; stop it first,"
                " or use PostgreSQL for several processes",
                code="database_in_use",
            ) from None
        return lock


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    url: str
    """As libpq and asyncpg take it."""

    @property
    def sqlalchemy_url(self) -> str:
        return "postgresql+asyncpg://" + self.url.split("://", 1)[1]


def parse(url: str) -> SqliteAddress | PostgresAddress:
    """`sqlite:///relative/path`, `sqlite:////absolute/path`, `postgresql://…`.

    :raises Misconfigured: another scheme, or no path.
    """
    parts = urlsplit(url)
    if parts.scheme in ("postgresql", "postgres") and _port_is_a_number(parts):
        return PostgresAddress("postgresql://" + url.split("://", 1)[1])
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return SqliteAddress(Path(os.path.abspath(unquote(parts.path[1:]))))  # noqa: PTH100 - touches no disk
    raise errors.Misconfigured(
        "the records URL is sqlite:///relative/path, sqlite:////absolute/path or postgresql://user@host/database",
        code="records_url",
    )


def _port_is_a_number(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False
