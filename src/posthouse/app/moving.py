"""Moving from embedded storage to the engines of another configuration: both ends opened, the
source's lock taken, the target proved."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from posthouse import clock as clocks
from posthouse import errors
from posthouse.app import values
from posthouse.config import Settings
from posthouse.config.schema import masked
from posthouse.mailbox.check import Check
from posthouse.moving import Ends, Move, Moved, Watch, mark_left
from posthouse.seal import load
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.queue.factory import open_queue
from posthouse.storage.records.address import Holder, SqliteAddress, parse
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations.run import migrate
from posthouse.storage.search.factory import open_search, where

_LOOK = 0.1
"""Seconds between looks whether the source is at rest."""
_FRESHEN = 15.0
"""Seconds after which what changed is brought once more, while it is waited for."""
_FINDINGS = 5
_UNNAMED = "blob_orphan"
"""A finding that is not the move's: what was uploaded and never named, here as there."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """`deep`: read back every row and blob. `stop`: end the source's `serve`, by SIGTERM."""

    deep: bool = False
    stop: bool = False


async def examine(source: Settings, target: Settings, watch: Watch) -> dict[str, int]:
    """Whether it can be moved: rows of each table. Of the target, the schema is made.

    :raises Misconfigured, Conflict, StorageUnavailable: why not.
    """
    path = _agreed(source, target)
    await migrate(target.records.url)
    async with _ends(source, target) as (old, new):
        return await Move(old, new, name=str(path), clock=clocks.now, watch=watch).examine()


async def move(source: Settings, target: Settings, wishes: Wishes, watch: Watch, say: Callable[[str], None]) -> Moved:
    """All of it, gone on from where an earlier run stopped.

    :param say: a sentence for whoever waits.
    :raises Misconfigured, Conflict: it cannot be made so; nothing was changed at the source.
    :raises StorageUnavailable, Corrupt: run it again when that is mended; until it ends, the source serves.
    """
    path = _agreed(source, target)
    with _alone(path):
        await migrate(target.records.url)
        async with _ends(source, target) as (old, new):
            moving = Move(old, new, name=str(path), clock=clocks.now, watch=watch)
            if await moving.begin():
                say("An earlier run is gone on from.")
            await moving.copy()
            await moving.approach(deep=wishes.deep)
            lock = await _at_rest(source, path, wishes, moving, say)
            try:
                return await moving.finish(
                    deep=wishes.deep,
                    check=lambda: _proved(new),
                    leave=lambda: mark_left(path, to=masked(target.records.url)),
                )
            finally:
                os.close(lock)


def _agreed(source: Settings, target: Settings) -> Path:
    """The source's file.

    :raises Misconfigured: `move_source`, `move_target`, `move_key`.
    """
    address = parse(source.records.url)
    if not isinstance(address, SqliteAddress) or not address.path.exists():
        raise errors.Misconfigured(
            "There is no embedded database to move from: a move goes from SQLite to PostgreSQL. Run it with the old"
            " configuration (--config, --data-dir), and name the new one with --to",
            code="move_source",
        )
    if isinstance(parse(target.records.url), SqliteAddress):
        raise errors.Misconfigured(
            "The configuration to move to names no PostgreSQL in records.url (a POSTHOUSE_… variable counts for both"
            " configurations; unset it)",
            code="move_target",
        )
    ours = load(source.secret_key_file).derive("move")
    theirs = load(target.secret_key_file).derive("move") if target.secret_key_file.exists() else ()
    if not set(ours) <= set(theirs):
        raise errors.Misconfigured(
            f"The new configuration has not the same master key, so it could open no DKIM key. Copy it:"
            f" install -D -m 600 {source.secret_key_file} {target.secret_key_file}",
            code="move_key",
        )
    return address.path


@contextmanager
def _alone(path: Path) -> Generator[None, None, None]:
    """One move from a database at a time. :raises Conflict: `move_running`."""
    handle = os.open(f"{path}.move.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.Conflict(
                f"Another `posthouse move` from {path} is at work. Wait for it, or end it first", code="move_running"
            ) from None
        yield
    finally:
        os.close(handle)


@asynccontextmanager
async def _ends(source: Settings, target: Settings) -> AsyncGenerator[tuple[Ends, Ends], None]:
    """Open, the source for reading only; what the target names answers."""
    async with AsyncExitStack() as stack:
        old = await _end(source, stack, read_only=True)
        new = await _end(target, stack, read_only=False)
        await new.records.ready()
        for store in new.stores:
            await store.ready()
        queue = await open_queue(target.queue.url, new.records, new.attachments, clock=clocks.now)
        stack.push_async_callback(queue.close)
        await queue.ready()
        search = await open_search(where(target.search.url, target.records.url))
        stack.push_async_callback(search.close)
        await search.ready()
        yield old, new


async def _end(settings: Settings, stack: AsyncExitStack, *, read_only: bool) -> Ends:
    records = await open_records(settings.records.url, read_only=read_only, statement_timeout=600)
    stack.push_async_callback(records.close)
    attachments = await open_blobs(**values.blob_options(settings))
    stack.push_async_callback(attachments.close)
    arrived = await open_blobs(**values.blob_options(settings, "mail"))
    stack.push_async_callback(arrived.close)
    return Ends(records, attachments, arrived)


async def _at_rest(source: Settings, path: Path, wishes: Wishes, moving: Move, say: Callable[[str], None]) -> int:
    """The source's lock, once nobody else has it: from then on nobody writes there."""
    lock = _try_lock(path)
    if lock is not None:
        return lock
    if wishes.stop:
        os.kill(_server_of(source, path), signal.SIGTERM)
        say("`posthouse serve` was told to stop; waiting for its end.")
    else:
        say("Nearly everything is there. Stop `posthouse serve` now (SIGTERM or Ctrl-C); the rest takes a moment.")
    fresh_at = monotonic()
    while (lock := _try_lock(path)) is None:
        await asyncio.sleep(_LOOK)
        if not wishes.stop and monotonic() - fresh_at > _FRESHEN:
            await moving.round()
            fresh_at = monotonic()
    return lock


