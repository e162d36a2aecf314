"""Domains, accounts, aliases and where an address leads, on both engines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from posthouse.directory.model import AccountSettings, AliasKind, DomainSettings, Resolution, Status
from posthouse.directory.resolve import MOST_DEPTH, Resolver
from posthouse.errors import Conflict, Invalid, NotFound, StorageUnavailable, Unauthorized
from posthouse.storage.records.base import Records, Work
from tests.conftest import ManualClock
from tests.contract.directory_house import ACME, BETA, House


@pytest.fixture
async def house(records: Records, clock: ManualClock) -> House:
    house = House(records, clock)
    await house.directory.add_domain(ACME, "acme.test")
    await house.directory.add_domain(ACME, "bücher.test")
    await house.directory.add_domain(BETA, "beta.test")
    return house


def leads(resolution: Resolution) -> set[int | str]:
    return {target.account or target.forward for target in resolution.targets}


async def refused(code: str, attempt: Awaitable[object]) -> None:
    with pytest.raises((Conflict, NotFound, Invalid)) as caught:
        await attempt
    assert caught.value.code == code


# Where an address leads


async def test_every_spelling_of_an_address_leads_to_its_account(house: House) -> None:
    ann = await house.account("ann@acme.test")
    ben = await house.account("ben@bücher.test")
    spellings = {
        ann.number: ["ann@acme.test", "Ann@ACME.Test", '"ann"@acme.test', "ann@acme.test.", '"a\\nn"@acme.test'],
        ben.number: ["ben@bücher.test", "ben@xn--bcher-kva.test", "BEN@XN--BCHER-KVA.TEST", "ben@BÜCHER.test"],
    }
    for number, paths in spellings.items():
        for path in paths:
            found = await house.resolver.resolve(path)
            assert (found.status, leads(found)) == (Status.FOUND, {number}), path
    assert ann.number != ben.number


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("ann@elsewhere.example", Status.FOREIGN),
        ("ann@sub.acme.test", Status.FOREIGN),
        ("ann@test", Status.FOREIGN),
        ("ann@acme.test.elsewhere.example", Status.FOREIGN),
        ("ann@notacme.test", Status.FOREIGN),
        ("ann@[127.0.0.1]", Status.FOREIGN),
        ("ann@[IPv6:::1]", Status.FOREIGN),
        ("postmaster@elsewhere.example", Status.FOREIGN),
        ("ann@bucher.test", Status.FOREIGN),
        ("ann@127.0.0.1", Status.MALFORMED),
        ("ann@acme.test..", Status.MALFORMED),
        ("ann@acme_.test", Status.MALFORMED),
        ("ann..b@acme.test", Status.MALFORMED),
        ("ann", Status.MALFORMED),
        ("", Status.MALFORMED),
        ("@acme.test", Status.MALFORMED),
        ("ann%elsewhere.example@acme.test", Status.UNKNOWN),
        ("elsewhere.example!ann@acme.test", Status.UNKNOWN),
        ('"ann@elsewhere.example"@acme.test', Status.UNKNOWN),
        ('"elsewhere.example!ann"@acme.test', Status.UNKNOWN),
        ("ann@elsewhere.example%acme.test", Status.MALFORMED),
        ('"ann@acme.test"@elsewhere.example', Status.FOREIGN),
        ("ann@acme.test@elsewhere.example", Status.MALFORMED),
        ("nobody@acme.test", Status.UNKNOWN),
        ("+ann@acme.test", Status.UNKNOWN),
    ],
)
async def test_nothing_is_relayed_under_any_spelling(house: House, path: str, status: Status) -> None:
    await house.account("ann@acme.test")
    found = await house.resolver.resolve(path)
    assert (found.status, found.targets) == (status, ())


async def test_a_catch_all_keeps_what_looks_like_a_route_to_elsewhere_here(house: House) -> None:
    ann = await house.account("ann@acme.test")
    await house.directory.set_alias(ACME, "@acme.test", ["ann@acme.test"])
    for path in (
        "ben%elsewhere.example@acme.test",
        "elsewhere.example!ben@acme.test",
        '"b@elsewhere.example"@acme.test',
    ):
        found = await house.resolver.resolve(path)
        assert leads(found) == {ann.number}
        assert found.targets[0].via == ("@acme.test",)


async def test_a_tag_is_set_aside_as_the_domain_says(house: House) -> None:
    ann = await house.account("ann@acme.test")
    dashed = await house.account("ann-b@acme.test")
    found = await house.resolver.resolve("Ann+Shop+2@acme.test")
    assert leads(found) == {ann.number}
    assert found.targets[0].tag == "shop+2"
    await house.directory.set_domain(ACME, "acme.test", DomainSettings(plus="-"))
    assert leads(await house.resolver.resolve("ann-b@acme.test")) == {dashed.number}  # named exactly
    assert leads(await house.resolver.resolve("ann-c@acme.test")) == {ann.number}
    assert (await house.resolver.resolve("ann+shop@acme.test")).status is Status.UNKNOWN
    await house.directory.set_domain(ACME, "acme.test", DomainSettings(plus=""))
    assert (await house.resolver.resolve("ann-c@acme.test")).status is Status.UNKNOWN


async def test_aliases_and_groups_lead_on_each_once(house: House) -> None:
    ann, ben = await house.account("ann@acme.test"), await house.account("ben@acme.test")
    alias, group = (
        house.directory.set_alias,
        await house.directory.set_alias(ACME, "staff@acme.test", ["ann@acme.test"]),
    )
    assert group.kind is AliasKind.ALIAS
    await alias(ACME, "all@acme.test", ["staff@acme.test", "ben@acme.test", "ann@acme.test", "out@elsewhere.example"])
    found = await house.resolver.resolve("all+x@acme.test")
    assert leads(found) == {ann.number, ben.number, "out@elsewhere.example"}
    by_account = {target.account: target for target in found.targets}
    assert by_account[ann.number].via == ("all@acme.test", "staff@acme.test")
    assert by_account[ben.number].tag == "x"
    assert by_account[0].tenant_id == ACME
    assert found.room is None
    # Given again it is changed, not doubled.
    await alias(ACME, "all@acme.test", ["ben@acme.test"])
    assert leads(await house.resolver.resolve("all@acme.test")) == {ben.number}
    assert [one.address for one in await house.directory.list_aliases(ACME)] == ["all@acme.test", "staff@acme.test"]


async def test_loops_are_refused_when_made_and_harmless_when_found(house: House) -> None:
    ann = await house.account("ann@acme.test")
    alias = house.directory.set_alias
    await alias(ACME, "a@acme.test", ["ann@acme.test"])
    await alias(ACME, "b@acme.test", ["a@acme.test"])
    await refused("alias_loops", alias(ACME, "a@acme.test", ["b@acme.test"]))
    await refused("alias_loops", alias(ACME, "a@acme.test", ["ann@acme.test", "b@acme.test"]))
    await refused("alias_loops", alias(ACME, "c@acme.test", ["c+x@acme.test"]))
    assert leads(await house.resolver.resolve("a@acme.test")) == {ann.number}  # nothing was changed
    # Two writers at once, or another version of the program, could still make one.
    await house.records.write(
        lambda tx: tx.run("""UPDATE alias SET targets = '["b@acme.test"]' WHERE address = 'a@acme.test'""")
    )
    house.directory.forget()
    assert (await house.resolver.resolve("a@acme.test")).status is Status.LOOPS
    await house.records.write(
        lambda tx: tx.run(
            """UPDATE alias SET targets = '["b@acme.test","ann@acme.test"]' WHERE address = 'a@acme.test'"""
        )
    )
    house.directory.forget()
    assert leads(await house.resolver.resolve("b@acme.test")) == {ann.number}


async def test_groups_are_bounded_in_depth_and_size(house: House) -> None:
    await house.account("ann@acme.test")
    alias = house.directory.set_alias
    before = "ann@acme.test"
    for n in range(MOST_DEPTH):
        before = (await alias(ACME, f"deep{n}@acme.test", [before])).address
    assert (await house.resolver.resolve(before)).status is Status.FOUND
    await refused("alias_loops", alias(ACME, "deeper@acme.test", [before]))
    await alias(ACME, "big1@acme.test", [f"u{n}@elsewhere.example" for n in range(600)])
    await alias(ACME, "big2@acme.test", [f"v{n}@elsewhere.example" for n in range(600)])
    await refused("alias_loops", alias(ACME, "bigger@acme.test", ["big1@acme.test", "big2@acme.test"]))
    await refused("invalid_request", alias(ACME, "huge@acme.test", [f"u{n}@x.example" for n in range(1001)]))
    assert len((await house.resolver.resolve("big1@acme.test")).targets) == 600


async def test_what_leads_to_far_too_much_hurts_nobody_else(house: House) -> None:
    ann = await house.account("ann@acme.test")
    rows = [(f"g{n}@acme.test", str([f"t{n}x{m}@acme.test" for m in range(1000)]).replace("'", '"')) for n in range(12)]
    rows.append(("top@acme.test", str([f"g{n}@acme.test" for n in range(12)]).replace("'", '"')))
    await house.records.write(
        lambda tx: tx.run_each(
            "INSERT INTO alias (address, tenant_id, domain, kind, targets, created_at) "
            f"SELECT v.address, '{ACME}', 'acme.test', 'group', v.targets, 0 FROM {{v(address text, targets text)}}",
            rows,
        )
    )
    top, found = await asyncio.gather(house.resolver.resolve("top@acme.test"), house.resolver.resolve("ann@acme.test"))
    assert top.status is Status.LOOPS
    assert leads(found) == {ann.number}


async def test_postmaster_and_abuse_are_always_taken(house: House) -> None:
    assert (await house.resolver.resolve("postmaster@acme.test")).status is Status.UNKNOWN  # nobody is here at all
    ann, _ben = await house.account("ann@acme.test"), await house.account("ben@acme.test")
    for path in ("postmaster@acme.test", "Abuse@acme.test", "postmaster", "POSTMASTER"):
        found = await house.resolver.resolve(path)
        assert (leads(found), found.duty) == ({ann.number}, True), path
    eve = await house.account("eve@acme.test")
    await house.directory.set_alias(ACME, "@acme.test", ["eve@acme.test"])
    assert leads(await house.resolver.resolve("abuse@acme.test")) == {eve.number}
    await house.directory.set_alias(ACME, "postmaster@acme.test", ["ops@elsewhere.example"])
    assert leads(await house.resolver.resolve("postmaster@acme.test")) == {"ops@elsewhere.example"}
    await house.directory.remove_alias(ACME, "@acme.test")
    await house.directory.set_account(ACME, ann.id, state="disabled")
    assert leads(await house.resolver.resolve("abuse@acme.test")) == {_ben.number}
    other = Resolver(house.records, postmaster="eve@acme.test")
    assert leads(await other.resolve("postmaster")) == {eve.number}


async def test_disabled_accounts_and_dangling_aliases(house: House) -> None:
    ann, ben = await house.account("ann@acme.test"), await house.account("ben@acme.test")
    await house.directory.set_alias(ACME, "both@acme.test", ["ann@acme.test", "ben@acme.test"])
    await house.directory.set_account(ACME, "ann@acme.test", state="disabled")
    assert (await house.resolver.resolve("ann@acme.test")).status is Status.DISABLED
    assert leads(await house.resolver.resolve("both@acme.test")) == {ben.number}
    await house.records.write(lambda tx: house.directory.remove_account_in(tx, ACME, ben.id))
    house.directory.forget()
    assert (await house.resolver.resolve("both@acme.test")).status is Status.DISABLED
    await house.records.write(lambda tx: house.directory.remove_account_in(tx, ACME, ann.address))
    house.directory.forget()
    assert (await house.resolver.resolve("both@acme.test")).status is Status.UNKNOWN
    later = await house.account("ann@acme.test")
    assert later.number > max(ann.number, ben.number)  # numbers are never given again


async def test_room_is_what_quotas_leave(house: House) -> None:
    ann, ben = await house.account("ann@acme.test", quota=1000), await house.account("ben@acme.test", quota=500)
    await house.directory.set_alias(ACME, "both@acme.test", ["ann@acme.test", "ben@acme.test"])
    await house.use(ann, 990)
    found = await house.resolver.resolve("ann@acme.test")
    assert (found.room, found.most) == (10, 1000)
    assert (await house.resolver.resolve("both@acme.test")).room == 500
    await house.directory.set_domain(ACME, "acme.test", DomainSettings(quota=7, quota_all=1100))
    assert (await house.resolver.resolve("ben@acme.test")).room == 110
    await house.use(ben, 600)
    assert (await house.resolver.resolve("both@acme.test")).room == -490
    eve = await house.account("eve@acme.test")
    assert eve.quota == 7


# Tenants


async def test_a_domain_has_one_tenant_and_others_do_not_see_it(house: House) -> None:
    directory = house.directory
    ann = await house.account("ann@acme.test")
    await directory.set_alias(ACME, "sales@acme.test", ["ann@acme.test"])
    await refused("mail_domain_exists", directory.add_domain(BETA, "ACME.test"))
    await refused("mail_domain_not_found", directory.get_domain(BETA, "acme.test"))
    await refused("mail_domain_not_found", directory.set_domain(BETA, "acme.test", DomainSettings()))
    await refused("mail_domain_not_found", directory.remove_domain(BETA, "acme.test"))
    await refused("mail_domain_not_found", house.account("eve@acme.test", tenant=BETA))
    await refused("mail_domain_not_found", directory.set_alias(BETA, "eve@acme.test", ["eve@elsewhere.example"]))
    for name in (ann.id, ann.address):
        await refused("account_not_found", directory.get_account(BETA, name))
        await refused("account_not_found", directory.set_account(BETA, name, quota=1))
        await refused("account_not_found", directory.set_password(BETA, name, "stolen-password"))
        await refused(
            "account_not_found", house.records.write(lambda tx, name=name: directory.remove_account_in(tx, BETA, name))
        )
    await refused("alias_not_found", directory.get_alias(BETA, "sales@acme.test"))
    await refused("alias_not_found", directory.remove_alias(BETA, "sales@acme.test"))
    assert await directory.list_accounts(BETA) == []
    assert await directory.list_aliases(BETA) == []
    assert [domain.name for domain in await directory.list_domains(BETA)] == ["beta.test"]
    assert (await directory.get_account(ACME, "Ann@ACME.test")).id == ann.id


async def test_an_alias_to_another_tenant_is_mail_to_elsewhere(house: House) -> None:
    await house.account("bob@beta.test", tenant=BETA)
    await house.directory.set_alias(ACME, "bob@acme.test", ["bob@beta.test"])
    await house.directory.set_alias(ACME, "nobody@acme.test", ["nobody@beta.test"])  # whether it is there is not told
    (target,) = (await house.resolver.resolve("bob@acme.test")).targets
    assert (target.account, target.forward, target.tenant_id) == (0, "bob@beta.test", ACME)


# Verbs


async def test_an_address_is_given_once(house: House) -> None:
    await house.account("ann@acme.test")
    await refused("address_taken", house.account("ANN@acme.test"))
    await refused("address_taken", house.directory.set_alias(ACME, "ann@acme.test", ["x@elsewhere.example"]))
    await house.directory.set_alias(ACME, "sales@acme.test", ["ann@acme.test"])
    await refused("address_taken", house.account("sales@acme.test"))


async def test_an_address_is_given_once_also_to_many_at_once(house: House) -> None:
    outcomes = await asyncio.gather(
        *(house.account("ann@acme.test") for _ in range(4)),
        *(house.directory.set_alias(ACME, "ann@acme.test", ["x@elsewhere.example"]) for _ in range(4)),
        *(house.account(f"u{n}@beta.test", tenant=BETA) for n in range(4)),
        return_exceptions=True,
    )
    assert all(not isinstance(outcome, BaseException) for outcome in outcomes[8:])
    assert len({account.number for account in outcomes[8:]}) == 4  # type: ignore[union-attr]
    rows = await house.records.read(
        lambda tx: tx.rows(
            "SELECT address FROM account WHERE address = $1 UNION ALL SELECT address FROM alias WHERE address = $1",
            "ann@acme.test",
        )
    )
    assert len(rows) == 1
    assert all(outcome.code == "address_taken" for outcome in outcomes[:8] if isinstance(outcome, Conflict))


async def test_a_domain_in_use_stays(house: House) -> None:
    ann = await house.account("ann@acme.test")
    await refused("mail_domain_in_use", house.directory.remove_domain(ACME, "acme.test"))
    await house.records.write(lambda tx: house.directory.remove_account_in(tx, ACME, ann.id))
    await house.directory.remove_domain(ACME, "acme.test")
    assert (await house.resolver.resolve("ann@acme.test")).status is Status.FOREIGN


async def test_settings_are_checked_and_folded(house: House) -> None:
    directory = house.directory
    await refused("invalid_request", directory.set_domain(ACME, "acme.test", DomainSettings(plus="@")))
    await refused("invalid_request", directory.set_domain(ACME, "acme.test", DomainSettings(quota=-1)))
    await refused("invalid_request", directory.add_domain(ACME, "not a name"))
    await refused("invalid_request", directory.new_account(ACME, "ann"))
    await refused("invalid_request", directory.new_account(ACME, "ann@acme.test", name="a\r\nb"))
    await refused("invalid_request", directory.new_account(ACME, "ann@acme.test", password="short"))
    await refused("invalid_request", directory.new_account(ACME, "ann@acme.test", quota=-1))
    await refused("invalid_request", directory.set_alias(ACME, "x@acme.test", ["nobody@acme.test"]))
    await refused("invalid_request", directory.set_alias(ACME, "x@acme.test", []))
    await refused(
        "invalid_request", directory.set_alias(ACME, "x@acme.test", ["y@z.example"], kind=AliasKind.CATCH_ALL)
    )
    await house.account("ann@acme.test")
    settings = AccountSettings(allow=("Ben@Elsewhere.Example", "@BÜCHER.test"), forward=("x@Y.example", "x@y.example"))
    changed = await directory.set_account(ACME, "ann@acme.test", settings=settings, display="Ann", quota=5)
    assert changed.settings.allow == ("ben@elsewhere.example", "@xn--bcher-kva.test")
    assert changed.settings.forward == ("x@y.example",)
    assert await directory.get_account(ACME, changed.id) == changed
    found = await house.records.read(lambda tx: directory.numbered(tx, [changed.number, 999_999]))
    assert found == {changed.number: changed}


async def test_pages_follow_each_other(house: House) -> None:
    for n in range(5):
        await house.account(f"u{n}@acme.test")
    await house.account("a@xn--bcher-kva.test")
    first = await house.directory.list_accounts(ACME, limit=3)
    rest = await house.directory.list_accounts(ACME, after=first[-1].address, limit=3)
    assert [one.address[:2] for one in first + rest] == ["a@", "u0", "u1", "u2", "u3", "u4"]
    assert len(await house.directory.list_accounts(ACME, domain="acme.test")) == 5


async def test_passwords(house: House) -> None:
    directory = house.directory
    account = await house.account("ann@acme.test")
    with pytest.raises(Unauthorized):
        await directory.check_password("ann@acme.test", "plain$")  # none is set
    await directory.set_password(ACME, account.id, "correct horse")
    assert (await directory.check_password("ANN@acme.test", "correct horse")).id == account.id
    for address, password in (("ann@acme.test", "wrong horse"), ("eve@acme.test", "correct horse"), ("", "x")):
        with pytest.raises(Unauthorized):
            await directory.check_password(address, password)
    await directory.set_account(ACME, account.id, state="disabled")
    with pytest.raises(Unauthorized):
        await directory.check_password("ann@acme.test", "correct horse")


# The cache


class Watched:
    """Records whose reads are counted, and fail when told."""

    def __init__(self, records: Records) -> None:
        self.capabilities = records.capabilities
        self.write, self.ready, self.close = records.write, records.ready, records.close
        self._records = records
        self.reads = 0
        self.away = False

    async def read(self, work: Work[object]) -> object:
        self.reads += 1
        if self.away:
            raise StorageUnavailable
        return await self._records.read(work)


def watched(house: House, **options: object) -> tuple[Watched, Resolver]:
    records = Watched(house.records)
    return records, Resolver(records, monotonic=house.seconds, **options)  # type: ignore[arg-type]


async def test_misses_share_a_read_and_hits_need_none(house: House) -> None:
    await house.account("ann@acme.test")
    records, resolver = watched(house)
    assert resolver.known("ann@acme.test") is None
    await asyncio.gather(*(resolver.resolve(f"{name}@acme.test") for name in ("ann", "ben", "ann", "eve") * 20))
    assert records.reads <= 2  # the first goes at once, the rest together
    known = resolver.known("ann@acme.test")
    assert known is not None and known.status is Status.FOUND
    assert resolver.known("ben@acme.test") is not None
    house.seconds.at += 9.9
    assert resolver.known("ann@acme.test") is None  # so another process's change is seen
    await resolver.resolve("ann@acme.test")
    assert records.reads <= 3


async def test_who_gives_up_waiting_does_not_hurt_the_others(house: House) -> None:
    ann = await house.account("ann@acme.test")
    _, resolver = watched(house)
    first = asyncio.create_task(resolver.resolve("ann@acme.test"))
    second = asyncio.create_task(resolver.resolve("ann@acme.test"))
    await asyncio.sleep(0)
    first.cancel()
    assert leads(await second) == {ann.number}


async def test_storage_away_is_told_and_not_remembered(house: House) -> None:
    records, resolver = watched(house)
    records.away = True
    outcomes = await asyncio.gather(*(resolver.resolve("ann@acme.test") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, StorageUnavailable) for outcome in outcomes)
    records.away = False
    assert (await resolver.resolve("ann@acme.test")).status is Status.UNKNOWN


async def test_strangers_push_out_only_strangers(house: House) -> None:
    await house.account("ann@acme.test")
    _, resolver = watched(house, strangers=10)
    await resolver.resolve("ann@acme.test")
    for n in range(30):
        await resolver.resolve(f"x{n}@acme.test")
    assert resolver.known("ann@acme.test") is not None
    assert sum(resolver.known(f"x{n}@acme.test") is not None for n in range(30)) == 10


async def test_what_was_read_before_a_change_is_not_kept_after_it(house: House) -> None:
    await house.account("ann@acme.test")
    gate = asyncio.Event()
    read: Callable[..., Awaitable[object]] = house.records.read

    class Slow(Watched):
        async def read(self, work: Work[object]) -> object:
            found = await read(work)
            await gate.wait()
            return found

    resolver = Resolver(Slow(house.records))  # type: ignore[arg-type]
    early = asyncio.create_task(resolver.resolve("ben@acme.test"))
    await asyncio.sleep(0.05)
    ben = await house.account("ben@acme.test")
    resolver.forget()
    late = asyncio.create_task(resolver.resolve("ben@acme.test"))
    await asyncio.sleep(0)
    gate.set()
    assert (await early).status is Status.UNKNOWN
    assert leads(await late) == {ben.number}
    known = resolver.known("ben@acme.test")
    assert known is not None and leads(known) == {ben.number}


async def test_a_thousand_addresses_at_once(house: House) -> None:
    for n in range(30):
        await house.account(f"u{n}@acme.test")
    paths = [f"u{n}@acme.test" for n in range(300)]
    found = await asyncio.gather(*(house.resolver.resolve(path) for path in paths))
    assert [one.status is Status.FOUND for one in found] == [n < 30 for n in range(300)]
    assert all(re.fullmatch(r"u\d+@acme\.test", one.address) for one in found)
