"""Two processes' worth of services on one PostgreSQL and one Redis: what one changes the other
sees within moments, and within the old expiry when Redis is away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from posthouse.accounts.limits import Limiter
from posthouse.accounts.model import TENANT_SCOPES, Limits
from posthouse.accounts.passwords import hash_password, verify_password
from posthouse.accounts.service import Accounts
from posthouse.accounts.shared_rate import SharedRateLimiter
from posthouse.accounts.streams import Streams
from posthouse.clock import now
from posthouse.directory.model import AccountSettings, NewAccount, Status
from posthouse.directory.resolve import Resolver as Recipients
from posthouse.directory.service import Directory
from posthouse.domains.records import Sender
from posthouse.domains.service import Domains
from posthouse.errors import Limited, StorageUnavailable, Unauthorized
from posthouse.mailbox.modseqs import modseqs
from posthouse.net.dns import Resolver
from posthouse.seal import Seal
from posthouse.storage.bus.base import ALL, Change
from posthouse.storage.bus.factory import Shared, open_shared
from posthouse.storage.bus.invalidation import Invalidation
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records
from posthouse.suppression.model import Entry, Reason
from posthouse.suppression.service import Suppressions
from posthouse.templates.model import Key
from posthouse.templates.service import Templates
from tests.contract.redis_house import OwnRedis, until


@dataclass
class Process:
    records: Records
    shared: Shared
    accounts: Accounts
    streams: Streams
    templates: Templates
    domains: Domains
    suppressions: Suppressions
    directory: Directory
    limiter: Limiter


async def process(stack: contextlib.AsyncExitStack, records_url: str, bus_url: str) -> Process:
    records = await open_records(records_url)
    stack.push_async_callback(records.close)
    shared = await open_shared(bus_url, states=modseqs(records), groups=["tenant"], poll=0.1)
    stack.push_async_callback(shared.close)
    bus = shared.bus
    return Process(
        records,
        shared,
        Accounts(records, now, Limits(1000, 1000, 0), Invalidation(bus, "accounts")),
        Streams(records, now, Invalidation(bus, "streams")),
        Templates(records, now, elsewhere=Invalidation(bus, "templates")),
        Domains(
            records,
            now,
            seal=Seal([b"k" * 32]),
            resolver=Resolver([("127.0.0.1", 9)]),
            sender=Sender("mail.example.net", "ip4:192.0.2.1"),
            elsewhere=Invalidation(bus, "domains"),
        ),
        Suppressions(records, now),
        Directory(
            records,
            now,
            Recipients(records),
            hash_password=hash_password,
            verify_password=verify_password,
            elsewhere=Invalidation(bus, "directory"),
        ),
        SharedRateLimiter(shared.limits, now),
    )


async def _comes(true: Callable[[], Awaitable[bool]], seconds: float) -> float:
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not await true():
            await asyncio.sleep(0.005)
    return time.monotonic() - started


async def _add_ann(one: Process, tenant_id: str) -> int:
    """Her account's number."""
    ann = NewAccount(tenant_id, "ann@in.example", "Ann", None, None, AccountSettings())

    async def add(tx: Tx) -> int:
        return (await one.directory.add_account_in(tx, ann)).number

    return await one.records.write(add)


async def _refused(one: Process, header: bytes) -> bool:
    try:
        await one.accounts.authenticate(header)
    except Unauthorized:
        return True
    return False


SOON = 0.9
"""Seconds, far below every expiry; it is a few milliseconds on an idle machine."""


async def test_what_one_changes_the_other_sees_at_once(
    stack: contextlib.AsyncExitStack, postgres_url: str, redis_url: str
) -> None:
    one, two = await process(stack, postgres_url, redis_url), await process(stack, postgres_url, redis_url)
    tenant = await one.accounts.create_tenant("shop")
    key = await one.accounts.create_key(tenant.id, "k", TENANT_SCOPES)
    header = f"Bearer {key.secret}".encode()
    await two.accounts.authenticate(header)  # and it is held there
    await one.accounts.revoke_key(tenant.id, key.key.id)
    assert await _comes(lambda: _refused(two, header), SOON) < SOON

    await one.templates.create(tenant.id, "news", subject="1", text="one")

    async def published() -> int:
        async def work(tx: object) -> int:
            found = (await two.templates.resolve(tx, tenant.id, {("news", None)}))["news", None]  # type: ignore[arg-type]
            assert isinstance(found, Key)
            return found.version

        return await two.records.read(work)

    assert await published() == 1
    await one.templates.add_version(tenant.id, "news", subject="2", text="two", publish=True)

    async def second() -> bool:
        return await published() == 2

    await _comes(second, SOON)

    assert "alerts" not in await two.streams.of(tenant.id)
    await one.streams.create(tenant.id, "alerts", "transactional")

    async def there() -> bool:
        return "alerts" in await two.streams.of(tenant.id)

    await _comes(there, SOON)

    assert await two.domains.sending_domains(tenant.id) == {}
    assert await two.domains.signing_keys(tenant.id, {"shop.example"}) == {"shop.example": ()}
    await one.domains.create(tenant.id, "shop.example", ["rsa-sha256"])

    async def signs() -> bool:
        return bool((await two.domains.signing_keys(tenant.id, {"shop.example"}))["shop.example"])

    await _comes(signs, SOON)
    assert "shop.example" in await two.domains.sending_domains(tenant.id)


