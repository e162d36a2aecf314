"""The verbs of domains, and the keys that signing asks for.

An unverified domain may send unless `require_verified` is set: mail is signed with the keys
that the tenant was told to publish, and the peer believes it once they are. An installation
that is open to strangers sets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from secrets import token_hex
from typing import TypeVar

from posthouse import errors, ids
from posthouse.clock import Clock, to_datetime
from posthouse.domains import store
from posthouse.domains.cache import TimedCache
from posthouse.domains.model import Check, DnsRecord, Domain, DomainState, KeyState, SigningKey
from posthouse.domains.name import normalise
from posthouse.domains.records import Resolver, Sender, check, dns_records
from posthouse.mailauth.dkim import Algorithm, generate_key
from posthouse.seal import Seal
from posthouse.storage.bus.invalidation import NOBODY, Invalidation
from posthouse.storage.records.base import Records, Tx, Work

T = TypeVar("T")
ALGORITHMS: tuple[Algorithm, ...] = ("rsa-sha256", "ed25519-sha256")
MAX_PAGE = 200


class Domains:
    def __init__(
        self,
        records: Records,
        clock: Clock,
        *,
        seal: Seal,
        resolver: Resolver,
        sender: Sender,
        require_verified: bool = False,
        cache_seconds: float = 5.0,
        elsewhere: Invalidation = NOBODY,
    ) -> None:
        """
        :param cache_seconds: how late another process's change may be seen here; a change
            made through this object is seen at once.
        :param elsewhere: other processes that hold domains and keys: with them it is sooner.
        """
        self._elsewhere = elsewhere
        elsewhere.listen(lambda _: self._forget())
        self._records = records
        self._clock = clock
        self._seal = seal
        self._resolver = resolver
        self._sender = sender
        self._require_verified = require_verified
        self._domains: TimedCache[str, dict[str, Domain]] = TimedCache(clock, cache_seconds)
        self._keys: TimedCache[tuple[str, str], tuple[SigningKey, ...]] = TimedCache(clock, cache_seconds)
        self._opened: dict[str, SigningKey] = {}

    async def create(self, tenant_id: str, name: str, algorithms: Sequence[str] = ALGORITHMS) -> Domain:
        """With a key for each algorithm, all active, state `pending`.

        :param algorithms: `rsa-sha256`, which every receiver verifies, and as it is asked for
            `ed25519-sha256`.
        :raises Invalid: the name, pointer `/name`, or the algorithms, pointer `/algorithms`.
        :raises Conflict: code `domain_exists`.
        """
        name = normalise(name)
        now = self._clock()
        domain = Domain(ids.new("dom"), tenant_id, name, DomainState.PENDING, (), (), now, None, None)
        if "rsa-sha256" not in algorithms or not set(algorithms) <= set(ALGORITHMS):
            raise _refused("/algorithms", "rsa-sha256 is needed; ed25519-sha256 may stand beside it", "invalid_request")
        fresh = await self._fresh_keys(domain, now, [one for one in ALGORITHMS if one in algorithms])

        async def work(tx: Tx) -> Domain:
            if not await store.insert(tx, domain):
                raise errors.Conflict(f"The domain {name} is there already", code="domain_exists")
            await store.insert_keys(tx, domain.id, fresh, "active", now)
            return await _access(tx, tenant_id, name)

        return await self._write(work)

    async def get(self, tenant_id: str, name: str) -> Domain:
        """:raises NotFound: code `domain_not_found`."""
        key = normalise(name)

        async def work(tx: Tx) -> Domain:
            return await _access(tx, tenant_id, key)

        return await self._records.read(work)

    async def list(
        self, tenant_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> tuple[list[Domain], str | None]:
        """In order of name; the second value is the cursor of the next page, None on the last."""
        limit = max(1, min(limit, MAX_PAGE))

        async def work(tx: Tx) -> list[Domain]:
            return await store.page(tx, tenant_id, cursor or "", limit + 1)

        found = await self._records.read(work)
        return found[:limit], (found[limit - 1].name if len(found) > limit else None)

    async def delete(self, tenant_id: str, name: str) -> None:
        """With its keys: messages accepted before go out unsigned.

        :raises NotFound: code `domain_not_found`.
        """
        key = normalise(name)

        async def work(tx: Tx) -> None:
            if not await store.delete(tx, tenant_id, key):
                raise _absent(key)

        await self._write(work)

    def dns_records(self, domain: Domain) -> tuple[DnsRecord, ...]:
        """To publish, the required ones first."""
        return dns_records(domain, self._sender)

    async def verify(self, tenant_id: str, name: str) -> Domain:
        """Looks the records up and stores what was found. `verified` needs the ownership token
        and an RSA key; a required record that is gone makes a verified domain `failing`; when
        DNS does not answer the state stays. A key seen in DNS becomes active and the older
        ones of its algorithm retire; a key not seen stops signing as soon as another is.

        :raises NotFound: code `domain_not_found`.
        :raises Conflict: code `domain_taken`: another tenant has it verified, and its records
            are still there.
        """
        domain = await self.get(tenant_id, name)
        checks = await check(domain, self._sender, self._resolver, self._clock())
        if _verdict(domain, checks) is DomainState.VERIFIED:
            await self._recheck_others(domain)
        return await self._store_checks(domain, checks)

    async def _recheck_others(self, domain: Domain) -> None:
        """A domain changes hands: the tenant that had it loses it when its records are gone."""

        async def work(tx: Tx) -> Domain | None:
            return await store.verified_elsewhere(tx, domain.tenant_id, domain.name)

        other = await self._records.read(work)
        if other is not None:
            await self._store_checks(other, await check(other, self._sender, self._resolver, self._clock()))

    async def _store_checks(self, domain: Domain, checks: tuple[Check, ...]) -> Domain:
        state = _verdict(domain, checks)
        now = self._clock()
        changes = _key_changes(domain.keys, checks)

        async def work(tx: Tx) -> Domain:
            await store.hold(tx, domain.name)
            if state is DomainState.VERIFIED and await store.verified_elsewhere(tx, domain.tenant_id, domain.name):
                raise errors.Conflict(
                    f"Another customer of this server has {domain.name} verified", code="domain_taken"
                )
            first = now if state is DomainState.VERIFIED and domain.verified_at is None else domain.verified_at
            await store.save_checks(tx, domain.id, str(state), checks, now=now, verified_at=first)
            await store.save_status(tx, changes)
            return await _access(tx, domain.tenant_id, domain.name)

        return await self._write(work)

    async def rotate(self, tenant_id: str, name: str) -> Domain:
        """A new key of each algorithm that it has, waiting; publish its record and call `verify`: then it
        signs, and the one before retires. Keep a retired key's record for a week, for mail on
        its way. Keys that retired earlier are deleted.

        :raises NotFound: code `domain_not_found`.
        :raises Conflict: code `rotation_pending`: keys are waiting already.
        """
        domain = await self.get(tenant_id, name)
        if any(key.status == "waiting" for key in domain.keys):
            raise _rotating()
        now = self._clock()
        held_algorithms = {key.algorithm for key in domain.keys}
        fresh = await self._fresh_keys(domain, now, [one for one in ALGORITHMS if one in held_algorithms])

        async def work(tx: Tx) -> Domain:
            held = await _access(tx, tenant_id, domain.name)
            if any(key.status == "waiting" for key in held.keys):
                raise _rotating()
            await store.delete_retired(tx, held.id)
            await store.insert_keys(tx, held.id, fresh, "waiting", now)
            return await _access(tx, tenant_id, domain.name)

        return await self._write(work)

    async def sending_domains(self, tenant_id: str) -> dict[str, Domain]:
        """By name; cached, so at most `cache_seconds` old. Not to be changed."""
        held = self._domains.get(tenant_id)
        if held is not None:
            return held
        generation = self._domains.generation

        async def work(tx: Tx) -> list[Domain]:
            return await store.of_tenant(tx, tenant_id)

        found = {domain.name: domain for domain in await self._records.read(work)}
        self._domains.put(tenant_id, found, generation)
        return found

    def check_sender(self, domains: Mapping[str, Domain], name: str, pointer: str = "/from") -> Domain:
        """Whether a message may be from this domain, of `sending_domains`.

        :param name: in A-labels, lower case.
        :raises Invalid: code `domain_not_found` (the tenant does not have it) or
            `domain_not_verified` (and the installation asks for it).
        """
        domain = domains.get(name)
        if domain is None:
            raise _refused(pointer, f"{name} is not one of your domains; add it first", "domain_not_found")
        if self._require_verified and domain.state != DomainState.VERIFIED:
            raise _refused(pointer, f"{name} is {domain.state}; publish its DNS records first", "domain_not_verified")
        return domain

    async def signing_keys(self, tenant_id: str, names: Set[str]) -> dict[str, tuple[SigningKey, ...]]:
        """The active keys of each, RSA first, an empty tuple when the tenant has no such
        domain; those not read within `cache_seconds` in one statement. The same key is the
        same object each time.

        :raises StorageUnavailable:
        :raises Misconfigured: the master key is not the one that sealed them.
        :raises Corrupt: a stored key was altered.
        """
        held = {name: self._keys.get((tenant_id, name)) for name in names}
        if missing := sorted(name for name, keys in held.items() if keys is None):
            generation = self._keys.generation

            async def work(tx: Tx) -> list[store.Sealed]:
                return await store.signing_keys(tx, tenant_id, missing)

            found: dict[str, tuple[SigningKey, ...]] = dict.fromkeys(missing, ())
            for row in await self._records.read(work):
                found[row.domain] += (self._open(row),)
            for name, keys in found.items():
                self._keys.put((tenant_id, name), keys, generation)
            held |= found
        return {name: keys or () for name, keys in held.items()}

    def _open(self, row: store.Sealed) -> SigningKey:
        key = self._opened.get(row.key_id)
        if key is None:
            pem = self._seal.open(row.sealed, _about(row.key_id))
            if len(self._opened) >= 10_000:
                self._opened.clear()
            key = self._opened[row.key_id] = SigningKey(row.domain, row.selector, row.algorithm, pem)
        return key

    async def _fresh_keys(self, domain: Domain, now: int, algorithms: Sequence[Algorithm]) -> list[store.NewKey]:
        """One of each algorithm, sealed; selectors `ph<yymm><r|e><4 hex>`, so that another
        server of the same domain does not choose the same."""
        made: list[store.NewKey] = []
        for algorithm, key_id in zip(algorithms, ids.many("dkm", len(algorithms)), strict=True):
            private, public = await asyncio.to_thread(generate_key, algorithm)
            selector = f"ph{to_datetime(now):%y%m}{algorithm[0]}{token_hex(2)}"
            made.append(store.NewKey(key_id, selector, algorithm, self._seal.seal(private, _about(key_id)), public))
        return made

    async def _write(self, work: Work[T]) -> T:
        """A change, after which nothing older is answered here."""
        try:
            return await self._records.write(work)
        finally:
            self._forget()
            self._elsewhere.tell()

    def _forget(self) -> None:
        self._domains.clear()
        self._keys.clear()


def _verdict(domain: Domain, checks: Sequence[Check]) -> DomainState:
    """All required purposes seen: verified. One surely not: failing, or still pending. Two keys
    of one purpose (a rotation) need one of them."""
    purposes: dict[str, list[bool | None]] = {}
    for check_ in checks:
        if check_.required:
            purposes.setdefault(check_.purpose, []).append(check_.ok)
    if all(True in answers for answers in purposes.values()):
        return DomainState.VERIFIED
    if all(True in answers or None in answers for answers in purposes.values()):
        return DomainState(domain.state)
    return DomainState.PENDING if domain.verified_at is None else DomainState.FAILING


def _key_changes(keys: Sequence[KeyState], checks: Sequence[Check]) -> list[tuple[str, str]]:
    """(key id, new status) of the keys whose status changes by what was seen."""
    seen = {check_.name.partition(".")[0]: check_.ok for check_ in checks if check_.purpose.startswith("dkim")}
    changes: list[tuple[str, str]] = []
    rsa_seen = any(seen.get(key.selector) for key in keys if key.algorithm == "rsa-sha256")
    for algorithm in ALGORITHMS:
        held = [key for key in keys if key.algorithm == algorithm and key.status != "retired"]
        newest = max((key.id for key in held if seen.get(key.selector)), default=None)
        for key in held:
            status = _status(key, newest, seen.get(key.selector), may_wait=rsa_seen and algorithm != "rsa-sha256")
            if status != key.status:
                changes.append((key.id, status))
    return changes


def _status(key: KeyState, newest: str | None, seen: bool | None, *, may_wait: bool) -> str:
    """Ids sort by time. `may_wait`: an active key that is not in DNS need not sign, because
    another one of the domain is."""
    if newest is not None and key.id < newest:
        return "retired"
    if key.id == newest:
        return "active"
    return "waiting" if seen is False and may_wait else key.status


async def _access(tx: Tx, tenant_id: str, name: str) -> Domain:
    found = await store.by_name(tx, tenant_id, name)
    if found is None:
        raise _absent(name)
    return found


def _about(key_id: str) -> str:
    return f"dkim_key:{key_id}"


def _absent(name: str) -> errors.NotFound:
    return errors.NotFound(f"There is no domain {name}", code="domain_not_found")


def _rotating() -> errors.Conflict:
    return errors.Conflict("New keys are waiting to be seen in DNS already", code="rotation_pending")


def _refused(pointer: str, message: str, code: str) -> errors.Invalid:
    return errors.Invalid("The sender's domain cannot be used", code=code, faults=(errors.Fault(pointer, message),))
