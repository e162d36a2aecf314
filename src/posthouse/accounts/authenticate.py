"""From an `Authorization` header to a `Caller`, through a cache of a few seconds.

A hit costs a SHA-256 and a look-up. The cache is keyed by the header's hash, so it holds no
secret and its look-up tells nothing by its time. A change in this process empties it; one in
another process is seen within `CACHE_SECONDS`, or sooner when `forget` is called for it.
"""

from __future__ import annotations

from hashlib import sha256

from posthouse import errors
from posthouse.accounts import keys, store
from posthouse.accounts.model import ApiKey, Caller, Tenant
from posthouse.clock import SECOND, Clock
from posthouse.storage.records.base import Records, Tx

CACHE_SECONDS = 5
_MOST_CACHED = 10_000
_MOST_HEADER = 512  # octets


class Authenticator:
    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._cache: dict[bytes, tuple[Caller, int]] = {}
        self._generation = 0
        self._used: dict[str, int] = {}

    async def authenticate(self, header: bytes | None) -> Caller:
        """The caller of `Bearer ph_…`.

        :raises Unauthorized: no key, or one that is malformed, unknown, expired or revoked; the
            answer does not tell which, except that none was given.
        :raises Forbidden: code `tenant_suspended`.
        """
        if header is None or len(header) > _MOST_HEADER:
            raise errors.Unauthorized("Send an API key as `Authorization: Bearer ph_…`")
        digest = sha256(header).digest()
        cached = self._cache.get(digest)
        now = self._clock()
        if cached is not None and now < cached[1]:
            caller = cached[0]
            self._used[caller.key_id] = now
            return caller
        return await self._load(header, digest, now)

    def forget(self) -> None:
        """Every cached caller: something about tenants or keys has changed."""
        self._generation += 1
        self._cache.clear()

    async def write_last_used(self) -> int:
        """Write when each key was last used; call it every half minute or so. Returns how many.

        :raises StorageUnavailable: they are kept for the next call.
        """
        used, self._used = self._used, {}
        if not used:
            return 0

        async def work(tx: Tx) -> None:
            await store.save_last_used(tx, list(used.items()))

        try:
            await self._records.write(work, durable=False)
        except errors.Unavailable:
            self._used = used | self._used
            raise
        return len(used)

    async def _load(self, header: bytes, digest: bytes, now: int) -> Caller:
        generation = self._generation
        text = _bearer(header)
        key_id = keys.id_of(text)
        if key_id is None:
            raise errors.Unauthorized("That is not an API key")

        async def work(tx: Tx) -> tuple[ApiKey, str, Tenant] | None:
            return await store.key_to_check(tx, key_id)

        found = await self._records.read(work)
        if found is None or not keys.matches(text, found[1]) or not _valid(found[0], now):
            raise errors.Unauthorized("This API key is unknown, expired or revoked")
        key, _, tenant = found
        if tenant.suspended_at is not None:
            raise errors.Forbidden("This tenant is suspended", code="tenant_suspended")
        caller = Caller(tenant, key.id, key.scopes, key.domain)
        self._used[key.id] = now
        # A revocation while we read has moved the generation on; what we read may be old.
        if generation == self._generation:
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            until = now + CACHE_SECONDS * SECOND
            self._cache[digest] = caller, min(until, key.expires_at or until)
        return caller


def _bearer(header: bytes) -> str:
    scheme, _, token = header.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        raise errors.Unauthorized("Send an API key as `Authorization: Bearer ph_…`")
    return token.strip()


def _valid(key: ApiKey, now: int) -> bool:
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)
