"""Domains on real records, both engines, and a real DNS server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.conftest import ManualClock
from tests.flow.dns_server import DnsServer

from posthouse.domains.model import Domain
from posthouse.domains.records import Sender
from posthouse.domains.service import Domains
from posthouse.errors import Conflict, Corrupt, Invalid, Misconfigured, NotFound
from posthouse.mailauth.dkim import load_private_key, public_key
from posthouse.net.dns import Resolver
from posthouse.seal import Seal
from posthouse.storage.records.base import Records, Tx

SENDER = Sender("mail.posthouse.example", "include:spf.posthouse.example")
SEAL = Seal([bytes(32)])


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer({}) as server:
        yield server


def build(records: Records, clock: ManualClock, dns: DnsServer, *, seal: Seal = SEAL, strict: bool = False) -> Domains:
    resolver = Resolver([dns.nameserver], timeout=0.3, lifetime=0.6)
    return Domains(records, clock, seal=seal, resolver=resolver, sender=SENDER, require_verified=strict)


@pytest.fixture
def domains(records: Records, clock: ManualClock, dns: DnsServer) -> Domains:
    return build(records, clock, dns)


def publish(dns: DnsServer, domains: Domains, domain: Domain, *purposes: str) -> None:
    for record in domains.dns_records(domain):
        if not purposes or record.purpose in purposes:
            value = f"{record.value}." if record.type == "MX" else record.strings
            dns.zones[record.name] = {record.type: [value]}


async def test_a_domain_is_made_with_keys_and_verified(domains: Domains, dns: DnsServer) -> None:
    made = await domains.create("t1", "News.Example.COM")
    assert (made.name, made.state, made.checks) == ("news.example.com", "pending", ())
    assert [(key.algorithm, key.status) for key in made.keys] == [
        ("rsa-sha256", "active"),
        ("ed25519-sha256", "active"),
    ]
    before = await domains.verify("t1", "news.example.com")
    assert before.state == "pending"
    assert {check.ok for check in before.checks} == {False}
    publish(dns, domains, made)
    after = await domains.verify("t1", "news.example.com")
    assert after.state == "verified"
    assert all(check.ok for check in after.checks)
    assert after.verified_at is not None
    assert await domains.get("t1", "news.example.com") == after


async def test_a_domain_may_do_with_an_rsa_key(domains: Domains) -> None:
    made = await domains.create("t1", "plain.example", ["rsa-sha256"])
    assert [key.algorithm for key in made.keys] == ["rsa-sha256"]
    rotated = await domains.rotate("t1", "plain.example")
    assert [key.algorithm for key in rotated.keys] == ["rsa-sha256", "rsa-sha256"]
    for algorithms in (["ed25519-sha256"], [], ["rsa-sha256", "rsa-sha1"]):
        with pytest.raises(Invalid) as wrong:
            await domains.create("t1", "other.example", algorithms)
        assert wrong.value.faults[0].pointer == "/algorithms"


async def test_what_cannot_be(domains: Domains) -> None:
    await domains.create("t1", "example.com")
    with pytest.raises(Conflict) as conflict:
        await domains.create("t1", "EXAMPLE.com")
    assert conflict.value.code == "domain_exists"
    with pytest.raises(Invalid):
        await domains.create("t1", "co.uk")
    for call in (
        domains.get("t2", "example.com"),
        domains.verify("t2", "example.com"),
        domains.delete("t2", "example.com"),
    ):
        with pytest.raises(NotFound) as absent:
            await call
        assert absent.value.code == "domain_not_found"


async def test_a_record_that_goes_makes_it_failing_and_silence_does_not(domains: Domains, dns: DnsServer) -> None:
    made = await domains.create("t1", "example.com")
    publish(dns, domains, made)
    await domains.verify("t1", "example.com")
    dns.zones["_posthouse.example.com"] = "SERVFAIL"
    silent = await domains.verify("t1", "example.com")
    assert silent.state == "verified"
    assert next(check for check in silent.checks if check.purpose == "ownership").ok is None
    del dns.zones["_posthouse.example.com"]
    assert (await domains.verify("t1", "example.com")).state == "failing"
    publish(dns, domains, made)
    assert (await domains.verify("t1", "example.com")).state == "verified"


async def test_a_verified_domain_is_one_tenants(domains: Domains, dns: DnsServer) -> None:
    first, second = await domains.create("t1", "example.com"), await domains.create("t2", "example.com")
    publish(dns, domains, first)
    assert (await domains.verify("t1", "example.com")).state == "verified"
    token = domains.dns_records(first)[0].strings
    for record in domains.dns_records(second):
        if record.type == "TXT":
            dns.zones[record.name] = {"TXT": [record.strings]}
    dns.zones["_posthouse.example.com"] = {"TXT": [token, domains.dns_records(second)[0].strings]}
    with pytest.raises(Conflict) as taken:
        await domains.verify("t2", "example.com")
    assert taken.value.code == "domain_taken"
    # The domain changes hands: the first tenant's token goes.
    dns.zones["_posthouse.example.com"] = {"TXT": [domains.dns_records(second)[0].strings]}
    assert (await domains.verify("t2", "example.com")).state == "verified"
    assert (await domains.get("t1", "example.com")).state == "failing"


async def test_a_rotation_waits_for_dns(domains: Domains, dns: DnsServer) -> None:
    made = await domains.create("t1", "example.com")
    publish(dns, domains, made)
    await domains.verify("t1", "example.com")
    old = await domains.signing_keys("t1", {"example.com"})
    rotated = await domains.rotate("t1", "example.com")
    assert sorted(key.status for key in rotated.keys) == ["active", "active", "waiting", "waiting"]
    assert await domains.signing_keys("t1", {"example.com"}) == old
    with pytest.raises(Conflict, match="waiting"):
        await domains.rotate("t1", "example.com")
    assert (await domains.verify("t1", "example.com")).state == "verified"
    assert await domains.signing_keys("t1", {"example.com"}) == old
    publish(dns, domains, rotated)
    done = await domains.verify("t1", "example.com")
    assert [(key.status, key in made.keys) for key in done.keys] == [
        ("retired", False), ("retired", False), ("active", False), ("active", False),
    ]  # fmt: skip
    new = await domains.signing_keys("t1", {"example.com"})
    assert {key.selector for key in new["example.com"]}.isdisjoint(key.selector for key in old["example.com"])
    assert len((await domains.rotate("t1", "example.com")).keys) == 4


async def test_a_key_that_is_not_published_waits_while_the_other_signs(domains: Domains, dns: DnsServer) -> None:
    made = await domains.create("t1", "example.com")
    publish(dns, domains, made, "ownership", "dkim-rsa")
    assert (await domains.verify("t1", "example.com")).state == "verified"
    keys = (await domains.signing_keys("t1", {"example.com"}))["example.com"]
    assert [key.algorithm for key in keys] == ["rsa-sha256"]
    publish(dns, domains, made)
    await domains.verify("t1", "example.com")
    keys = (await domains.signing_keys("t1", {"example.com"}))["example.com"]
    assert [key.algorithm for key in keys] == ["rsa-sha256", "ed25519-sha256"]


async def test_signing_keys_are_opened_cached_and_sealed_at_rest(
    domains: Domains, records: Records, clock: ManualClock, dns: DnsServer
) -> None:
    made = await domains.create("t1", "example.com")
    found = await domains.signing_keys("t1", {"example.com", "other.example"})
    assert found["other.example"] == ()
    for key, state in zip(found["example.com"], made.keys, strict=True):
        assert (key.domain, key.selector, key.algorithm) == ("example.com", state.selector, state.algorithm)
        assert public_key(load_private_key(key.private_pem)) == state.public_key
    clock.advance(60)
    again = await domains.signing_keys("t1", {"example.com"})
    assert all(a is b for a, b in zip(again["example.com"], found["example.com"], strict=True))
    assert await domains.signing_keys("t2", {"example.com"}) == {"example.com": ()}

    async def stored(tx: Tx) -> list[bytes]:
        return [bytes(row[0]) for row in await tx.rows("SELECT private_key FROM dkim_key")]

    assert not any(b"PRIVATE" in sealed for sealed in await records.read(stored))
    with pytest.raises(Misconfigured):
        await build(records, clock, dns, seal=Seal([b"\1" * 32])).signing_keys("t1", {"example.com"})

    async def swap(tx: Tx) -> None:
        await tx.run("UPDATE dkim_key SET private_key = $1", (await stored(tx))[0])

    await records.write(swap)
    with pytest.raises(Corrupt):
        await build(records, clock, dns).signing_keys("t1", {"example.com"})


async def test_who_may_send(domains: Domains, records: Records, clock: ManualClock, dns: DnsServer) -> None:
    assert await domains.sending_domains("t1") == {}
    made = await domains.create("t1", "example.com")
    held = await domains.sending_domains("t1")
    assert held == {"example.com": made}
    assert domains.check_sender(held, "example.com") == made
    with pytest.raises(Invalid) as refused:
        domains.check_sender(held, "other.example", "/messages/0/from")
    assert (refused.value.code, refused.value.faults[0].pointer) == ("domain_not_found", "/messages/0/from")
    strict = build(records, clock, dns, strict=True)
    with pytest.raises(Invalid) as refused:
        strict.check_sender(held, "example.com")
    assert refused.value.code == "domain_not_verified"
    publish(dns, domains, made)
    await domains.verify("t1", "example.com")
    assert strict.check_sender(await domains.sending_domains("t1"), "example.com").state == "verified"
    await domains.delete("t1", "example.com")
    assert await domains.sending_domains("t1") == {}
    assert await domains.signing_keys("t1", {"example.com"}) == {"example.com": ()}


async def test_lists_go_by_cursor(domains: Domains) -> None:
    for name in ("c.example", "a.example", "b.example"):
        await domains.create("t1", name)
    first, cursor = await domains.list("t1", limit=2)
    rest, end = await domains.list("t1", cursor=cursor, limit=2)
    assert [domain.name for domain in first + rest] == ["a.example", "b.example", "c.example"]
    assert all(len(domain.keys) == 2 for domain in first + rest)
    assert end is None
