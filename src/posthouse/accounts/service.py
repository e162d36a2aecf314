"""Tenants, users and API keys: the verbs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast, get_args

from posthouse import errors, ids
from posthouse.accounts import keys, passwords, store, streams
from posthouse.accounts.authenticate import Authenticator
from posthouse.accounts.model import ALL_SCOPES, TENANT_SCOPES, ApiKey, Caller, Limits, Role, Tenant, User
from posthouse.clock import Clock
from posthouse.errors import Fault
from posthouse.storage.bus.invalidation import NOBODY, Invalidation
from posthouse.storage.records.base import Records, Tx

_MOST_NAME = 200
_MOST_LIMIT = 10**9
_PLAIN_EMAIL = re.compile(r"[^\s@<>\"]{1,64}@[^\s@<>\"]{1,255}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class NewKey:
    """`secret` is shown once and never again."""

    key: ApiKey
    secret: str


class Accounts:
    def __init__(
        self, records: Records, clock: Clock, defaults: Limits | None = None, elsewhere: Invalidation = NOBODY
    ) -> None:
        """
        :param defaults: the limits of a tenant made without its own.
        :param elsewhere: other processes that hold callers.
        """
        self._elsewhere = elsewhere
        elsewhere.listen(lambda _: self._authenticator.forget())
        self._records = records
        self._clock = clock
        self.defaults = defaults or Limits()
        self._authenticator = Authenticator(records, clock)
        self.authenticate = self._authenticator.authenticate
        self.write_last_used = self._authenticator.write_last_used

    # Tenants

    async def create_tenant(self, name: str, limits: Limits | None = None) -> Tenant:
        """With its three streams: `critical`, `transactional` and `broadcast`.

        :raises Conflict: code `tenant_exists`.
        """
        now = self._clock()
        tenant = Tenant(ids.new("ten"), _name(name), now, None, _limits(limits or self.defaults))

        async def work(tx: Tx) -> Tenant:
            if await store.tenant_named(tx, tenant.name) is not None:
                raise errors.Conflict("A tenant of this name exists", code="tenant_exists")
            await store.add_tenant(tx, tenant)
            await store.add_streams(tx, streams.first_streams(tenant.id, now))
            return tenant

        return await self._records.write(work)

    async def list_tenants(self, *, after: str = "", limit: int = 50) -> list[Tenant]:
        """In order of creation, those behind the id `after`."""

        async def work(tx: Tx) -> list[Tenant]:
            return await store.tenants(tx, after, limit)

        return await self._records.read(work)

    async def access_tenant(self, tenant_id: str) -> Tenant:
        """:raises NotFound: code `tenant_not_found`."""

        async def work(tx: Tx) -> Tenant:
            return await _access_tenant(tx, tenant_id)

        return await self._records.read(work)

    async def update_tenant(
        self, tenant_id: str, *, name: str | None = None, limits: Limits | None = None, suspended: bool | None = None
    ) -> Tenant:
        """What is None stays. Suspension stops every key at once; queued messages still go out.

        :raises NotFound: code `tenant_not_found`.
        :raises Conflict: code `tenant_exists`.
        """
        now = self._clock()
        new_name = None if name is None else _name(name)

        async def work(tx: Tx) -> Tenant:
            tenant = await _access_tenant(tx, tenant_id)
            if new_name is not None and new_name != tenant.name:
                if await store.tenant_named(tx, new_name) is not None:
                    raise errors.Conflict("A tenant of this name exists", code="tenant_exists")
                tenant = replace(tenant, name=new_name)
            if limits is not None:
                tenant = replace(tenant, limits=_limits(limits))
            if suspended is not None:
                tenant = replace(tenant, suspended_at=(tenant.suspended_at or now) if suspended else None)
            await store.save_tenant(tx, tenant)
            return tenant

        changed = await self._records.write(work)
        self._changed()
        return changed

    async def suspend_tenant(self, tenant_id: str) -> Tenant:
        return await self.update_tenant(tenant_id, suspended=True)

    # Users

    async def create_user(
        self, tenant_id: str, email: str, *, name: str = "", role: Role = "member", password: str | None = None
    ) -> User:
        """:raises Conflict: code `user_exists`."""
        if not _PLAIN_EMAIL.fullmatch(email):
            raise _invalid("/email", "This is not an email address")
        if role not in get_args(Role):
            raise _invalid("/role", f"A role is one of {', '.join(get_args(Role))}")
        hashed = await _hash(password) if password is not None else None
        user = User(
            ids.new("usr"), tenant_id, email.lower(), _name(name) if name else "", role, self._clock(), bool(hashed)
        )

        async def work(tx: Tx) -> User:
            await _access_tenant(tx, tenant_id)
            if await store.user_and_hash(tx, tenant_id, user.email) is not None:
                raise errors.Conflict("A user with this address exists", code="user_exists")
            await store.add_user(tx, user, hashed)
            return user

        return await self._records.write(work)

    async def list_users(self, tenant_id: str, *, after: str = "", limit: int = 50) -> list[User]:
        async def work(tx: Tx) -> list[User]:
            return await store.users(tx, tenant_id, after, limit)

        return await self._records.read(work)

    async def access_user(self, tenant_id: str, user_id: str) -> User:
        """:raises NotFound: code `user_not_found`, another tenant's as well."""

        async def work(tx: Tx) -> User:
            return await _access_user(tx, tenant_id, user_id)

        return await self._records.read(work)

    async def set_password(self, tenant_id: str, user_id: str, password: str) -> None:
        """:raises NotFound: code `user_not_found`."""
        hashed = await _hash(password)

        async def work(tx: Tx) -> None:
            await _access_user(tx, tenant_id, user_id)
            await store.set_password_hash(tx, user_id, hashed)

        await self._records.write(work)

    async def check_password(self, tenant_id: str, email: str, password: str) -> User:
        """As slow for an unknown user as for a wrong password.

        :raises Unauthorized: code `wrong_credentials`.
        """

        async def work(tx: Tx) -> tuple[User, str | None] | None:
            return await store.user_and_hash(tx, tenant_id, email.lower())

        found = await self._records.read(work)
        stored = (found[1] if found else None) or await _decoy()
        right = await asyncio.to_thread(passwords.verify_password, password, stored)
        if found is None or found[1] is None or not right:
            raise errors.Unauthorized("Wrong address or password", code="wrong_credentials")
        return found[0]

    # Keys

    async def create_key(
        self,
        tenant_id: str,
        name: str,
        scopes: Iterable[str],
        *,
        domain: str | None = None,
        expires_at: int | None = None,
        by: Caller | None = None,
    ) -> NewKey:
        """
        :param domain: the only domain that the key may send from.
        :param by: who asks: a key never gives more than it has itself; None: the house.
        :raises Forbidden: code `scope_missing` or `key_bound`.
        :raises NotFound: code `tenant_not_found`.
        """
        wanted = _scopes(scopes)
        if by is not None:
            _check_giving(by, wanted, domain)
        now = self._clock()
        if expires_at is not None and expires_at <= now:
            raise _invalid("/expires_at", "This time is past")
        key_id = ids.new("key")
        secret = keys.generate(key_id)
        bound = _domain(domain) if domain is not None else None
        key = ApiKey(key_id, tenant_id, _name(name), secret.hint, wanted, bound, now, expires_at, None, None)

        async def work(tx: Tx) -> None:
            await _access_tenant(tx, tenant_id)
            await store.add_key(tx, key, secret.hash)

        await self._records.write(work)
        return NewKey(key, secret.text)

    async def list_keys(self, tenant_id: str, *, after: str = "", limit: int = 50) -> list[ApiKey]:
        async def work(tx: Tx) -> list[ApiKey]:
            return await store.keys(tx, tenant_id, after, limit)

        return await self._records.read(work)

    async def access_key(self, tenant_id: str, key_id: str) -> ApiKey:
        """:raises NotFound: code `key_not_found`, another tenant's as well."""

        async def work(tx: Tx) -> ApiKey:
            return await _access_key(tx, tenant_id, key_id)

        return await self._records.read(work)

    async def revoke_key(self, tenant_id: str, key_id: str) -> ApiKey:
        """For good; at once in this process, soon in others. Again is fine.

        :raises NotFound: code `key_not_found`.
        """

        async def work(tx: Tx) -> ApiKey:
            await _access_key(tx, tenant_id, key_id)
            await store.revoke_key(tx, key_id, self._clock())
            return await _access_key(tx, tenant_id, key_id)

        revoked = await self._records.write(work)
        self._changed()
        return revoked

    def _changed(self) -> None:
        self._authenticator.forget()
        self._elsewhere.tell()


