"""Accept over real storage, and a peer that talks to it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path
from typing import Any

import msgspec

from posthouse.directory.resolve import Resolver
from posthouse.inbound.accept import Accept
from posthouse.inbound.model import Evidence, Via
from posthouse.inbound.session import Session
from posthouse.mailauth.evidence import Arc, Authentication, Dkim, Dmarc, Spf
from posthouse.net.dns import Answer
from posthouse.smtp.command import Hello, Mail, Rcpt
from posthouse.smtp.peer import Peer, Tls
from posthouse.smtp.reply import Reply
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.contents import Contents
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx
from tests.contract.directory_house import House

SENDER = "192.0.2.9"
MESSAGE = b"From: ann@sender.test\r\nTo: ann@acme.test\r\nSubject: Hello\r\n\r\nHello, Ann.\r\n"
SMALL = 64 * 1024


class Names:
    """DNS from a dict: (type, name) → records. What is not there does not exist."""

    def __init__(self, records: Mapping[tuple[str, str], Sequence[Any]] | None = None) -> None:
        self.records = dict(records or {})
        self.asked: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def _ask(self, kind: str, name: str) -> Answer[Any]:
        self.asked.append((kind, name))
        await self.gate.wait()
        found = self.records.get((kind, name))
        if isinstance(found, Exception):
            raise found
        return Answer(tuple(found or ()), nxdomain=found is None)

    async def a(self, name: str) -> Answer[str]:
        return await self._ask("A", name)

    async def aaaa(self, name: str) -> Answer[str]:
        return await self._ask("AAAA", name)

    async def mx(self, domain: str) -> Answer[Any]:
        return await self._ask("MX", domain)

    async def txt(self, name: str) -> Answer[bytes]:
        return await self._ask("TXT", name)

    async def ptr(self, address: str) -> Answer[str]:
        return await self._ask("PTR", address)


def judged(
    disposition: str = "none",
    *,
    policy: str = "reject",
    arc: Arc | None = None,
    dkim: tuple[Dkim, ...] = (),
) -> Authentication:
    """What authenticate would say of mail from bank.test."""
    result = "pass" if disposition == "none" else "fail"
    return Authentication(
        Spf("fail" if result == "fail" else "pass", "bank.test"),
        Spf("none", "mx.sender.test", scope="helo"),
        dkim,
        Dmarc(result, "bank.test", "bank.test", policy, disposition),
        arc or Arc("none"),
    )


@dataclass
class Post:
    """Everything that a peer's mail meets, and what it left behind."""

    directory: House
    blobs: Blobs
    records: Records
    names: Names = field(default_factory=Names)
    auth: Authentication = field(default_factory=judged)
    woken: int = 0
    authenticated: int = 0
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self.clock = self.directory.clock
        self.contents = Contents(self.records, self.blobs, small=SMALL, clock=self.clock)
        self.queue = RecordsQueue(self.records, clock=self.clock)
        self.open()

    def open(self, **options: Any) -> None:
        """A gateway that starts (again), with these options."""
        self.options |= options
        given: dict[str, Any] = {"authenticate": self._authenticate, "lookup": self.names} | self.options
        resolver = Resolver(self.records, monotonic=self.directory.seconds)
        self.directory.directory.forget = resolver.forget
        self.accept = Accept(
            **{"records": self.records, "queue": self.queue, "contents": self.contents} | given,
            resolver=resolver,
            clock=self.clock,
            wake=self._wake,
            hostname="mx.acme.test",
            monotonic=self.directory.seconds,
        )

    async def _authenticate(self, message: bytes | mmap, **_: object) -> Authentication:
        self.authenticated += 1
        return self.auth

    def _wake(self) -> None:
        self.woken += 1

    def session(
        self,
        *,
        peer: str = SENDER,
        helo: str = "mx.sender.test",
        listener: str = "mx",
        tls: Tls | None = None,
    ) -> Session:
        session = self.accept.begin(Peer(peer, 4321, listener))
        assert session.connected() is None
        verb = "LHLO" if listener == "lmtp" else "EHLO"
        assert session.hello(Hello(verb, helo), tls) is None
        return session

    async def send(
        self,
        *recipients: str,
        message: bytes | mmap = MESSAGE,
        sender: str = "ann@sender.test",
        session: Session | None = None,
        size: int | None = None,
        **peer: Any,
    ) -> tuple[list[Reply | None], list[Reply]]:
        """The replies to each RCPT (None: taken), and those to the message ([] if none was taken)."""
        session = session or self.session(**peer)
        assert session.mail(Mail(sender, size)) is None
        answers = [await answer(session, one) for one in recipients]
        if all(reply is not None for reply in answers):
            session.reset()
            return answers, []
        return answers, list(await session.end(message))

    async def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        async def work(tx: Tx) -> list[tuple[Any, ...]]:
            return await tx.rows(sql, *params)

        return await self.records.read(work)

    async def counts(self) -> dict[str, int]:
        """Rows of all that one message leaves."""
        return {
            table: (await self.rows(f"SELECT count(*) FROM {table}"))[0][0]
            for table in ("inbound", "inbound_rcpt", "job", "content")
        }

    async def evidence(self, id_: str) -> Evidence:
        ((text,),) = await self.rows("SELECT evidence FROM inbound WHERE id = $1", id_)
        return msgspec.json.decode(text, type=Evidence)

    async def vias(self, id_: str) -> list[tuple[str, int, Via]]:
        rows = await self.rows("SELECT address, account, via FROM inbound_rcpt WHERE inbound_id = $1 ORDER BY n", id_)
        return [(address, account, msgspec.json.decode(via, type=Via)) for address, account, via in rows]

    async def refusals(self) -> list[tuple[Any, ...]]:
        await self.accept.refusals.flush()
        return await self.rows("SELECT stage, reason, recipient, tenant_id, id, reply FROM refusal ORDER BY id")


async def answer(session: Session, path: str) -> Reply | None:
    reply = session.rcpt(Rcpt(path))
    return await reply if inspect.isawaitable(reply) else reply


def queued(replies: Sequence[Reply]) -> str:
    """The id in a 250."""
    (reply,) = replies
    assert (reply.code, reply.enhanced) == (250, "2.0.0"), str(reply)
    return reply.text.rpartition(" ")[2]


def codes(replies: Sequence[Reply | None]) -> list[str | None]:
    return [None if reply is None else f"{reply.code} {reply.enhanced}" for reply in replies]


def mapped(path: Path, data: bytes) -> mmap:
    """As the gateway hands over what it spooled."""
    path.write_bytes(data)
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, prot=1)


async def local_blobs(path: Path) -> Blobs:
    return await open_blobs(f"file://{path}")
