"""Forwards TCP ports in both directions of a network that may be cut, and outlives the cut.

    python -m tests.crash.cluster.forward LISTEN CONNECT PORT…

A connection that cannot be passed on now is held until it can: nobody is told of the cut.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

_PAUSE = 0.2
_CONNECT_SECONDS = 2.0


async def _passed_on(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            raise
        except (OSError, TimeoutError):
            await asyncio.sleep(_PAUSE)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.close()


async def forward(listen: str, connect: str, ports: list[int]) -> None:
    """Until it is canceled."""

    async def serve(port: int) -> asyncio.Server:
        async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                there, back = await _passed_on(connect, port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(_pump(reader, back), _pump(there, writer))

        return await asyncio.start_server(passed, listen, port)

    servers = [await serve(port) for port in ports]
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(forward(sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]]))
