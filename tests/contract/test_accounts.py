"""The accounts on each engine: tenants, users, keys, streams, quotas, idempotency."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from posthouse import errors, ids
from posthouse.accounts import idempotency, limits
from posthouse.accounts.idempotency import First
from posthouse.accounts.model import Caller, Limits, Scope
from posthouse.accounts.service import Accounts, NewKey
from posthouse.accounts.streams import Streams
from posthouse.clock import DAY, HOUR, SECOND
from posthouse.storage.queue.base import Lane
from posthouse.storage.records.base import Records, Tx


@pytest.fixture
def accounts(records: Records, clock: Any) -> Accounts:
    return Accounts(records, clock, Limits(10, 20, 30))


async def _key(accounts: Accounts, name: str = "shop", *scopes: str, **more: Any) -> NewKey:
    tenant = await accounts.create_tenant(name)
    return await accounts.create_key(tenant.id, "first", scopes or ("send", "read"), **more)


def _header(key: NewKey) -> bytes:
    return f"Bearer {key.secret}".encode()


async def test_a_tenant_has_the_default_limits_and_three_streams(
    accounts: Accounts, records: Records, clock: Any
) -> None:
    tenant = await accounts.create_tenant("  shop ")
    assert (tenant.name, tenant.limits) == ("shop", Limits(10, 20, 30))
    assert await accounts.access_tenant(tenant.id) == tenant
    found = {s.name: (s.kind, s.lane) for s in await Streams(records, clock).list(tenant.id)}
    assert found == {
        "critical": ("transactional", Lane.CRITICAL),
        "transactional": ("transactional", Lane.TRANSACTIONAL),
        "broadcast": ("broadcast", Lane.BULK),
    }


async def test_a_name_is_taken_once(accounts: Accounts) -> None:
    await accounts.create_tenant("shop")
    other = await accounts.create_tenant("other")
    for again in (accounts.create_tenant("shop"), accounts.update_tenant(other.id, name="shop")):
        with pytest.raises(errors.Conflict) as caught:
            await again
        assert caught.value.code == "tenant_exists"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "x" * 201])
async def test_a_bad_name_is_refused_with_its_pointer(accounts: Accounts, name: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        await accounts.create_tenant(name)
    assert caught.value.faults[0].pointer == "/name"


async def test_a_key_authenticates_until_it_is_revoked(accounts: Accounts) -> None:
    made = await _key(accounts, "shop", "send", domain="Example.COM")
    caller = await accounts.authenticate(_header(made))
    assert (caller.key_id, caller.scopes, caller.domain) == (made.key.id, frozenset({"send"}), "example.com")
    assert await accounts.authenticate(_header(made)) is caller, "the second comes from the cache"
    await accounts.revoke_key(made.key.tenant_id, made.key.id)
    with pytest.raises(errors.Unauthorized):
        await accounts.authenticate(_header(made))
    assert (await accounts.revoke_key(made.key.tenant_id, made.key.id)).revoked_at is not None


async def test_a_key_of_another_process_is_refused_within_seconds(
    accounts: Accounts, records: Records, clock: Any
) -> None:
    made = await _key(accounts)
    elsewhere = Accounts(records, clock)
    await elsewhere.authenticate(_header(made))
    await accounts.revoke_key(made.key.tenant_id, made.key.id)
    clock.advance(5)
    with pytest.raises(errors.Unauthorized):
        await elsewhere.authenticate(_header(made))


async def test_an_expired_key_is_refused_though_cached(accounts: Accounts, clock: Any) -> None:
    made = await _key(accounts, expires_at=clock() + 2 * SECOND)
    await accounts.authenticate(_header(made))
    clock.advance(2)
    with pytest.raises(errors.Unauthorized):
        await accounts.authenticate(_header(made))


async def test_wrong_headers_are_refused(accounts: Accounts) -> None:
    made = await _key(accounts)
    tampered = made.secret[:40] + ("a" if made.secret[40] != "a" else "b") + made.secret[41:]
    for header in (
        None,
        b"",
        b"Bearer",
        b"Basic abc",
        b"Bearer " + tampered.encode(),
        b"Bearer \xff",
        b"B" * 600,
    ):
        with pytest.raises(errors.Unauthorized):
            await accounts.authenticate(header)
    assert (await accounts.authenticate(b"bearer " + made.secret.encode())).key_id == made.key.id


async def test_a_well_formed_key_with_another_secret_is_refused(accounts: Accounts) -> None:
    from posthouse.accounts import keys

    made = await _key(accounts)
    forged = keys.generate(made.key.id)
    with pytest.raises(errors.Unauthorized):
        await accounts.authenticate(f"Bearer {forged.text}".encode())


async def test_suspension_stops_keys_at_once_and_ends(accounts: Accounts) -> None:
    made = await _key(accounts)
    await accounts.authenticate(_header(made))
    await accounts.suspend_tenant(made.key.tenant_id)
    with pytest.raises(errors.Forbidden) as caught:
        await accounts.authenticate(_header(made))
    assert caught.value.code == "tenant_suspended"
    await accounts.update_tenant(made.key.tenant_id, suspended=False)
    await accounts.authenticate(_header(made))


async def test_a_revocation_during_a_look_up_is_not_undone_by_the_cache(accounts: Accounts) -> None:
    made = await _key(accounts)
    looking = [asyncio.create_task(accounts.authenticate(_header(made))) for _ in range(5)]
    await accounts.revoke_key(made.key.tenant_id, made.key.id)
    await asyncio.gather(*looking, return_exceptions=True)
    with pytest.raises(errors.Unauthorized):
        await accounts.authenticate(_header(made))


async def test_a_secret_is_stored_as_a_hash_only(accounts: Accounts, records: Records) -> None:
    made = await _key(accounts)

    async def work(tx: Tx) -> list[Any]:
        return await tx.rows("SELECT id, name, secret_hash, hint, scopes FROM api_key")

    stored = str(await records.read(work))
    assert made.secret not in stored
    assert made.secret[35:60] not in stored


async def test_last_used_is_written_in_one_go(accounts: Accounts, clock: Any) -> None:
    made = await _key(accounts)
    await accounts.authenticate(_header(made))
    at = clock.advance(1)
    await accounts.authenticate(_header(made))
    assert (await accounts.access_key(made.key.tenant_id, made.key.id)).last_used_at is None
    assert await accounts.write_last_used() == 1
    assert await accounts.write_last_used() == 0
    assert (await accounts.access_key(made.key.tenant_id, made.key.id)).last_used_at == at


async def test_a_key_gives_no_more_than_it_has(accounts: Accounts) -> None:
    tenant = await accounts.create_tenant("shop")
    by = Caller(tenant, "key_x", frozenset({Scope.KEYS, Scope.SEND}), "example.com")
    with pytest.raises(errors.Forbidden) as caught:
        await accounts.create_key(tenant.id, "k", ["operator"], by=by, domain="example.com")
    assert caught.value.code == "scope_missing"
    with pytest.raises(errors.Forbidden) as caught:
        await accounts.create_key(tenant.id, "k", ["send"], by=by)
    assert caught.value.code == "key_bound"
    assert (
        await accounts.create_key(tenant.id, "k", ["send"], by=by, domain="example.com")
    ).key.domain == "example.com"


async def test_a_tenant_does_not_reach_anothers_things(accounts: Accounts, records: Records, clock: Any) -> None:
    mine, other = await _key(accounts, "mine"), await accounts.create_tenant("other")
    user = await accounts.create_user(mine.key.tenant_id, "ann@example.com")
    streams = Streams(records, clock)
    await streams.create(mine.key.tenant_id, "receipts", "transactional")
    for attempt in (
        accounts.access_key(other.id, mine.key.id),
        accounts.revoke_key(other.id, mine.key.id),
        accounts.access_user(other.id, user.id),
        accounts.set_password(other.id, user.id, "long enough"),
        streams.access(other.id, "receipts"),
        streams.update(other.id, "receipts", max_age=100),
        accounts.access_tenant(ids.new("ten")),
        accounts.access_tenant("'; DROP TABLE tenant"),
    ):
        with pytest.raises(errors.NotFound):
            await attempt
    assert await accounts.list_keys(other.id) == []
    assert await accounts.list_users(other.id) == []


async def test_users_and_their_passwords(accounts: Accounts) -> None:
    tenant = await accounts.create_tenant("shop")
    user = await accounts.create_user(tenant.id, "Ann@Example.com", name="Ann", role="owner", password="correct horse")
    assert (user.email, user.role, user.has_password) == ("ann@example.com", "owner", True)
    assert await accounts.check_password(tenant.id, "ann@example.com", "correct horse") == user
    for email, password in (("ann@example.com", "wrong horse"), ("bob@example.com", "correct horse")):
        with pytest.raises(errors.Unauthorized):
            await accounts.check_password(tenant.id, email, password)
    with pytest.raises(errors.Conflict):
        await accounts.create_user(tenant.id, "ann@example.com")
    await accounts.set_password(tenant.id, user.id, "another horse")
    await accounts.check_password(tenant.id, "ann@example.com", "another horse")


async def test_lists_go_on_after_an_id(accounts: Accounts) -> None:
    made = [await accounts.create_tenant(f"t{n}") for n in range(5)]
    first = await accounts.list_tenants(limit=3)
    rest = await accounts.list_tenants(after=first[-1].id)
    assert [*first, *rest] == sorted(made, key=lambda tenant: tenant.id)


async def test_streams_are_checked_and_seen_at_once(accounts: Accounts, records: Records, clock: Any) -> None:
    tenant = await accounts.create_tenant("shop")
    streams = Streams(records, clock)
    assert set(await streams.of(tenant.id)) == {"critical", "transactional", "broadcast"}
    made = await streams.create(
        tenant.id, "receipts", "transactional", lane="critical", max_age=3600, settings={"a": 1}
    )
    assert (await streams.of(tenant.id))["receipts"] == made
    assert await streams.by_id([made.id, "str_none"]) == {made.id: made}
    changed = await streams.update(tenant.id, "receipts", lane="bulk")
    assert (changed.lane, changed.max_age, changed.settings) == (Lane.BULK, 3600, {"a": 1})
    for wrong in (
        streams.create(tenant.id, "Bad name", "transactional"),
        streams.create(tenant.id, "news", "broadcast", lane="critical"),
        streams.create(tenant.id, "x", "transactional", max_age=1),
        streams.create(tenant.id, "x", "transactional", settings={"a": "x" * 20_000}),
    ):
        with pytest.raises(errors.Invalid):
            await wrong
    with pytest.raises(errors.Conflict) as caught:
        await streams.create(tenant.id, "receipts", "transactional")
    assert caught.value.code == "stream_exists"


async def test_a_quota_counts_what_is_accepted_and_begins_again_at_midnight(records: Records, clock: Any) -> None:
    clock.at = clock.at // DAY * DAY + 23 * HOUR

    async def charge(count: int) -> int | None:
        async def work(tx: Tx) -> int | None:
            return await limits.charge(tx, "ten_a", count, 10, now=clock())

        return await records.write(work)

    assert await charge(7) == 3
    for count in (4, 11):
        with pytest.raises(errors.Limited) as caught:
            await charge(count)
        assert caught.value.code == "quota_exhausted"
        assert caught.value.retry_after == 3600
    assert await charge(3) == 0
    clock.advance(3600)
    assert await charge(10) == 0


async def test_a_charge_is_undone_with_its_transaction(records: Records, clock: Any) -> None:
    async def fails(tx: Tx) -> None:
        await limits.charge(tx, "ten_a", 5, 0, now=clock())
        raise ZeroDivisionError

    async def look(tx: Tx) -> int:
        return await limits.used(tx, "ten_a", now=clock())

    with pytest.raises(ZeroDivisionError):
        await records.write(fails)
    assert await records.read(look) == 0


async def test_concurrent_charges_never_pass_the_quota(records: Records, clock: Any) -> None:
    async def one() -> bool:
        async def work(tx: Tx) -> None:
            await limits.charge(tx, "ten_a", 3, 50, now=clock())

        try:
            await records.write(work)
        except errors.Limited:
            return False
        return True

    passed = sum(await asyncio.gather(*(one() for _ in range(40))))
    assert passed == 16


async def test_the_first_answer_is_kept_for_a_day(records: Records, clock: Any) -> None:
    async def save(body_hash: str) -> None:
        async def work(tx: Tx) -> None:
            await idempotency.save(tx, [First("ten_a", "k", body_hash, clock(), 202, b'{"id":1}')])

        await records.write(work)

    async def lookup(tenant: str = "ten_a") -> dict[str, Any]:
        async def work(tx: Tx) -> dict[str, Any]:
            return dict(await idempotency.lookup(tx, tenant, ["k", "l"], now=clock()))

        return await records.read(work)

    await save("one")
    assert await lookup() == {"k": ("one", 202, b'{"id":1}')}
    assert await lookup("ten_b") == {}
    with pytest.raises(errors.Conflict) as caught:
        await save("two")
    assert caught.value.code == "idempotency_in_flight"
    clock.advance(24 * 3600)
    assert await lookup() == {}
    await save("two")
    assert (await lookup())["k"][0] == "two"

    async def expire(tx: Tx) -> int:
        return await idempotency.expire(tx, now=clock())

    assert await records.write(expire) == 0
    clock.advance(24 * 3600)
    assert await records.write(expire) == 1
