"""Which revision a schema has, and which is the newest: with plain SQL and no Alembic."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from posthouse.storage.records.address import SqliteAddress

VERSIONS = Path(__file__).with_name("versions")
READ = "SELECT version_num FROM alembic_version"
_BUSY = 10.0


def head() -> str:
    """The newest revision that this release knows; a migration's file begins with its own."""
    return max(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py"))


def of_sqlite(address: SqliteAddress) -> str | None:
    """None when it cannot be told: there is no file, no schema of ours, or no database."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{address.path.as_uri()}?mode=rw", timeout=_BUSY, uri=True)
        ) as connection:
            row = connection.execute(READ).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])
