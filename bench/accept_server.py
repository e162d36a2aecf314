"""Posthouse's gateway in a process of its own, with a house that does as little as it can:

    python -m bench.accept_server instant|durable --directory DIR --port PORT

`instant` accepts and forgets. `durable` keeps each message as a row of SQLite through the
Records port; messages that arrive while a commit is under way share the next one.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
from collections.abc import Awaitable, Sequence
from mmap import mmap
from pathlib import Path
from typing import Literal

import uvloop

from posthouse.smtp.command import Hello, Mail, Rcpt
from posthouse.smtp.offer import Limits
from posthouse.smtp.peer import Tls
from posthouse.smtp.reply import Reply
from posthouse.smtpd.conversation import Answer
from posthouse.smtpd.gateway import Gateway, Listener, Options, Spooling
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records

Kind = Literal["instant", "durable"]
_KEPT = (Reply(250, "2.0.0", ("Ok",)),)
_FAILED = (Reply(451, "4.3.0", ("Not stored",)),)
_TABLE = "CREATE TABLE message (id bigint PRIMARY KEY, sender text, recipient text, raw bytea)"
_INSERT = (
    "INSERT INTO message (id, sender, recipient, raw) "
    "SELECT v.id, v.sender, v.recipient, v.raw FROM {v(id int, sender text, recipient text, raw bytes)} WHERE true"
)
_MOST = 512  # rows of one commit
Pending = tuple[tuple[int, str, str, bytes], "asyncio.Future[Sequence[Reply]]"]


class Instant:
    """Accepts everything at once."""

    def __init__(self, done: asyncio.Future[Sequence[Reply]]) -> None:
        self._done = done

    def connected(self) -> Answer:
        return None

    def early(self) -> None:
        return None

    def hello(self, command: Hello, tls: Tls | None) -> Answer:
        return None

    def mail(self, command: Mail) -> Answer:
        return None

    def rcpt(self, command: Rcpt) -> Answer:
        return None

    def end(self, message: bytes | mmap) -> Awaitable[Sequence[Reply]]:
        return self._done

    def reset(self) -> None:
        return None

    def lost(self) -> None:
        return None


class Durable(Instant):
    """Accepts when the row is on disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._envelope = ("", "")

    def mail(self, command: Mail) -> Answer:
        self._envelope = (command.reverse_path, "")

    def rcpt(self, command: Rcpt) -> Answer:
        self._envelope = (self._envelope[0], command.forward_path)

    def end(self, message: bytes | mmap) -> Awaitable[Sequence[Reply]]:
        return self._store.put(*self._envelope, bytes(message))


class Store:
    """Group commit: one write at a time, with all that came since the last."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._pending: list[Pending] = []
        self._count = 0
        self._writing: asyncio.Task[None] | None = None

    async def create(self) -> None:
        async def table(tx: Tx) -> None:
            await tx.run(_TABLE)

        await self._records.write(table)

    def put(self, sender: str, recipient: str, raw: bytes) -> asyncio.Future[Sequence[Reply]]:
        future: asyncio.Future[Sequence[Reply]] = asyncio.get_running_loop().create_future()
        self._count += 1
        self._pending.append(((self._count, sender, recipient, raw), future))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())
        return future

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:_MOST], self._pending[_MOST:]

            async def work(tx: Tx, rows: Sequence[Pending] = batch) -> None:
                await tx.run_each(_INSERT, [row for row, _ in rows])

            try:
                await self._records.write(work)
                replies = _KEPT
            except Exception:
                replies = _FAILED
            for _, future in batch:
                future.set_result(replies)
        self._writing = None


async def serve(kind: Kind, port: int, directory: Path) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    listeners = [Listener("mx", "127.0.0.1", port)]
    options = Options(
        "bench.example", listeners, Spooling(directory / "spool"), per_address=0, limits=Limits(idle=10_000)
    )
    records: Records | None = None
    if kind == "durable":
        records = await open_records(f"sqlite:///{directory}/accept.db", exclusive=True)
        store = Store(records)
        await store.create()
        gateway = Gateway(lambda _: Durable(store), options)
    else:
        done: asyncio.Future[Sequence[Reply]] = loop.create_future()
        done.set_result(_KEPT)
        gateway = Gateway(lambda _: Instant(done), options)
    gc.freeze()
    async with gateway:
        await stop.wait()
    if records is not None:
        await records.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["instant", "durable"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.kind, arguments.port, arguments.directory))


if __name__ == "__main__":
    main()
