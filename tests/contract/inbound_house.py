"""The receiving flow from a session to what leaves: accept, a plain judge, store, dispatch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from posthouse.directory.model import Account, AccountSettings
from posthouse.domains.records import Sender
from posthouse.domains.service import Domains
from posthouse.events.handover import Handover
from posthouse.inbound.decide import decide
from posthouse.inbound.dispatch import Dispatch
from posthouse.inbound.filter.weigh import Judged
from posthouse.inbound.forwarding import Forwarding
from posthouse.inbound.model import STORE, Arrival, Outcome, Verdict
from posthouse.inbound.store import Store
from posthouse.mail.parsed import Parsed
from posthouse.mail.srs import Srs
from posthouse.mailauth.evidence import Arc, Authentication, Dmarc, Spf
from posthouse.mailbox.reading import Reading
from posthouse.mailbox.service import Mailboxes
from posthouse.net.dns import Resolver
from posthouse.seal import Seal
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.queue.base import Job
from posthouse.storage.records.base import Records, Tx
from tests.contract.accept_house import Post, queued
from tests.contract.directory_house import ACME, House

SEAL = Seal([bytes(32)])
PROVED = Authentication(
    Spf("pass", "sender.test"), Spf("none", "mx", scope="helo"), (), Dmarc("none", "sender.test"), Arc("none")
)
UNPROVED = msgspec.structs.replace(PROVED, spf=Spf("softfail", "sender.test"))
LETTER = (
    b"From: Bob <bob@sender.test>\r\nTo: ann@acme.test\r\nSubject: Hello\r\nMessage-ID: <1@sender.test>\r\n\r\nHi.\r\n"
)


@dataclass
class Judge:
    """The same verdict for all."""

    verdict: Verdict = field(default_factory=lambda: Verdict(0.0, False))

    async def judge(
        self, batch: Sequence[tuple[Arrival, Parsed]], accounts: Mapping[int, AccountSettings]
    ) -> list[Judged]:
        return [Judged(self.verdict, (self.verdict,) * len(arrival.recipients)) for arrival, _ in batch]


class Inn:
    """acme.test, with accounts as tests need them."""

    def __init__(self, records: Records, blobs: Blobs, clock: Any) -> None:
        self.records = records
        self.clock = clock
        self.directory = House(records, clock)
        self.post = Post(self.directory, blobs, records, auth=PROVED)
        key, *old = SEAL.derive("srs")
        self.srs = Srs(key, tuple(old))
        self.post.open(srs=self.srs)
        contents, self.queue = self.post.contents, self.post.queue
        self.mailboxes = Mailboxes(records, contents, clock=clock)
        self.reading = Reading(records, contents)
        self.judge = Judge()
        resolver = Resolver([("127.0.0.1", 9)], timeout=0.1, lifetime=0.1)
        sender = Sender(hostname="mx.acme.test", spf="a:mx.acme.test")
        self.domains = Domains(records, clock, seal=SEAL, resolver=resolver, sender=sender)
        forwarding = Forwarding(contents, self.srs, self.domains.signing_keys, authserv_id="mx.acme.test", clock=clock)
        self.dispatch = Dispatch(self.queue, contents, forwarding, host="mx.acme.test", clock=clock)
        self.store = Store(
            records,
            contents,
            self.queue,
            self.judge,
            clock=clock,
            current=_same,
            release=_nothing,
            leases=asyncio.Lock(),
            decide=decide,
            sender=self.dispatch,
        )

    async def open(self) -> Inn:
        await self.directory.directory.add_domain(ACME, "acme.test")
        return self

    async def account(self, address: str = "ann@acme.test", *rules: object, **settings: Any) -> Account:
        raws = tuple(msgspec.Raw(msgspec.json.encode(one)) for one in rules)
        if "vacation" in settings:
            settings["vacation"] = msgspec.Raw(msgspec.json.encode(settings["vacation"]))
        new = await self.directory.directory.new_account(
            ACME, address, name="Ann", settings=AccountSettings(rules=raws, **settings)
        )
        made: list[Account] = []

        async def add(tx: Tx) -> int:
            account = await self.directory.directory.add_account_in(tx, new)
            made[:] = [account]
            return account.number

        await self.mailboxes.open_account(add)
        self.directory.directory.forget()
        return made[0]

    async def receive(self, *recipients: str, message: bytes = LETTER, sender: str = "bob@sender.test") -> str:
        """Accepted and stored; the id."""
        _, replies = await self.post.send(*(recipients or ("ann@acme.test",)), message=message, sender=sender)
        await self.work()
        return queued(replies)

    async def work(self) -> None:
        jobs = await self.claim()
        if jobs:
            await self.store(jobs)

    async def claim(self) -> list[Job]:
        return await self.queue.claim(STORE, 1, 100, lease=60)

    async def outcomes(self, inbound: str) -> list[Outcome]:
        rows = await self.post.rows("SELECT outcome FROM inbound_rcpt WHERE inbound_id = $1 ORDER BY n", inbound)
        return [msgspec.json.decode(text, type=Outcome) for (text,) in rows]

    async def outcome(self, inbound: str) -> Outcome:
        (one,) = await self.outcomes(inbound)
        return one

    async def handed(self) -> list[Handover]:
        rows = await self.post.rows("SELECT handover FROM relayed ORDER BY created_at, id")
        return [msgspec.json.decode(text, type=Handover) for (text,) in rows]

    async def sent(self) -> tuple[Handover, bytes]:
        """The only one, and its bytes."""
        (one,) = await self.handed()
        return one, await self.post.contents.get(one.content)

    async def close(self) -> None:
        await self.post.accept.close()


def _same(job: Job) -> Job:
    return job


def _nothing(job: Job) -> None: ...
