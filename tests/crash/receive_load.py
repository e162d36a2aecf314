"""Peers that keep bringing mail, through whatever happens to the server.

A letter without a 250 is brought again, in the same envelope and with the same bytes, until
there is one; some that had theirs are brought once more, as by a peer that lost the answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from tests.receiving import DOMAIN, SMALL

ACCOUNTS = ("ann", "bob", "cid", "dee", "eve", "fay", "gus", "hal")
CREW = ("ann", "dee", "hal")
"""Behind the alias `crew`."""
SENDER = "peer.example"
_PATIENCE = 30.0


class Refused(Exception):
    """The peer was told to come back; its words."""


@dataclass(frozen=True, slots=True)
class Letter:
    """`to`: local parts as in RCPT. `accounts`: whose mailboxes it must reach."""

    number: int
    to: tuple[str, ...]
    accounts: frozenset[str]
    raw: bytes

    @property
    def digest(self) -> str:
        return sha256(self.raw).hexdigest()


@dataclass(frozen=True, slots=True)
class Claim:
    """What is remembered of a letter."""

    number: int
    accounts: frozenset[str]
    digest: str


class Writer:
    """Letters of every kind that stores differ in: small and large, with a twin under the same
    Message-ID, the same bytes for somebody else, answers to earlier ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._number = 0
        self._last: Letter | None = None
        self._had = frozenset[str]()
        """Accounts that the bytes of the last letter have gone to."""

    def letter(self) -> Letter:
        self._number += 1
        chance, last = self._random, self._last
        if last is not None and len(self._had) < 4 and chance.random() < 0.05:
            others = [name for name in ACCOUNTS if name not in self._had]
            to, raw = (chance.choice(others),), last.raw
        else:
            self._had = frozenset()
            to = self._to()
            raw = self._raw(last.number if last is not None and chance.random() < 0.1 else self._number)
        accounts = {name for one in to for name in (CREW if one == "crew" else (one.partition("+")[0],))}
        letter = Letter(self._number, to, frozenset(accounts), raw)
        self._last, self._had = letter, self._had | letter.accounts
        return letter

    def _to(self) -> tuple[str, ...]:
        chance = self._random
        names = chance.sample([*ACCOUNTS, "crew"], chance.choice((1, 1, 1, 2, 4)))
        return tuple(f"{name}+tag" if name != "crew" and chance.random() < 0.1 else name for name in names)

    def _raw(self, message_id: int) -> bytes:
        chance, number = self._random, self._number
        lines = [
            f"From: Peer <peer@{SENDER}>",
            f"To: somebody@{DOMAIN}",
            f"Subject: {'Re: ' if number % 3 == 0 else ''}About {number // 3}",
            f"Message-ID: <{self._seed}.{message_id}@{SENDER}>",
            "Date: Sun, 22 Nov 2026 10:00:00 +0000",
        ]
        if number % 3 == 0:
            lines.append(f"In-Reply-To: <{self._seed}.{number - 1}@{SENDER}>")
        size = chance.choice((300, 300, 2000, 6000, 6000, SMALL + 2000, 3 * SMALL))
        if chance.random() < 0.01:
            size = 400_000  # goes through the spool
        body = f".This is letter {number} of {self._seed}.\r\n" + f"{chance.getrandbits(240):060x}\r\n" * (size // 62)
        return ("\r\n".join([*lines, "", body])).encode()


class Peer:
    """One connection, opened when it is needed."""

    def __init__(self, port: Callable[[], int], chance: random.Random) -> None:
        self._port = port
        self._random = chance
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def bring(self, letter: Letter) -> None:
        """Returns at the 250.

        :raises OSError: and EOFError, TimeoutError: there was no answer, or none to the end.
        :raises Refused: for now.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                if self._streams is None:
                    await self._connect()
                assert self._streams is not None
                reader, writer = self._streams
                recipients = [f"RCPT TO:<{name}@{DOMAIN}>".encode() for name in letter.to]
                chunked = self._random.random() < 0.2
                end = [] if chunked else [b"DATA"]
                writer.write(b"\r\n".join([f"MAIL FROM:<peer@{SENDER}>".encode(), *recipients, *end, b""]))
                for _ in range(1 + len(recipients)):
                    await _reply(reader, b"250")
                if chunked:
                    await self._chunks(reader, writer, letter.raw)
                else:
                    await _reply(reader, b"354")
                    await self._body(writer, stuffed(letter.raw))
                await _reply(reader, b"250")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None

    async def _connect(self) -> None:
        reader, writer = self._streams = await asyncio.open_connection("127.0.0.1", self._port())
        await _reply(reader, b"220")
        writer.write(f"EHLO mx.{SENDER}\r\n".encode())
        await _reply(reader, b"250")

    async def _chunks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes) -> None:
        """All but the reply to the last."""
        half = self._random.randrange(len(raw))
        writer.write(b"BDAT %d\r\n%b" % (half, raw[:half]))
        await _reply(reader, b"250")
        writer.write(b"BDAT %d LAST\r\n%b" % (len(raw) - half, raw[half:]))
        await writer.drain()

    async def _body(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self._random.random() < 0.1:  # a kill may find half of it there
            half = self._random.randrange(len(data))
            writer.write(data[:half])
            await asyncio.sleep(self._random.uniform(0, 0.05))
            data = data[half:]
        writer.write(data)
        await writer.drain()


class Load:
    """:param port: where the server listens for mail."""

    def __init__(self, port: Callable[[], int], seed: int) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._writer = Writer(seed)
        self.stopping = False
        self.accepted: list[Claim] = []
        """Every letter that had a 250, once."""
        self.open: dict[int, Claim] = {}
        """Brought, and not answered yet."""
        self.repeats = 0
        """Letters that had no answer at first."""

    async def run(self, connections: int = 6, pause: float = 0.02) -> None:
        """Until `stopping`; then finishes what has no answer yet."""
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(self._connection(pause))

    async def _connection(self, pause: float) -> None:
        peer = Peer(self._port, self._random)
        while not self.stopping:
            letter = self._writer.letter()
            claim = Claim(letter.number, letter.accounts, letter.digest)
            self.open[letter.number] = claim
            await self._brought(peer, letter)
            self.accepted.append(claim)
            del self.open[letter.number]
            if self._random.random() < 0.1:
                await self._brought(peer, letter)
            await asyncio.sleep(self._random.uniform(0, pause))
        peer.close()

    async def _brought(self, peer: Peer, letter: Letter) -> None:
        for attempt in range(10_000):
            try:
                await peer.bring(letter)
            except (OSError, EOFError, TimeoutError, Refused):
                self.repeats += attempt == 0
                await asyncio.sleep(0.03)
            else:
                return
        raise AssertionError(f"letter {letter.number} was never taken")


def stuffed(raw: bytes) -> bytes:
    """RFC 5321 §4.5.2, and the end."""
    data = b"\r\n" + raw
    return data.replace(b"\r\n.", b"\r\n..")[2:] + (b".\r\n" if raw.endswith(b"\r\n") else b"\r\n.\r\n")


async def _reply(reader: asyncio.StreamReader, wanted: bytes) -> None:
    """:raises Refused: 4xx. :raises AssertionError: anything else that is not wanted."""
    while True:
        line = await reader.readuntil(b"\n")
        if line[3:4] == b"-":
            continue
        if line.startswith(wanted):
            return
        if line.startswith(b"4"):
            raise Refused(line.decode().strip())
        raise AssertionError(f"{line!r} instead of {wanted!r}")


async def brought(port: int, letter: Letter) -> None:
    """Once, on a connection of its own. :raises: as `Peer.bring`."""
    peer = Peer(lambda: port, random.Random(letter.number))
    try:
        await peer.bring(letter)
    finally:
        peer.close()


def claims(letters: Sequence[Letter]) -> list[Claim]:
    return [Claim(one.number, one.accounts, one.digest) for one in letters]