async def _access_tenant(tx: Tx, tenant_id: str) -> Tenant:
    tenant = await store.tenant(tx, tenant_id) if ids.is_id(tenant_id, "ten") else None
    if tenant is None:
        raise errors.NotFound("There is no such tenant", code="tenant_not_found")
    return tenant


async def _access_user(tx: Tx, tenant_id: str, user_id: str) -> User:
    user = await store.user(tx, tenant_id, user_id) if ids.is_id(user_id, "usr") else None
    if user is None:
        raise errors.NotFound("There is no such user", code="user_not_found")
    return user


async def _access_key(tx: Tx, tenant_id: str, key_id: str) -> ApiKey:
    key = await store.key(tx, tenant_id, key_id) if ids.is_id(key_id, "key") else None
    if key is None:
        raise errors.NotFound("There is no such key", code="key_not_found")
    return key


def _check_giving(by: Caller, wanted: frozenset[str], domain: str | None) -> None:
    may = by.scopes | TENANT_SCOPES if by.operator else by.scopes
    if not wanted <= may:
        lacking = ", ".join(f"`{scope}`" for scope in sorted(wanted - may))
        raise errors.Forbidden(f"This key lacks {lacking}, so it cannot give that", code="scope_missing")
    if by.domain is not None and domain != by.domain:
        raise errors.Forbidden(f"This key is bound to {by.domain} and can only make keys that are", code="key_bound")