def _try_lock(path: Path) -> int | None:
    try:
        return SqliteAddress(path).lock(Holder.COMMAND, wait=0.0)
    except errors.Misconfigured:
        return None


def _server_of(source: Settings, path: Path) -> int:
    """:raises NotFound: `move_no_server`."""
    try:
        pid = int(json.loads((source.data_dir / "serve.json").read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        pid = 0
    # The file may have been left behind, and another process have its number now.
    if not pid or not _holds(pid, path):
        raise errors.NotFound(
            f"{source.records.url} is in use, but {source.data_dir}/serve.json names no process that runs. Stop"
            " `posthouse serve` yourself and run this again without --stop",
            code="move_no_server",
        )
    return pid


def _holds(pid: int, path: Path) -> bool:
    """Whether this process took the database's lock; true where the kernel does not tell."""
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return True
    inode = f":{Path(f'{path}.lock').stat().st_ino}"
    return any(
        fields[1] == "FLOCK" and fields[4] == str(pid) and fields[5].endswith(inode)
        for fields in locks
        if len(fields) > 5
    )


async def _proved(new: Ends) -> None:
    """As `posthouse check` does. :raises Corrupt: `move_check`."""
    found = [one async for one in Check(new.records, new.arrived).all() if one.code != _UNNAMED]
    if found:
        shown = "; ".join(f"{one.code}: {one.text}" for one in found[:_FINDINGS])
        raise errors.Corrupt(
            f"`posthouse check` finds {len(found)} faults in what was moved ({shown}). The old database has the same:"
            " start it, run `posthouse check --mend`, and move again",
            code="move_check",
        )