async def test_a_new_recipient_is_known_to_the_other_gateway(
    stack: contextlib.AsyncExitStack, postgres_url: str, redis_url: str
) -> None:
    one, two = await process(stack, postgres_url, redis_url), await process(stack, postgres_url, redis_url)
    tenant = await one.accounts.create_tenant("shop")
    await one.directory.add_domain(tenant.id, "in.example")
    resolver = two.directory.resolver
    assert (await resolver.resolve("ann@in.example")).status is Status.UNKNOWN

    await _add_ann(one, tenant.id)
    one.directory.forget()

    async def known() -> bool:
        return (await resolver.resolve("ann@in.example")).status is Status.FOUND

    await _comes(known, SOON)


async def test_a_suppression_counts_at_once_and_unknown_means_do_not_send(
    stack: contextlib.AsyncExitStack, postgres_url: str, own: OwnRedis
) -> None:
    one, two = await process(stack, postgres_url, own.url), await process(stack, postgres_url, own.url)
    tenant = await one.accounts.create_tenant("shop")
    assert await two.suppressions.find(tenant.id, [("a@x.example", "")]) == {}
    await asyncio.to_thread(own.stop)
    await one.suppressions.add(tenant.id, [Entry("a@x.example", Reason.MANUAL, source="t")])
    assert ("a@x.example", "") in await two.suppressions.find(tenant.id, [("a@x.example", "")])
    await two.records.close()
    with pytest.raises(StorageUnavailable):
        await two.suppressions.find(tenant.id, [("b@x.example", "")])


async def test_without_redis_the_expiry_still_holds(
    stack: contextlib.AsyncExitStack, postgres_url: str, own: OwnRedis
) -> None:
    one, two = await process(stack, postgres_url, own.url), await process(stack, postgres_url, own.url)
    tenant = await one.accounts.create_tenant("shop")
    key = await one.accounts.create_key(tenant.id, "k", TENANT_SCOPES)
    header = f"Bearer {key.secret}".encode()
    await two.accounts.authenticate(header)
    await asyncio.to_thread(own.stop)
    await one.accounts.revoke_key(tenant.id, key.key.id)
    assert await _refused(one, header)
    await two.accounts.authenticate(header)  # still held
    await asyncio.to_thread(own.start)  # what was said meanwhile is said now, or all is forgotten
    await _comes(lambda: _refused(two, header), 5.5)


async def test_push_follows_the_records_while_redis_is_away(
    stack: contextlib.AsyncExitStack, postgres_url: str, own: OwnRedis
) -> None:
    one = await process(stack, postgres_url, own.url)
    tenant = await one.accounts.create_tenant("shop")
    await one.directory.add_domain(tenant.id, "in.example")
    number = await _add_ann(one, tenant.id)
    got: list[Change] = []

    async def listen() -> None:
        async with one.shared.bus.subscribe([str(number), "no-number"]) as changes:
            async for change in changes:
                got.append(change)

    listening = asyncio.ensure_future(listen())
    await asyncio.to_thread(own.stop)

    async def move(tx: object) -> None:
        await tx.run("UPDATE account SET modseq = 42 WHERE number = $1", number)  # type: ignore[attr-defined]

    await one.records.write(move)
    await until(lambda: Change(str(number), 42, ALL, ALL) in got)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_a_tenant_has_one_rate_for_all_processes(
    stack: contextlib.AsyncExitStack, postgres_url: str, redis_url: str
) -> None:
    processes = [await process(stack, postgres_url, redis_url) for _ in range(2)]
    limits, started, passed = Limits(100, 50, 0), time.monotonic(), 0
    for n in range(150):
        with contextlib.suppress(Limited):
            await processes[n % 2].limiter.take("ten_a", limits, 1)
            passed += 1
    assert 40 <= passed <= 50 + 100 * (time.monotonic() - started) + 1
