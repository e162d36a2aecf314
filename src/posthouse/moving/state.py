"""Where a move stands, and who may serve meanwhile: a row in the target, a file beside the source."""

from __future__ import annotations

import json
import os
from pathlib import Path

from posthouse import errors
from posthouse.moving.chunks import Chunk, Chunks, decode_key, encode_key
from posthouse.moving.tables import Table
from posthouse.storage.records.address import SqliteAddress, parse
from posthouse.storage.records.base import Records, Tx

_NAME = "move"
_COPYING, _READY = "copying", "ready"

_PUT = """
INSERT INTO move_chunk (relation, upper, hash, row_count, verified)
SELECT v.relation, v.upper, v.hash, v.row_count, v.verified
FROM {v(relation text, upper bytes, hash bytes, row_count int, verified int)} WHERE true
ON CONFLICT (relation, upper) DO UPDATE
SET hash = excluded.hash, row_count = excluded.row_count, verified = excluded.verified"""


async def put_chunk(tx: Tx, relation: str, chunk: Chunk) -> None:
    row = (relation, encode_key(chunk.upper), chunk.hash, chunk.rows, int(chunk.verified))
    await tx.run_each(_PUT, [row])


async def forget_chunk(tx: Tx, relation: str, upper: bytes) -> None:
    """What is in it is not known any more."""
    await tx.run(
        "UPDATE move_chunk SET hash = $1, verified = 0 WHERE relation = $2 AND upper = $3", b"", relation, upper
    )


async def known_chunks(tx: Tx, table: Table) -> Chunks:
    rows = await tx.rows("SELECT upper, hash, row_count, verified FROM move_chunk WHERE relation = $1", table.name)
    chunks = [Chunk(decode_key(upper), hash_, count, bool(verified)) for upper, hash_, count, verified in rows]
    return Chunks(table, sorted(chunks, key=lambda one: one.upper))


async def begin(tx: Tx, tables: list[Table], *, source: str, now: int) -> bool:
    """Takes the target for this source; whether an earlier run is gone on from.

    :raises Conflict: `move_finished`, `move_other_source`, `move_target_in_use`, `move_target_not_empty`.
    """
    if await check_begun_or_free(tx, tables, source, now):
        return True
    await tx.run(
        "INSERT INTO move_state (name, source, state, changed_at) VALUES ($1, $2, $3, $4)", _NAME, source, _COPYING, now
    )
    return False


async def check_begun_or_free(tx: Tx, tables: list[Table], source: str, now: int) -> bool:
    """Whether it was begun. Errors as of `begin`."""
    row = await tx.row("SELECT source, state FROM move_state WHERE name = $1", _NAME)
    if row is None:
        await _check_free(tx, tables, now=now)
        return False
    _check_begun(row[0], row[1], source)
    return True


def _check_begun(begun_from: str, state: str, source: str) -> None:
    if begun_from != source:
        raise errors.Conflict(
            f"The new database is the target of a move from {begun_from}. Go on with that one, or take a new database",
            code="move_other_source",
        )
    if state == _READY:
        raise errors.Conflict(
            "This move is finished: the new database is ready. Start `posthouse serve` with its configuration",
            code="move_finished",
        )


async def _check_free(tx: Tx, tables: list[Table], *, now: int) -> None:
    """:raises Conflict: `move_target_in_use`, `move_target_not_empty`."""
    # By the process's clock and the database's; that they differ much is another's worry.
    if await tx.row("SELECT 1 FROM process WHERE seen_at > $1 LIMIT 1", now - 30_000_000) is not None:
        raise errors.Conflict(
            "A process of Posthouse runs on the new database. Stop it first; its data would mix with what is moved",
            code="move_target_in_use",
        )
    for table in tables:
        if await tx.row(table.beyond(lower=False)) is not None:
            raise errors.Conflict(
                f"The new database is not empty: it has rows in {table.name}. A move needs one of its own;"
                " make a new, empty database and name it in records.url",
                code="move_target_not_empty",
            )


async def mark_ready(tx: Tx, now: int) -> None:
    """From now on it is served. Jobs that the source had claimed wait again."""
    await tx.run("UPDATE job SET due_at = $1, leased = 0 WHERE leased = 1", now)
    await tx.run("UPDATE move_state SET state = $1, changed_at = $2 WHERE name = $3", _READY, now, _NAME)
    await tx.run("DELETE FROM move_chunk")


async def refuse_unfinished(records: Records) -> None:
    """:raises Misconfigured: `move_unfinished`: it is the target of a move that is not at its end."""
    row = await records.read(lambda tx: tx.row("SELECT source, state FROM move_state WHERE name = $1", _NAME))
    if row is not None and row[1] != _READY:
        raise errors.Misconfigured(
            f"What is in this database is being moved here from {row[0]}, and not all of it is here. Finish it with"
            " `posthouse move --to` this configuration, run with the old one; until then the old one serves",
            code="move_unfinished",
        )


def marker(path: Path) -> Path:
    """The file beside a database that was moved away."""
    return path.with_name(path.name + ".moved")


def mark_left(path: Path, *, to: str) -> None:
    """:raises StorageUnavailable: the file cannot be written."""
    try:
        with marker(path).open("w") as file:
            json.dump({"to": to}, file)
            file.flush()
            os.fsync(file.fileno())
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise errors.StorageUnavailable(detail=f"{marker(path)}: {error}") from error


def refuse_left(url: str) -> None:
    """:raises Misconfigured: `moved_away`: what was here was moved, and is served elsewhere."""
    address = parse(url)
    if not isinstance(address, SqliteAddress):
        return
    file = marker(address.path)
    try:
        to = str(json.loads(file.read_text())["to"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        to = "another database"
    raise errors.Misconfigured(
        f"What was in {address.path} was moved to {to} and is served from there. To serve this old copy all the same"
        f" (what came since the move is not in it), stop the new processes and delete {file}",
        code="moved_away",
    )
