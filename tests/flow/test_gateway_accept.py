"""The gateway with accept behind it, over real sockets: what gets a 250 is in the records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiosmtplib
import pytest
from tests.conftest import ManualClock
from tests.contract.accept_house import MESSAGE, Post, local_blobs
from tests.contract.directory_house import ACME, House

from posthouse.smtpd.gateway import Gateway
from posthouse.smtpd.gateway.options import Listener, Options, Spooling
from posthouse.storage.records.factory import open_records


@pytest.fixture
async def post(sqlite_url: str, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Post]:
    records = await open_records(sqlite_url)
    house = House(records, clock)
    await house.directory.add_domain(ACME, "acme.test")
    await house.account("ann@acme.test")
    await house.account("ben@acme.test")
    post = Post(house, await local_blobs(tmp_path / "blobs"), records)
    yield post
    await post.accept.close()
    await records.close()


@pytest.fixture
async def gateway(post: Post, tmp_path: Path) -> AsyncIterator[Gateway]:
    (tmp_path / "spool").mkdir()
    listeners = [Listener("mx", "127.0.0.1", 0), Listener("lmtp", "127.0.0.1", 0)]
    async with Gateway(post.accept.begin, Options("mx.acme.test", listeners, Spooling(tmp_path / "spool"))) as gateway:
        yield gateway


async def deliver(gateway: Gateway, messages: list[bytes], *recipients: str) -> list[str]:
    answers: list[str] = []
    async with aiosmtplib.SMTP(
        hostname="127.0.0.1", port=gateway.ports[0], local_hostname="mx.sender.test", timeout=20
    ) as client:
        for message in messages:
            _, text = await client.sendmail("ann@sender.test", list(recipients), message)
            answers.append(text.split()[-1])
    return answers


async def test_every_250_is_in_the_records_once(post: Post, gateway: Gateway) -> None:
    batches = [[MESSAGE + b"%d of %d\r\n" % (n, who) for n in range(12)] for who in range(6)]
    ids = await asyncio.gather(*(deliver(gateway, batch, "ann@acme.test", "ben@acme.test") for batch in batches))
    flat = [id_ for batch in ids for id_ in batch]
    assert await post.counts() == {"inbound": 72, "inbound_rcpt": 144, "job": 72, "content": 72}
    assert {id_ for (id_,) in await post.rows("SELECT id FROM inbound")} == set(flat)
    assert await deliver(gateway, batches[0], "ben@acme.test", "ann@acme.test") == ids[0]  # all of them again


async def test_a_large_message_goes_from_the_spool_to_the_blob_store_unchanged(post: Post, gateway: Gateway) -> None:
    large = MESSAGE + b"".join(b".line %d\r\n" % n for n in range(200_000))
    (id_,) = await deliver(gateway, [large], "ann@acme.test")
    ((key, size),) = await post.rows("SELECT content, size FROM inbound WHERE id = $1", id_)
    assert size == len(large)
    assert await post.contents.get(key) == large


async def test_strangers_are_told_at_rcpt(post: Post, gateway: Gateway) -> None:
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=gateway.ports[0], timeout=20) as client:
        await client.ehlo()
        await client.mail("ann@sender.test")
        codes: list[int] = []
        for path in ("nobody@acme.test", "x@elsewhere.example", "x%elsewhere.example@acme.test", "ann+a@acme.test"):
            try:
                codes.append((await client.rcpt(path)).code)
            except aiosmtplib.SMTPRecipientRefused as refused:
                codes.append(refused.code)
        assert codes == [550, 550, 550, 250]
        assert (await client.data(MESSAGE)).code == 250


async def test_lmtp_answers_each(post: Post, gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports[1])
    commands = b"LHLO front.test\r\nMAIL FROM:<>\r\nRCPT TO:<ann@acme.test>\r\nRCPT TO:<nobody@acme.test>\r\n"
    writer.write(commands + b"RCPT TO:<ben@acme.test>\r\nDATA\r\n" + MESSAGE + b".\r\nQUIT\r\n")
    said = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()
    replies = [line[:9] for line in said.decode().splitlines() if line[3:4] == " "]
    assert replies[2:5] == ["250 2.1.0", "250 2.1.5", "550 5.1.1"]
    assert replies[-3:] == ["250 2.0.0", "250 2.0.0", "221 2.0.0"]
    assert (await post.counts())["inbound_rcpt"] == 2
