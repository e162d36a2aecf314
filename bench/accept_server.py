"""Posthouse's gateway in a process of its own, with a house that accepts and forgets:

python -m bench.accept_server --directory DIR --port PORT
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
from collections.abc import Awaitable, Sequence
from mmap import mmap
from pathlib import Path

import uvloop

from posthouse.smtp.command import Hello, Mail, Rcpt
from posthouse.smtp.offer import Limits
from posthouse.smtp.peer import Tls
from posthouse.smtp.reply import Reply
from posthouse.smtpd.conversation import Answer
from posthouse.smtpd.gateway import Gateway, Listener, Options, Spooling


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


async def serve(port: int, directory: Path) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    listeners = [Listener("mx", "127.0.0.1", port)]
    options = Options(
        "bench.example", listeners, Spooling(directory / "spool"), per_address=0, limits=Limits(idle=10_000)
    )
    done: asyncio.Future[Sequence[Reply]] = loop.create_future()
    done.set_result((Reply(250, "2.0.0", ("Ok",)),))
    gateway = Gateway(lambda _: Instant(done), options)
    gc.freeze()
    async with gateway:
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.port, arguments.directory))


if __name__ == "__main__":
    main()
