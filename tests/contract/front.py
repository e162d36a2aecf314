"""An HTTP server that stands before a real one, and fails as it is told.

    async with front(endpoint) as before:
        before.rules.append(Rule(method="PUT", status=503, times=2))
        ... talk to before.url ...
        before.seen, before.connections

What no rule answers goes to the real server as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Rule:
    """For the next `times` requests that it is about. `status`: answer so at once. `slow`: seconds
    before it is answered. `cut`: the connection ends before an answer. `change`: of the answer's body,
    which must stay as long."""

    method: str = ""
    path: str = ""
    status: int = 0
    body: bytes = b""
    slow: float = 0.0
    cut: bool = False
    change: Callable[[bytes], bytes] | None = None
    times: int = 1_000_000

    def about(self, method: str, target: str) -> bool:
        return self.times > 0 and self.method in ("", method) and self.path in target


@dataclass
class Front:
    upstream: tuple[str, int]
    url: str = ""
    rules: list[Rule] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    connections: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self._one(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        body = await _body(head, reader)
        self.seen.append(f"{method} {target}")
        rule = next((rule for rule in self.rules if rule.about(method, target)), None)
        if rule is not None:
            rule.times -= 1
            await asyncio.sleep(rule.slow)
            if rule.cut:
                return False
            if rule.status:
                writer.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n" % (rule.status, len(rule.body)) + rule.body)
                return True
        answer_head, answer = await self._ask(method, head, body)
        if rule is not None and rule.change is not None:
            answer = rule.change(answer)
        writer.write(answer_head + answer)
        await writer.drain()
        return True

    async def _ask(self, method: str, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(*self.upstream)
        try:
            if b"expect: 100-continue" in head.lower():
                raise AssertionError("not spoken here")
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if method == "HEAD" or b" 204 " in answer[:20]:
                return answer, b""
            return answer, await _body(answer, reader)
        finally:
            writer.close()

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            body += size + await reader.readexactly(int(size, 16) + 2)
            if not int(size, 16):
                return body
    return await reader.readexactly(int(fields.get(b"content-length", b"0")))


@asynccontextmanager
async def front(endpoint: str) -> AsyncIterator[Front]:
    parts = urlsplit(endpoint)
    assert parts.hostname is not None
    assert parts.port is not None
    made = Front((parts.hostname, parts.port))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, limit=2**20)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        await made.end()
        await server.wait_closed()
