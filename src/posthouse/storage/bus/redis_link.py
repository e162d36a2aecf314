"""One connection to Redis for commands, and the knowledge whether Redis is there.

While it is away nobody waits for it: `call` raises `Away` at once, and a task of its own looks
for it, with pauses that grow and vary. Nothing here leaves the room: those who call have
something that stands in.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha1
from typing import Any
from urllib.parse import parse_qs, urlsplit

import structlog
from prometheus_client import Counter, Gauge
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError, RedisError, ResponseError

from posthouse.errors import Misconfigured

log = structlog.get_logger("bus")

CONNECTED = Gauge(
    "posthouse_bus_connected",
    "Whether Redis answers: 1, or 0 while local shares (use commands) or polling (use subscriptions) stand in.",
    ["use"],
)
LOST = Counter("posthouse_bus_lost_total", "Times that Redis was there and then was not, by use.", ["use"])

ANSWER_SECONDS = 0.5
"""For the answer to a call; longer is away."""
CONNECT_SECONDS = 2.0
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PAUSE_FIRST, _PAUSE_LONGEST = 0.1, 3.0


class Away(Exception):
    """Redis does not answer, or refused."""


class Script:
    """Lua that runs in Redis as one step; sent once, then named by its hash."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


class Pause:
    """Seconds between tries: doubling from a tenth to three, each half at random."""

    def __init__(self) -> None:
        self._next = _PAUSE_FIRST

    def reset(self) -> None:
        self._next = _PAUSE_FIRST

    def __call__(self) -> float:
        pause, self._next = self._next, min(self._next * 2, _PAUSE_LONGEST)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311


class Address:
    """`redis://USER:PASSWORD@HOST:PORT/NUMBER?namespace=NAME`; `rediss:` is with TLS.

    :raises Misconfigured: it is none.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
            self._options: dict[str, Any] = dict(parse_url(parts._replace(query="").geturl()))
        except ValueError as error:
            raise _wrong() from error
        self.namespace = query.pop("namespace", ["posthouse"])[0]
        if query or parts.scheme not in ("redis", "rediss") or _NAME.fullmatch(self.namespace) is None:
            raise _wrong()
        self._type: type[Connection] = Connection
        if parts.scheme == "rediss":
            self._type = SSLConnection
            self._options["ssl_cert_reqs"] = ssl.CERT_REQUIRED
        self._options.pop("connection_class", None)

    def connection(self) -> Connection:
        """One that is not open yet; RESP2, so that a subscription is a plain stream of answers."""
        return self._type(
            **self._options,
            protocol=2,
            socket_timeout=None,  # its wait_for may swallow a cancellation; every call here has a time-out
            socket_connect_timeout=CONNECT_SECONDS,
            client_name="posthouse",
        )


def _wrong() -> Misconfigured:
    return Misconfigured("bus.url: needs redis://USER:PASSWORD@HOST:PORT/NUMBER?namespace=NAME")


class Link:
    def __init__(self, address: Address) -> None:
        self.namespace = address.namespace
        self._address = address
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._there = False
        self._looking: asyncio.Task[None] | None = None
        self._closed = False
        self.on_return: list[Callable[[], None]] = []
        """Called on the loop each time Redis is there again."""

    @property
    def there(self) -> bool:
        return self._there

    async def open(self) -> None:
        """One try; when it fails, the looking goes on behind."""
        if not await self._try():
            log.warning("redis_is_away", detail="not reached at the start")
            self._lose()

    async def call(self, *commands: Sequence[str | bytes | int | float]) -> list[Any]:
        """Their answers, in one round trip; one that Redis refused is the error itself.

        :raises Away:
        """
        if not self._there:
            raise Away
        async with self._lock:
            connection = self._connection
            if connection is None:
                raise Away
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await _exchange(connection, commands)
            except (RedisError, OSError, TimeoutError) as error:
                await self._drop(repr(error))
                raise Away from error
            except BaseException:  # cancelled: answers are still on their way to nobody
                await self._drop("")
                raise

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int | float]) -> Any:
        """:raises Away: also when Redis refused it (out of memory, a read-only replica)."""
        (answer,) = await self.call(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        if isinstance(answer, NoScriptError):
            (answer,) = await self.call(("EVAL", script.text, len(keys), *keys, *arguments))
        if isinstance(answer, RedisError):
            log.warning("redis_refuses", detail=str(answer)[:200])
            raise Away from answer
        return answer

    async def close(self) -> None:
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._there = False
        if self._connection is not None:
            with suppress(RedisError, OSError):
                await self._connection.disconnect(nowait=True)

    async def _drop(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
        if not self._there or self._closed:
            return
        if reason:
            LOST.labels("commands").inc()
            log.warning("redis_is_away", detail=reason[:200])
        self._lose()

    def _lose(self) -> None:
        self._there = False
        CONNECTED.labels("commands").set(0)
        if not self._closed and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        pause = Pause()
        while not await self._try():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(pause())
        log.info("redis_is_back")
        for told in self.on_return:
            told()

    async def _try(self) -> bool:
        connection = self._address.connection()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()
                (answer,) = await _exchange(connection, [("PING",)])
                if isinstance(answer, RedisError):
                    raise answer
        except (RedisError, OSError, TimeoutError):
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            return False
        self._connection = connection
        self._there = True
        CONNECTED.labels("commands").set(1)
        return True


async def _exchange(connection: Connection, commands: Sequence[Sequence[str | bytes | int | float]]) -> list[Any]:
    packed = connection.pack_command(*commands[0]) if len(commands) == 1 else connection.pack_commands(commands)
    await connection.send_packed_command(packed, check_health=False)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response(disable_decoding=True))
        except (ReadOnlyError, MasterDownError):
            raise  # another server is the primary now: connect anew
        except ResponseError as error:
            answers.append(error)
    return answers
