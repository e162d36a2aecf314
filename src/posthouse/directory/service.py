"""The verbs of the directory. A thing of another tenant is not found, like one that is not there.

Whoever adds or removes an address holds its domain's row, so an address is given once, to an
account or to an alias. Verbs that end in `_in` join the transaction of another room; after its
commit, call `forget`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from posthouse import errors, ids
from posthouse.clock import Clock
from posthouse.directory import check, store
from posthouse.directory.model import (
    Account,
    AccountSettings,
    Alias,
    AliasKind,
    DomainSettings,
    MailDomain,
    NewAccount,
    fold,
)
from posthouse.directory.resolve import MOST_TARGETS, Resolver, examine
from posthouse.errors import Fault, Invalid
from posthouse.storage.bus.invalidation import NOBODY, Invalidation
from posthouse.storage.records.base import Records, Tx, Work

T = TypeVar("T")
MAX_PAGE = 200
STATES = ("active", "disabled")


class Directory:
    def __init__(
        self,
        records: Records,
        clock: Clock,
        resolver: Resolver,
        *,
        hash_password: Callable[[str], str],
        verify_password: Callable[[str, str], bool],
        elsewhere: Invalidation = NOBODY,
    ) -> None:
        """
        :param resolver: told of every change; the one that accept asks.
        :param hash_password: slow on purpose, called in a thread; as `verify_password(password, hash)`.
        :param elsewhere: other processes whose resolvers hold addresses.
        """
        self._records = records
        self._clock = clock
        self.resolver = resolver
        self._hash = hash_password
        self._verify = verify_password
        self._decoy: str | None = None
        self._elsewhere = elsewhere
        elsewhere.listen(lambda _: resolver.forget())

    def forget(self) -> None:
        """After the commit of a change: what is resolved from now on is read anew, here and elsewhere."""
        self.resolver.forget()
        self._elsewhere.tell()

    # Domains

    async def add_domain(self, tenant_id: str, name: str, settings: DomainSettings | None = None) -> MailDomain:
        """:raises Invalid: pointer `/name` or `/settings/…`.
        :raises Conflict: code `mail_domain_exists`: this tenant's or another's."""
        domain = MailDomain(
            check.domain_name(name), tenant_id, check.domain_settings(settings or DomainSettings()), self._clock()
        )

        async def work(tx: Tx) -> MailDomain:
            if not await store.insert_domain(tx, domain):
                raise errors.Conflict(f"Mail for {domain.name} is received here already", code="mail_domain_exists")
            return domain

        return await self._change(work)

    async def get_domain(self, tenant_id: str, name: str) -> MailDomain:
        """:raises NotFound: code `mail_domain_not_found`."""
        key = check.domain_name(name)

        async def work(tx: Tx) -> MailDomain:
            return _owned((await store.domains(tx, [key])).get(key), tenant_id, key)

        return await self._records.read(work)

    async def list_domains(self, tenant_id: str, *, after: str = "", limit: int = 50) -> list[MailDomain]:
        """In order of name, those behind `after`."""
        return await self._records.read(lambda tx: store.domain_page(tx, tenant_id, after, _bounded(limit)))

    async def set_domain(
        self, tenant_id: str, name: str, settings: DomainSettings | Callable[[DomainSettings], DomainSettings]
    ) -> MailDomain:
        """:param settings: new ones, or what makes them of those that are.
        :raises NotFound: code `mail_domain_not_found`. :raises Invalid: pointer `/settings/…`."""
        key = check.domain_name(name)
        if isinstance(settings, DomainSettings):
            check.domain_settings(settings)

        async def work(tx: Tx) -> MailDomain:
            domain = _owned(await store.hold_domain(tx, key), tenant_id, key)
            new = settings if isinstance(settings, DomainSettings) else settings(domain.settings)
            changed = msgspec.structs.replace(domain, settings=check.domain_settings(new))
            await store.save_domain(tx, changed)
            return changed

        return await self._change(work)

    async def remove_domain(self, tenant_id: str, name: str) -> None:
        """:raises NotFound: code `mail_domain_not_found`.
        :raises Conflict: code `mail_domain_in_use`: accounts or aliases are in it."""
        key = check.domain_name(name)

        async def work(tx: Tx) -> None:
            _owned(await store.hold_domain(tx, key), tenant_id, key)
            if await store.domain_in_use(tx, key):
                raise errors.Conflict(
                    f"{key} still has accounts or aliases; remove them first", code="mail_domain_in_use"
                )
            await store.delete_domain(tx, key)

        await self._change(work)

    # Accounts

    async def new_account(
        self,
        tenant_id: str,
        address: str,
        *,
        name: str = "",
        password: str | None = None,
        quota: int | None = None,
        settings: AccountSettings | None = None,
    ) -> NewAccount:
        """Checked and its password hashed, for `add_account_in`.

        :param password: None: nobody can log in with one.
        :param quota: octets; 0: none; None: as its domain says.
        :raises Invalid: pointer `/address`, `/name`, `/password`, `/quota` or `/settings/…`.
        """
        return NewAccount(
            tenant_id,
            check.address(address, "/address"),
            check.person(name),
            await self._hashed(password),
            None if quota is None else check.quota(quota, "/quota"),
            check.account_settings(settings or AccountSettings()),
        )

    async def add_account_in(self, tx: Tx, new: NewAccount) -> Account:
        """:raises NotFound: code `mail_domain_not_found`. :raises Conflict: code `address_taken`."""
        name = new.address.rpartition("@")[2]
        domain = _owned(await store.hold_domain(tx, name), new.tenant_id, name)
        await _refuse_taken(tx, new.address)
        quota = domain.settings.quota if new.quota is None else new.quota
        account = Account(
            await store.next_number(tx),
            ids.new("acc"),
            new.tenant_id,
            new.address,
            new.name,
            "active",
            quota,
            new.settings,
            self._clock(),
        )
        await store.insert_account(tx, account, name, new.password_hash)
        return account

    async def remove_account_in(self, tx: Tx, tenant_id: str, name: str) -> Account:
        """Only the directory's row; what lies in its mailboxes is theirs to remove. Aliases that
        lead to it stay, and lead to nobody.

        :param name: id or address. :raises NotFound: code `account_not_found`.
        """
        account = await _access(tx, tenant_id, name)
        await store.delete_account(tx, account.number)
        return account

    async def get_account(self, tenant_id: str, name: str) -> Account:
        """:param name: id or address. :raises NotFound: code `account_not_found`."""
        return await self._records.read(lambda tx: _access(tx, tenant_id, name))

    async def list_accounts(
        self, tenant_id: str, *, domain: str | None = None, after: str = "", limit: int = 50
    ) -> list[Account]:
        """In order of address, those behind `after`."""
        name = None if domain is None else check.domain_name(domain)
        return await self._records.read(lambda tx: store.account_page(tx, tenant_id, name, after, _bounded(limit)))

    async def numbered(self, tx: Tx, numbers: Sequence[int]) -> dict[int, Account]:
        """Those that are there, of any tenant: for the stages."""
        return {account.number: account for account in await store.accounts_numbered(tx, numbers)}

    async def set_account(
        self,
        tenant_id: str,
        name: str,
        *,
        display: str | None = None,
        state: str | None = None,
        quota: int | None = None,
        settings: AccountSettings | Callable[[AccountSettings], AccountSettings] | None = None,
    ) -> Account:
        """What is None stays. A disabled account receives nothing, and nobody can log in.

        :param settings: new ones, or what makes them of those that are.
        :raises NotFound: code `account_not_found`. :raises Invalid: pointer of the field.
        """
        if state is not None and state not in STATES:
            check.refuse("/state", f"is one of {', '.join(STATES)}")
        changes: dict[str, object] = {
            "name": None if display is None else check.person(display),
            "state": state,
            "quota": None if quota is None else check.quota(quota, "/quota"),
            "settings": check.account_settings(settings) if isinstance(settings, AccountSettings) else None,
        }
        given = {key: value for key, value in changes.items() if value is not None}

        async def work(tx: Tx) -> Account:
            # Its domain's row first: two changes of one account must not undo each other.
            found = await _access(tx, tenant_id, name)
            await store.hold_domain(tx, found.address.rpartition("@")[2])
            account = msgspec.structs.replace(await _access(tx, tenant_id, name), **given)
            if callable(settings):
                account = msgspec.structs.replace(account, settings=check.account_settings(settings(account.settings)))
            await store.save_account(tx, account)
            return account

        return await self._change(work)

    async def set_password(self, tenant_id: str, name: str, password: str | None) -> None:
        """:param password: None: nobody can log in with one. :raises NotFound: code `account_not_found`."""
        hashed = await self._hashed(password)

        async def work(tx: Tx) -> None:
            account = await _access(tx, tenant_id, name)
            await store.save_password_hash(tx, account.number, hashed)

        await self._records.write(work)

    async def check_password(self, address: str, password: str) -> Account:
        """As slow for an unknown address as for a wrong password.

        :raises Unauthorized: code `wrong_credentials`.
        """
        try:
            folded = fold(address)
        except Invalid:
            folded = ""
        found = await self._records.read(lambda tx: store.password_hash(tx, folded))
        if self._decoy is None:
            self._decoy = await asyncio.to_thread(self._hash, ids.new("acc"))
        stored = found[1] if found is not None else None
        right = await asyncio.to_thread(self._verify, password, stored or self._decoy)
        if found is None or stored is None or not right or found[0].state != "active":
            raise errors.Unauthorized("Wrong address or password", code="wrong_credentials")
        return found[0]

    # Aliases

    async def set_alias(
        self, tenant_id: str, address: str, targets: Sequence[str], *, kind: AliasKind | None = None
    ) -> Alias:
        """Makes it or gives it new targets.

        :param address: `sales@example.com`; `@example.com` is whatever else is sent there.
        :param targets: addresses, here or elsewhere, at most 1000.
        :param kind: None: a catch-all by its address, else a group when there are several targets.
        :raises Invalid: pointer `/address`, `/targets` or `/targets/N`: not an address, or one of
            this tenant's that nobody has.
        :raises NotFound: code `mail_domain_not_found`.
        :raises Conflict: code `address_taken`, or `alias_loops`: it leads back to itself, too deep
            or to more than 1000 targets.
        """
        folded = check.alias_address(address)
        if not 1 <= len(targets) <= MOST_TARGETS:
            check.refuse("/targets", f"has 1 to {MOST_TARGETS} addresses")
        addresses = tuple(dict.fromkeys(check.address(one, f"/targets/{n}") for n, one in enumerate(targets)))
        alias = Alias(folded, tenant_id, _kind(folded, addresses, kind), addresses, self._clock())

        async def work(tx: Tx) -> Alias:
            return await _put_alias(tx, alias)

        return await self._change(work)

    async def get_alias(self, tenant_id: str, address: str) -> Alias:
        """:raises NotFound: code `alias_not_found`."""
        key = check.alias_address(address)
        return await self._records.read(lambda tx: _access_alias(tx, tenant_id, key))

    async def list_aliases(self, tenant_id: str, *, after: str = "", limit: int = 50) -> list[Alias]:
        """In order of address, those behind `after`."""
        return await self._records.read(lambda tx: store.alias_page(tx, tenant_id, after, _bounded(limit)))

    async def remove_alias(self, tenant_id: str, address: str) -> None:
        """:raises NotFound: code `alias_not_found`."""
        key = check.alias_address(address)

        async def work(tx: Tx) -> None:
            await _access_alias(tx, tenant_id, key)
            await store.delete_alias(tx, key)

        await self._change(work)

    async def _change(self, work: Work[T]) -> T:
        try:
            return await self._records.write(work)
        finally:
            self.forget()

    async def _hashed(self, password: str | None) -> str | None:
        if password is None:
            return None
        if not 8 <= len(password) <= 1024:
            check.refuse("/password", "has 8 to 1024 characters")
        return await asyncio.to_thread(self._hash, password)


def _bounded(limit: int) -> int:
    return max(1, min(limit, MAX_PAGE))


def _owned(domain: MailDomain | None, tenant_id: str, name: str) -> MailDomain:
    if domain is None or domain.tenant_id != tenant_id:
        raise errors.NotFound(f"Mail for {name} is not received here", code="mail_domain_not_found")
    return domain


async def _access(tx: Tx, tenant_id: str, name: str) -> Account:
    try:
        key = fold(name) if "@" in name else name
    except Invalid:
        key = ""
    found = await store.account(tx, tenant_id, key)
    if found is None:
        raise errors.NotFound("There is no such account", code="account_not_found")
    return found


async def _access_alias(tx: Tx, tenant_id: str, address: str) -> Alias:
    found = await store.alias(tx, tenant_id, address)
    if found is None:
        raise errors.NotFound("There is no such alias", code="alias_not_found")
    return found


async def _refuse_taken(tx: Tx, address: str, *, by_alias: bool = True) -> None:
    if await store.accounts_at(tx, [address]) or (by_alias and await store.aliases_at(tx, [address])):
        raise errors.Conflict(f"{address} is in use", code="address_taken")


async def _put_alias(tx: Tx, alias: Alias) -> Alias:
    name = alias.address.rpartition("@")[2]
    _owned(await store.hold_domain(tx, name), alias.tenant_id, name)
    await _refuse_taken(tx, alias.address, by_alias=False)
    before = await store.alias(tx, alias.tenant_id, alias.address)
    if before is not None:
        alias = msgspec.structs.replace(alias, created_at=before.created_at)
    await store.put_alias(tx, alias, name)
    found = await examine(tx, alias)
    if found.loops:
        raise errors.Conflict(
            f"{alias.address} would lead back to itself, too deep or to more than {MOST_TARGETS} targets",
            code="alias_loops",
        )
    absent = [
        Fault(f"/targets/{n}", "nobody here has this address")
        for n, target in enumerate(alias.targets)
        if target in found.missing
    ]
    if absent:
        raise Invalid("A target does not exist", faults=tuple(absent))
    return alias


def _kind(address: str, targets: Sequence[str], kind: AliasKind | None) -> AliasKind:
    if address.startswith("@") != (kind is AliasKind.CATCH_ALL) and kind is not None:
        check.refuse("/kind", "catch_all goes with an address such as @example.com, and only with it")
    if address.startswith("@"):
        return AliasKind.CATCH_ALL
    return kind or (AliasKind.GROUP if len(targets) > 1 else AliasKind.ALIAS)