def _name(name: str) -> str:
    text = name.strip()
    if not text or len(text) > _MOST_NAME or _CONTROL.search(text):
        raise _invalid("/name", f"A name has 1 to {_MOST_NAME} characters and no control characters")
    return text


def _domain(domain: str) -> str:
    """Lower case, IDNA (RFC 5891)."""
    try:
        text = domain.strip().rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        text = ""
    if not re.fullmatch(r"(?=.{4,253}$)([a-z0-9_]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}", text):
        raise _invalid("/domain", "This is not a domain name")
    return text


def _scopes(scopes: Iterable[str]) -> frozenset[str]:
    wanted = list(scopes)
    for index, scope in enumerate(wanted):
        if scope not in cast(frozenset[str], ALL_SCOPES):
            raise _invalid(f"/scopes/{index}", f"A scope is one of {', '.join(sorted(ALL_SCOPES))}")
    if not wanted:
        raise _invalid("/scopes", "A key needs at least one scope")
    return frozenset(str(scope) for scope in wanted)


def _limits(limits: Limits) -> Limits:
    for field, least in (("rate_per_second", 1), ("burst", 1), ("daily_quota", 0)):
        if not least <= getattr(limits, field) <= _MOST_LIMIT:
            raise _invalid(f"/{field}", f"This is from {least} to {_MOST_LIMIT}")
    return limits


async def _hash(password: str) -> str:
    if not 8 <= len(password) <= passwords.MAX_LENGTH:
        raise _invalid("/password", f"A password has 8 to {passwords.MAX_LENGTH} characters")
    return await asyncio.to_thread(passwords.hash_password, password)


async def _decoy() -> str:
    """A hash that no password has been given for, made once."""
    if not _decoys:
        _decoys.append(await asyncio.to_thread(passwords.hash_password, ids.new("usr")))
    return _decoys[0]


_decoys: list[str] = []


def _invalid(pointer: str, message: str) -> errors.Invalid:
    return errors.Invalid(message, faults=(Fault(pointer, message),))
