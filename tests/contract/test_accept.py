"""From RCPT to a durable message, or to a refusal: on both engines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posthouse.clock import DAY, HOUR, SECOND
from posthouse.directory.model import DmarcAction, DomainSettings, Spam
from posthouse.errors import DnsUnavailable, StorageUnavailable
from posthouse.inbound.filter.judge import Filter
from posthouse.inbound.house import Rules
from posthouse.inbound.lists import DnsList
from posthouse.inbound.model import Listing
from posthouse.inbound.screen import Screen
from posthouse.mail.parse import text
from posthouse.mailauth.evidence import Arc
from posthouse.net.dns import Mx, Resolver
from posthouse.smtp.command import Mail
from posthouse.smtp.peer import Tls
from posthouse.storage.contents import GRACE
from posthouse.storage.queue.base import Lane
from posthouse.storage.records.base import Records, Tx, Work
from tests.conftest import ManualClock
from tests.contract.accept_house import (
    MESSAGE,
    SENDER,
    SMALL,
    Post,
    answer,
    codes,
    judged,
    local_blobs,
    mapped,
    queued,
)
from tests.contract.directory_house import ACME, BETA, House
from tests.flow.dns_server import DnsServer


@pytest.fixture
async def post(records: Records, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Post]:
    house = House(records, clock)
    await house.directory.add_domain(ACME, "acme.test")
    await house.directory.add_domain(BETA, "beta.test")
    await house.account("ann@acme.test")
    await house.account("ben@acme.test")
    await house.account("bea@beta.test", tenant=BETA)
    post = Post(house, await local_blobs(tmp_path / "blobs"), records)
    yield post
    await post.accept.close()
    await post.blobs.close()


async def settle(post: Post, domain: str = "acme.test", **settings: Any) -> None:
    tenant = BETA if domain == "beta.test" else ACME
    await post.directory.directory.set_domain(tenant, domain, DomainSettings(**settings))


# The durable step


async def test_a_message_becomes_rows_and_a_job_in_one_step(post: Post) -> None:
    _, replies = await post.send("Ann+shop@acme.test", tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
    id_ = queued(replies)
    assert re.fullmatch(r"inb_[0-9a-f]{32}", id_)
    assert await post.counts() == {"inbound": 1, "inbound_rcpt": 1, "job": 1, "content": 1}
    ((size, path, key),) = await post.rows("SELECT size, reverse_path, content FROM inbound WHERE id = $1", id_)
    assert (size, path, await post.contents.get(key)) == (len(MESSAGE), "ann@sender.test", MESSAGE)
    ((address, _, via),) = await post.vias(id_)
    assert (address, via.tag) == ("Ann+shop@acme.test", "shop")
    (job,) = await post.queue.claim("store", Lane.TRANSACTIONAL, 10, lease=60)
    assert (job.id, job.tenant) == (id_, ACME)
    assert post.woken == 1
    ((trace,),) = await post.rows("SELECT trace FROM inbound")
    assert bytes(trace).startswith(b"Return-Path: <ann@sender.test>\r\nReceived: from mx.sender.test ([192.0.2.9])")
    assert b" with ESMTPS id " + id_.encode() in bytes(trace)
    assert b"for <Ann+shop@acme.test>" in bytes(trace)
    assert b"Authentication-Results: mx.acme.test;\r\n spf=pass" in bytes(trace)
    evidence = await post.evidence(id_)
    assert (evidence.peer, evidence.helo, evidence.tls) == (SENDER, "mx.sender.test", "TLSv1.3 TLS_AES_256_GCM_SHA384")
    assert evidence.auth == post.auth


async def test_recipients_of_several_tenants_and_groups_have_rows_of_their_own(post: Post) -> None:
    directory = post.directory.directory
    await directory.set_alias(ACME, "all@acme.test", ["ann@acme.test", "ben@acme.test", "out@elsewhere.example"])
    _, replies = await post.send("all@acme.test", "bea@beta.test", "ben@acme.test")
    id_ = queued(replies)
    rows = await post.rows("SELECT n, tenant_id, address FROM inbound_rcpt WHERE inbound_id = $1 ORDER BY n", id_)
    assert rows == [
        (0, ACME, "all@acme.test"),
        (1, ACME, "all@acme.test"),
        (2, ACME, "all@acme.test"),
        (3, BETA, "bea@beta.test"),  # and ben has it already
    ]
    vias = await post.vias(id_)
    assert [(account == 0, via.forward) for _, account, via in vias][2] == (True, "out@elsewhere.example")
    assert all(via.aliases == ("all@acme.test",) for _, _, via in vias[:3])
    ((trace,),) = await post.rows("SELECT trace FROM inbound")
    assert b"for <" not in bytes(trace)  # nobody learns of another's address
    assert (await post.counts())["job"] == 1


async def test_the_null_sender_is_welcome(post: Post) -> None:
    _, replies = await post.send("ann@acme.test", sender="")
    ((path,),) = await post.rows("SELECT reverse_path FROM inbound WHERE id = $1", queued(replies))
    assert path == ""


async def test_a_retry_is_answered_with_the_first_id_and_stored_once(post: Post) -> None:
    _, first = await post.send("ann@acme.test", "ben@acme.test")
    _, again = await post.send("ben@acme.test", "ann@acme.test", peer="192.0.2.77")
    assert queued(again) == queued(first)
    assert await post.counts() == {"inbound": 1, "inbound_rcpt": 2, "job": 1, "content": 1}
    others = [
        await post.send("ann@acme.test"),
        await post.send("ann@acme.test", "ben@acme.test", sender="eve@sender.test"),
        await post.send("ann@acme.test", "ben@acme.test", message=MESSAGE + b"\r\n"),
    ]
    assert len({queued(replies) for _, replies in others} | {queued(first)}) == 4
    ((refs,),) = await post.rows("SELECT refs FROM content ORDER BY refs DESC LIMIT 1")
    assert refs == 3


async def test_what_arrives_together_is_stored_once_each(post: Post) -> None:
    messages = [MESSAGE + b"%d\r\n" % n for n in range(40)]
    sent = await asyncio.gather(*(post.send("ann@acme.test", message=message) for message in messages * 3))
    ids = [queued(replies) for _, replies in sent]
    assert len(set(ids)) == 40
    assert ids[:40] == ids[40:80] == ids[80:]
    assert await post.counts() == {"inbound": 40, "inbound_rcpt": 40, "job": 40, "content": 40}
    assert post.woken < 60  # they shared their transactions


async def test_half_of_those_that_came_lately_share_the_next_transaction(post: Post) -> None:
    durable = post.accept._durable  # type: ignore[attr-defined]
    durable._lately = (8, 8)

    async def after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await post.send("ann@acme.test", message=MESSAGE + b"%d\r\n" % turns)

    before = post.woken
    await asyncio.gather(*(after(turns) for turns in range(8)))
    assert post.woken == before + 1
    durable._lately = (8, 8)
    await asyncio.wait_for(post.send("ann@acme.test"), 5)  # nobody else comes: it goes alone, soon
    assert post.woken == before + 2


async def test_two_gateways_never_store_a_message_twice(post: Post) -> None:
    first = post.accept
    post.open()
    second = post.accept
    messages = [MESSAGE + b"%d\r\n" % n for n in range(30)]

    async def through(accept: Any, message: bytes) -> str:
        session = accept.begin(post.session()._peer)
        session.connected()
        session.hello(post.session()._hello, None)
        session.mail(Mail("ann@sender.test"))
        assert await answer(session, "ann@acme.test") is None
        return queued(await session.end(message))

    ids = await asyncio.gather(*(through(accept, message) for message in messages for accept in (first, second)))
    assert ids[::2] == ids[1::2]
    assert (await post.counts())["inbound"] == 30
    await first.close()


async def test_a_large_message_lies_in_the_blob_store_first(post: Post, tmp_path: Path) -> None:
    large = MESSAGE + b"All work and no play.\r\n" * 10_000
    assert len(large) > SMALL
    body = mapped(tmp_path / "spool", large)
    _, replies = await post.send("ann@acme.test", message=body)
    body.close()
    ((key, data),) = await post.rows("SELECT c.key, c.data FROM content c JOIN inbound i ON i.content = c.key")
    assert data is None
    assert await post.blobs.get(key) == large
    assert queued(replies)


async def test_a_twin_that_is_being_collected_is_laid_down_again(post: Post) -> None:
    large = MESSAGE + b"All work and no play.\r\n" * 10_000
    _, first = await post.send("ann@acme.test", message=large)
    ((key,),) = await post.rows("SELECT content FROM inbound")
    await post.records.write(lambda tx: post.contents.add(tx, [(key, -1)]))
    post.clock.advance(GRACE / SECOND + 10)
    assert await post.contents.collect() == 1
    assert not await post.blobs.exists(key)
    _, again = await post.send("ben@acme.test", message=large)
    assert queued(again) != queued(first)
    assert await post.blobs.get(key) == large
    # While it is condemned and not yet gone, nobody may count on it: the peer comes back.
    await post.records.write(lambda tx: post.contents.add(tx, [(key, -1)]))
    await post.records.write(lambda tx: tx.run("UPDATE content SET condemned_at = 1 WHERE key = $1", key))
    before = await post.counts()
    _, late = await post.send("bea@beta.test", message=large)
    assert codes(late) == ["451 4.3.0"]
    assert await post.counts() == before


class Faulty:
    """Records that fail when told: before the work, in the middle of it, or after the commit."""

    def __init__(self, records: Records) -> None:
        self.capabilities, self.ready, self.close = records.capabilities, records.ready, records.close
        self._records = records
        self.fault = ""
        self.writes = 0

    async def read(self, work: Work[Any]) -> Any:
        if self.fault == "read":
            raise StorageUnavailable(detail="away")
        return await self._records.read(work)

    async def write(self, work: Work[Any], *, durable: bool = True) -> Any:
        self.writes += durable
        if self.fault == "before":
            raise StorageUnavailable(detail="away")

        async def broken(tx: Tx) -> Any:
            await work(tx)
            raise StorageUnavailable(detail="broken")

        result = await self._records.write(broken if self.fault == "middle" else work, durable=durable)
        if self.fault == "after":
            raise StorageUnavailable(detail="the connection was lost in the commit")
        return result


@pytest.mark.parametrize("fault", ["before", "middle", "after"])
async def test_when_storage_fails_the_peer_comes_back_and_nothing_is_doubled(post: Post, fault: str) -> None:
    faulty = Faulty(post.records)
    post.open(records=faulty)
    faulty.fault = fault
    session = post.session()
    _, replies = await post.send("ann@acme.test", session=session)
    assert codes(replies) == ["451 4.3.0"]
    expected = 1 if fault == "after" else 0
    assert await post.counts() == {"inbound": expected, "inbound_rcpt": expected, "job": expected, "content": expected}
    faulty.fault = ""
    _, replies = await post.send("ann@acme.test", session=session)  # the session lives on
    assert queued(replies)
    assert await post.counts() == {"inbound": 1, "inbound_rcpt": 1, "job": 1, "content": 1}


async def test_when_the_directory_cannot_be_read_the_peer_comes_back(post: Post) -> None:
    post.open()
    resolver = post.accept._house.resolver
    faulty = Faulty(post.records)
    faulty.fault = "read"
    resolver._records = faulty  # type: ignore[assignment]
    answers, _ = await post.send("ann@acme.test")
    assert codes(answers) == ["451 4.3.0"]
    faulty.fault = ""
    assert codes((await post.send("ann@acme.test"))[0]) == [None]


async def test_when_the_blob_store_is_full_the_peer_comes_back(post: Post) -> None:
    class Full:
        async def put(self, message: bytes) -> Any:
            raise StorageUnavailable(detail="No space left on device")

    post.open(contents=Full())
    session = post.session()
    assert codes((await post.send("ann@acme.test", session=session))[1]) == ["451 4.3.0"]
    assert codes((await post.send("ann@acme.test", session=session))[1]) == ["451 4.3.0"]
    assert set((await post.counts()).values()) == {0}


async def test_one_message_that_cannot_be_written_does_not_harm_the_others(post: Post) -> None:
    put = post.queue.put

    class Picky:
        async def put(self, jobs: Any, *, tx: Tx | None = None) -> None:
            ids = [job.id for job in jobs]
            rows = await tx.rows("SELECT size FROM inbound WHERE id = ANY($1)", ids)  # type: ignore[union-attr]
            if any(size == len(MESSAGE) + 3 for (size,) in rows):
                raise ValueError("not this one")
            await put(jobs, tx=tx)

    post.open(queue=Picky())
    messages = [MESSAGE + b"x" * n for n in range(8)]
    sent = await asyncio.gather(*(post.send("ann@acme.test", message=message) for message in messages))
    outcomes = [codes(replies)[0] for _, replies in sent]
    assert outcomes == ["250 2.0.0"] * 3 + ["451 4.3.0"] + ["250 2.0.0"] * 4
    assert await post.counts() == {"inbound": 7, "inbound_rcpt": 7, "job": 7, "content": 7}


async def test_a_peer_that_is_gone_does_not_take_others_with_it(post: Post) -> None:
    first, *rest = [asyncio.create_task(post.send("ann@acme.test", message=MESSAGE + b"%d\r\n" % n)) for n in range(6)]
    await asyncio.sleep(0)
    first.cancel()
    for _, replies in await asyncio.gather(*rest):
        assert queued(replies)


# Recipients


async def test_each_refusal_says_what_to_do_and_is_logged_under_its_id(post: Post) -> None:
    directory = post.directory.directory
    await directory.set_account(ACME, "ben@acme.test", state="disabled")
    answers, _ = await post.send("nobody@acme.test", "x@elsewhere.example", "ben@acme.test", "a..b@acme.test")
    assert codes(answers) == ["550 5.1.1", "550 5.7.1", "550 5.2.1", "550 5.1.3"]
    logged = {id_: row for *row, id_, _ in await post.refusals()}
    told = {id_: text for *_, id_, text in await post.refusals()}
    ids = [reply.text.rpartition("(")[2].rstrip(")") for reply in answers if reply is not None]
    assert [logged[id_] for id_ in ids] == [
        ["rcpt", "unknown_recipient", "nobody@acme.test", ACME],
        ["rcpt", "relay", "x@elsewhere.example", ""],
        ["rcpt", "disabled", "ben@acme.test", ACME],
        ["rcpt", "malformed_recipient", "a..b@acme.test", ""],
    ]
    assert [told[id_] for id_ in ids] == [str(reply) for reply in answers]
    assert await post.counts() == {"inbound": 0, "inbound_rcpt": 0, "job": 0, "content": 0}


async def test_a_refused_recipient_does_not_hold_up_the_others(post: Post) -> None:
    answers, replies = await post.send("nobody@acme.test", "ann@acme.test")
    assert codes(answers) == ["550 5.1.1", None]
    assert [address for address, _, _ in await post.vias(queued(replies))] == ["ann@acme.test"]


async def test_a_reset_forgets_the_transaction(post: Post) -> None:
    session = post.session()
    session.mail(Mail("ann@sender.test"))
    assert await answer(session, "ann@acme.test") is None
    session.reset()
    _, replies = await post.send("ben@acme.test", session=session)
    assert [address for address, _, _ in await post.vias(queued(replies))] == ["ben@acme.test"]


async def test_full_mailboxes_and_messages_that_never_fit(post: Post) -> None:
    account = await post.directory.account("eve@acme.test", quota=1000)
    await post.directory.use(account, 950)
    assert codes((await post.send("eve@acme.test", size=100))[0]) == ["452 4.2.2"]
    assert codes((await post.send("eve@acme.test", size=2000))[0]) == ["552 5.2.3"]
    answers, replies = await post.send("eve@acme.test")  # the size shows only when it is there
    assert (codes(answers), codes(replies)) == ([None], ["452 4.2.2"])
    _, replies = await post.send("eve@acme.test", "ann@acme.test")
    assert len(await post.vias(queued(replies))) == 2  # one answer for both: better over than lost
    await post.directory.use(account, 1000)
    post.accept._house.resolver.forget()
    assert codes((await post.send("eve@acme.test"))[0]) == ["452 4.2.2"]


async def test_groups_of_one_message_are_bounded(post: Post) -> None:
    for n in range(2):
        await post.directory.directory.set_alias(ACME, f"g{n}@acme.test", [f"x{m}-{n}@y.example" for m in range(9)])
    post.open(rules=Rules(targets=10))
    answers, replies = await post.send("g0@acme.test", "g1@acme.test", "ann@acme.test")
    assert codes(answers) == [None, "452 4.5.3", None]
    assert len(await post.vias(queued(replies))) == 10


# What DNS knows


def known(**extra: Any) -> dict[tuple[str, str], Any]:
    return {
        ("PTR", SENDER): ["mx.sender.test"],
        ("A", "mx.sender.test"): [SENDER],
        ("MX", "sender.test"): [Mx(10, "mx.sender.test")],
        **extra,
    }


async def test_evidence_of_a_peer_in_order_and_of_one_that_is_not(post: Post) -> None:
    post.names.records = known()
    good = await post.evidence(queued((await post.send("ann@acme.test"))[1]))
    assert (good.host, good.flaws, good.listings) == ("mx.sender.test", (), ())
    post.names.records = {("PTR", "198.51.100.1"): ["mx.sender.test"], ("MX", "null.test"): [Mx(0, "")]} | known()
    _, replies = await post.send("ben@acme.test", peer="198.51.100.1", helo="[198.51.100.1]", sender="x@null.test")
    odd = await post.evidence(queued(replies))
    assert (odd.host, set(odd.flaws)) == (None, {"rdns_unconfirmed", "helo_ip", "sender_null_mx"})
    flaws = {
        "mx.acme.test": "helo_ours",
        "localhost": "helo_unqualified",
        "nowhere.test": "helo_unresolvable",
        "192.0.2.1": "helo_ip",
    }
    for n, (helo, flaw) in enumerate(flaws.items()):
        _, replies = await post.send("ann@acme.test", helo=helo, message=MESSAGE + b"%d" % n)
        assert (await post.evidence(queued(replies))).flaws == (flaw,)


async def test_who_speaks_before_the_greeting_is_remembered(post: Post) -> None:
    post.names.records = known()
    session = post.session()
    session.early()
    for n in range(2):
        _, replies = await post.send("ann@acme.test", session=session, message=MESSAGE + b"%d" % n)
        assert (await post.evidence(queued(replies))).flaws == ("early_talker",)


async def test_the_durable_step_says_what_it_holds(post: Post) -> None:
    """A gateway whose writes do not end is told from one to which nobody comes."""
    go = asyncio.Event()
    write = post.records.write

    async def slow(*args: Any, **options: Any) -> Any:
        await go.wait()
        return await write(*args, **options)

    post.open(records=SimpleNamespace(write=slow, read=post.records.read, capabilities=post.records.capabilities))
    assert post.accept.progress() == {"accept": (0, 0)}
    sent = asyncio.gather(post.send("ann@acme.test"), post.send("ben@acme.test"))
    async with asyncio.timeout(30):
        while post.accept.progress() != {"accept": (2, 0)}:
            await asyncio.sleep(0.01)
        go.set()
        assert [replies[-1].code for _, replies in await sent] == [250, 250]
    assert post.accept.progress() == {"accept": (0, 2)}


async def test_dns_that_does_not_answer_is_no_evidence_and_holds_nothing_up(post: Post) -> None:
    post.names.records = {key: DnsUnavailable() for key in known()}  # type: ignore[dict-item]
    evidence = await post.evidence(queued((await post.send("ann@acme.test"))[1]))
    assert (evidence.host, evidence.flaws) == (None, ())
    post.open(rules=Rules(patience=0.05))
    post.names.gate.clear()
    async with asyncio.timeout(30):
        _, replies = await post.send("ben@acme.test")
    assert (await post.evidence(queued(replies))).flaws == ()


async def test_lists_refuse_at_rcpt_but_never_the_postmaster(post: Post) -> None:
    zones = {
        "9.2.0.192.bl.test": {"A": ["127.0.0.2"], "TXT": ['"Spam seen; https://bl.test/192.0.2.9"']},
        "9.2.0.192.soft.test": {"A": ["127.0.0.4"]},
        "9.2.0.192.broken.test": "SERVFAIL",
        "9.2.0.192.sold.test": {"A": ["203.0.113.7"]},
        "9.2.0.192.limited.test": {"A": ["127.255.255.254"]},
        "sender.test.dbl.test": {"A": ["127.0.1.2"]},
    }
    async with DnsServer(zones) as server:
        lists = [
            DnsList("bl.test", weight=5.0, refuse=True),
            DnsList("soft.test", weight=1.5),
            DnsList("broken.test", refuse=True),
            DnsList("sold.test", refuse=True),
            DnsList("limited.test", refuse=True),
            DnsList("dbl.test", kind="domain", weight=2.0),
        ]
        post.open(lookup=Resolver([server.nameserver]), lists=lists)
        answers, replies = await post.send("ann@acme.test", "postmaster@acme.test", "Abuse@acme.test")
        assert codes(answers) == ["550 5.7.1", None, None]
        assert answers[0] is not None
        assert "192.0.2.9 is listed by bl.test: Spam seen; https://bl.test/192.0.2.9" in answers[0].text
        evidence = await post.evidence(queued(replies))
        assert evidence.listings == (
            Listing("bl.test", SENDER, 5.0, "Spam seen; https://bl.test/192.0.2.9"),
            Listing("soft.test", SENDER, 1.5),
            Listing("dbl.test", "sender.test", 2.0),
        )
        assert [reason for _, reason, *_ in await post.refusals()] == ["listed"]
        asked = len(server.queries)
        await post.send("ann@acme.test")
        assert len(server.queries) == asked  # what is known is not asked again


async def test_an_allow_list_speaks_louder_than_one_that_refuses(post: Post) -> None:
    post.names.records = {("A", "9.2.0.192.bl.test"): ["127.0.0.2"], ("A", "9.2.0.192.ok.test"): ["127.0.0.3"]}
    post.open(lists=[DnsList("bl.test", refuse=True), DnsList("ok.test", weight=-3.0)])
    await settle(post, greylist=True)
    _, replies = await post.send("ann@acme.test")
    assert [one.zone for one in (await post.evidence(queued(replies))).listings] == ["bl.test", "ok.test"]


async def test_our_own_network_is_on_no_list(post: Post) -> None:
    post.open(lists=[DnsList("bl.test", refuse=True)])
    await post.send("ann@acme.test", peer="10.1.2.3")
    assert not any("bl.test" in name for _, name in post.names.asked)


async def test_senders_that_take_no_mail_are_refused_when_asked(post: Post) -> None:
    post.names.records = known()
    post.open(rules=Rules(unknown_senders=True))
    answers, _ = await post.send("ann@acme.test", "postmaster@acme.test", sender="x@nowhere.test")
    assert codes(answers) == ["550 5.1.8", None]
    assert codes((await post.send("ann@acme.test"))[0]) == [None]
    assert codes((await post.send("ann@acme.test", sender=""))[0]) == [None]


# Greylisting


async def test_greylisting_makes_the_unknown_wait_once(post: Post) -> None:
    await settle(post, greylist=True)
    post.open(greylist_delay=300.0)

    async def attempt(recipient: str = "ann@acme.test", **given: Any) -> str | None:
        return codes((await post.send(recipient, **given))[0])[0]

    answers, _ = await post.send("ann@acme.test")
    assert codes(answers) == ["451 4.7.1"]
    assert answers[0] is not None and "try again in 300 seconds" in answers[0].text
    post.clock.advance(200)
    answers, _ = await post.send("ann@acme.test")
    assert answers[0] is not None and "100 seconds" in answers[0].text
    post.clock.advance(101)
    _, replies = await post.send("ann@acme.test", peer="192.0.2.200")  # the same /24
    assert (await post.evidence(queued(replies))).greylisted
    post.clock.advance(20 * 86_400)
    post.open()  # also after a start
    assert await attempt() is None
    assert await attempt(peer="198.51.100.1") == "451 4.7.1"
    assert await attempt("ben@acme.test") == "451 4.7.1"
    assert await attempt(sender="eve@sender.test") == "451 4.7.1"
    assert await attempt("bea@beta.test") is None  # her domain does not greylist
    assert await attempt("postmaster@acme.test") is None
    assert await attempt(listener="lmtp") is None
    assert await attempt(peer="2001:db8::1") == "451 4.7.1"
    post.clock.advance(301)
    assert await attempt(peer="2001:db8::ffff") is None  # the same /64


async def test_greylisting_forgets_who_never_came_back(post: Post) -> None:
    await settle(post, greylist=True)

    async def attempt() -> str | None:
        return codes((await post.send("ann@acme.test"))[0])[0]

    assert await attempt() == "451 4.7.1"
    post.clock.advance(3 * DAY / SECOND)
    assert await attempt() == "451 4.7.1"  # too late: it begins anew
    post.clock.advance(400)
    assert await attempt() is None
    post.clock.advance(40 * DAY / SECOND)
    assert await attempt() == "451 4.7.1"
    assert await post.accept.greylist.forget() == 0
    post.clock.advance(3 * DAY / SECOND)
    assert await post.accept.greylist.forget() == 1


async def test_a_clock_set_back_makes_nobody_wait_for_ever(post: Post) -> None:
    await settle(post, greylist=True)
    post.open(greylist_delay=300.0)
    await post.send("ann@acme.test")
    post.clock.advance(-HOUR / SECOND)
    answers, _ = await post.send("ann@acme.test")
    assert answers[0] is not None and "300 seconds" in answers[0].text
    post.clock.advance(301)
    assert codes((await post.send("ann@acme.test"))[0]) == [None]


# The end of data


async def test_a_domain_policy_refuses_what_dmarc_says_to(post: Post) -> None:
    post.auth = judged("reject")
    _, replies = await post.send("ann@acme.test")
    assert codes(replies) == ["550 5.7.1"]
    assert "bank.test asks by DMARC (p=reject)" in replies[0].text
    assert (await post.counts())["inbound"] == 0
    ((stage, reason, *_),) = await post.refusals()
    assert (stage, reason) == ("data", "dmarc")
    ((evidence,),) = await post.rows("SELECT evidence FROM refusal")
    assert '"disposition":"reject"' in evidence


async def test_a_domain_may_have_it_in_junk_instead(post: Post) -> None:
    await settle(post, dmarc=DmarcAction.JUNK)
    post.auth = judged("reject")
    evidence = await post.evidence(queued((await post.send("ann@acme.test"))[1]))
    assert evidence.junk is not None and "bank.test asks by DMARC" in evidence.junk


async def test_domains_that_differ_about_one_message_each_get_their_way(post: Post) -> None:
    await settle(post, "beta.test", dmarc=DmarcAction.ACCEPT)
    post.auth = judged("reject")
    _, replies = await post.send("ann@acme.test", "bea@beta.test")
    id_ = queued(replies)
    assert (await post.evidence(id_)).junk is None
    (_, _, ann), (_, _, bea) = await post.vias(id_)
    assert ann.junk is not None and "another recipient" in ann.junk
    assert bea.junk is None


SPAM = MESSAGE + b"\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"


async def _nobody(_pairs: object) -> frozenset[tuple[int, str]]:
    return frozenset()


def screening(post: Post) -> Screen:
    return Screen(post.records, Filter(text, _nobody), post.clock)


async def test_a_domain_may_have_spam_refused_at_once(post: Post) -> None:
    post.open(screen=screening(post))
    assert queued((await post.send("ann@acme.test", message=SPAM))[1]), "to Junk, unless the domain says otherwise"
    await settle(post, spam=Spam.REFUSE)
    _, replies = await post.send("ann@acme.test", message=SPAM + b"again\r\n")
    assert codes(replies) == ["550 5.7.1"]
    assert "looks like spam" in replies[0].text and "GTUBE" in replies[0].text
    assert ("data", "spam") in [(stage, reason) for stage, reason, *_ in await post.refusals()]
    assert queued((await post.send("ann@acme.test"))[1]), "what is no spam is taken"
    assert queued((await post.send("postmaster@acme.test", message=SPAM + b"to the master\r\n"))[1])


async def test_spam_is_taken_where_another_recipient_takes_it(post: Post) -> None:
    post.open(screen=screening(post))
    await settle(post, spam=Spam.REFUSE)
    assert queued((await post.send("ann@acme.test", "bea@beta.test", message=SPAM))[1])


async def test_a_trusted_list_may_excuse_what_fails_dmarc(post: Post) -> None:
    post.open(rules=Rules(trusted=frozenset({"list.test"})))
    post.auth = judged("reject", arc=Arc("pass", ("list.test",), first_results="mx.list.test; dmarc=pass"))
    evidence = await post.evidence(queued((await post.send("ann@acme.test"))[1]))
    assert evidence.dmarc_override is not None and "list.test" in evidence.dmarc_override
    assert evidence.junk is None


async def test_mail_that_goes_in_circles_is_refused(post: Post) -> None:
    circling = b"Received: from a by b;\r\n x\r\n" * 60 + b"RECEIVED: from c by d\r\n" * 41 + MESSAGE
    _, replies = await post.send("ann@acme.test", message=circling)
    assert codes(replies) == ["554 5.4.6"]
    assert post.authenticated == 0
    fine = b"Received: from a by b\r\n" * 100 + MESSAGE + b"Received: in the body\r\n" * 9
    assert queued((await post.send("ann@acme.test", message=fine))[1])


async def test_the_real_checks_judge_a_message(post: Post) -> None:
    post.names.records = known(**{}) | {
        ("TXT", "sender.test"): [b"v=spf1 ip4:192.0.2.0/24 -all"],
        ("TXT", "_dmarc.sender.test"): [b"v=DMARC1; p=reject"],
    }
    post.open(authenticate=None)
    evidence = await post.evidence(queued((await post.send("ann@acme.test"))[1]))
    assert (evidence.auth.spf.result, evidence.auth.dmarc.result) == ("pass", "pass")
    forged = MESSAGE.replace(b"Hello, Ann.", b"Send money.")
    _, replies = await post.send("ann@acme.test", message=forged, peer="198.51.100.66")
    assert codes(replies) == ["550 5.7.1"]


# LMTP


async def test_lmtp_answers_for_each_recipient_and_believes_the_front_server(post: Post) -> None:
    account = await post.directory.account("eve@acme.test", quota=10)
    await post.directory.use(account, 1)
    post.auth = judged("reject")
    session = post.session(listener="lmtp", peer="10.0.0.1", helo="front")
    answers, replies = await post.send(
        "ann@acme.test", "nobody@acme.test", "eve@acme.test", "ben@acme.test", session=session
    )
    assert codes(answers) == [None, "550 5.1.1", None, None]
    assert codes(replies) == ["250 2.0.0", "552 5.2.3", "250 2.0.0"]
    id_ = replies[0].text.rpartition(" ")[2]
    assert len(await post.vias(id_)) == 2
    evidence = await post.evidence(id_)
    assert (evidence.listener, evidence.auth.spf.result, post.authenticated) == ("lmtp", "none", 0)
    assert "front server" in evidence.auth.spf.reason
    assert post.names.asked == []
    ((trace,),) = await post.rows("SELECT trace FROM inbound")
    assert b" with LMTP id " in bytes(trace)
    assert b"Authentication-Results" not in bytes(trace)


async def test_lmtp_says_for_each_that_storage_is_away(post: Post) -> None:
    faulty = Faulty(post.records)
    post.open(records=faulty)
    faulty.fault = "before"
    _, replies = await post.send("ann@acme.test", "ben@acme.test", listener="lmtp")
    assert codes(replies) == ["451 4.3.0", "451 4.3.0"]


# The log of refusals


async def test_the_log_of_refusals_is_bounded_and_never_waited_for(post: Post) -> None:
    faulty = Faulty(post.records)
    post.open(records=faulty)
    faulty.fault = "before"
    log = post.accept.refusals
    log._most = 50
    session = post.session()
    session.mail(Mail("ann@sender.test"))
    for n in range(80):
        reply = await answer(session, f"x{n}@acme.test")
        assert reply is not None and "(rfs_" in reply.text
    assert log.dropped == 30
    await log.flush()
    assert await post.rows("SELECT count(*) FROM refusal") == [(0,)]
    faulty.fault = ""
    log._most = 1000
    await answer(session, "last@acme.test")
    assert len(await post.refusals()) == 51


async def test_old_refusals_are_forgotten(post: Post) -> None:
    await post.send("nobody@acme.test")
    ((*_, id_, _),) = await post.refusals()
    at = int(id_[4:16], 16) * 1000
    assert await post.accept.refusals.forget(at) == 0
    assert await post.accept.refusals.forget(at + 1000) == 1


async def test_a_peer_cannot_write_into_the_log_what_it_likes(post: Post) -> None:
    path = '"\x1b[2Jevil\\\r"@acme.test'
    answers, _ = await post.send(path, "x" * 3000 + "@acme.test", helo="a.test")
    assert all(reply is not None and reply.permanent for reply in answers)
    for _, _, recipient, *_, reply in await post.refusals():
        assert recipient.isprintable() and len(recipient) <= 1000
        assert reply.isprintable()
