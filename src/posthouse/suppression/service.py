"""The verbs: add, find, get, list, remove. Nothing here is cached, and a lookup that cannot be
made raises `StorageUnavailable`: sending waits rather than write to someone who is listed."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse.clock import Clock
from posthouse.errors import Conflict, Fault, Invalid, NotFound, TooLarge
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.suppression import store
from posthouse.suppression.model import ALL_STREAMS, Entry, Reason, Suppression, fold

MAX_ENTRIES = 10_000
MAX_EVIDENCE = 4096
"""Characters; longer evidence is cut."""
MAX_ADDRESS = 254
MAX_PAGE = 1000
_SEPARATOR = "\x1f"
_REASONS = frozenset(str(reason) for reason in Reason)


class Suppressions:
    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def add(self, tenant_id: str, entries: Sequence[Entry]) -> list[Suppression]:
        """As stored, in the order given; one durable transaction. An address that is listed
        already takes the new reason, except that a complaint stays a complaint.

        :raises Invalid: with a pointer `/<n>/address`, `/<n>/reason`, … for each bad entry.
        :raises TooLarge: more than 10,000 entries.
        """
        if len(entries) > MAX_ENTRIES:
            raise TooLarge(f"at most {MAX_ENTRIES} suppressions in one request")
        now = self._clock()
        rows = _rows(tenant_id, entries, now)
        keys = [(row[1], row[2]) for row in rows]

        async def work(tx: Tx) -> dict[tuple[str, str], Suppression]:
            await self.add_in(tx, rows)
            held = await store.held(tx, tenant_id, list(dict.fromkeys(keys)))
            return {(one.address, one.stream_id): one for one in held}

        stored = await self._records.write(work)
        return [stored[key] for key in keys]

    async def add_in(self, tx: Tx, rows: Sequence[Row]) -> None:
        """Joins the caller's transaction. Rows come from `rows_for`."""
        unique: dict[tuple[str, str, str], Row] = {}
        for row in rows:
            key = (row[0], row[1], row[2])
            if key not in unique or unique[key][3] != Reason.COMPLAINT or row[3] == Reason.COMPLAINT:
                unique[key] = row
        if unique:
            await store.put(tx, list(unique.values()))

    def rows_for(self, tenant_id: str, entries: Sequence[Entry]) -> list[Row]:
        """Rows for `add_in`, checked and folded.

        :raises Invalid: as `add`.
        """
        return _rows(tenant_id, entries, self._clock())

    async def find(self, tenant_id: str, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Suppression]:
        """Of (address, stream_id) pairs those that are suppressed, in one statement.

        :raises StorageUnavailable: it is not known; do not send.
        """
        found = await self.find_many([(tenant_id, address, stream_id) for address, stream_id in pairs])
        return {key[1:]: one for key, one in found.items()}

    async def find_many(self, keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], Suppression]:
        """Of (tenant_id, address, stream_id), any tenants, those that are suppressed: one
        statement for a whole batch. The keys of the answer are the ones given. When an address
        is listed both for its stream and for all, the answer is the one for its stream.

        :raises StorageUnavailable: it is not known; do not send.
        """
        if not keys:
            return {}
        rows = [(n, tenant, _lookup_key(address), stream) for n, (tenant, address, stream) in enumerate(keys)]
        now = self._clock()

        async def work(tx: Tx) -> list[tuple[int, Suppression]]:
            return await store.find(tx, rows, now)

        found: dict[tuple[str, str, str], Suppression] = {}
        for n, one in await self._records.read(work):
            if one.stream_id != ALL_STREAMS or keys[n] not in found:
                found[keys[n]] = one
        return found

    async def get(self, tenant_id: str, address: str, stream_id: str = ALL_STREAMS) -> Suppression:
        """Also one that has expired and is not swept yet.

        :raises NotFound: code `suppression_not_found`.
        """
        key = _folded(address)

        async def work(tx: Tx) -> Suppression | None:
            return await store.get(tx, tenant_id, key, stream_id)

        found = await self._records.read(work)
        if found is None:
            raise _absent()
        return found

    async def list(
        self,
        tenant_id: str,
        *,
        address: str | None = None,
        reason: str | None = None,
        stream_id: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> tuple[list[Suppression], str | None]:
        """In order of address; `stream_id` filters exactly (`""`: those for all streams).
        The second value is the cursor of the next page, None on the last.

        :raises Invalid: a filter that no suppression can have.
        """
        if reason is not None:
            _check_reason(reason, "/reason")
        limit = max(1, min(limit, MAX_PAGE))
        after_address, _, after_stream = (cursor or "").partition(_SEPARATOR)
        key = None if address is None else _folded(address)

        async def work(tx: Tx) -> list[Suppression]:
            return await store.page(
                tx,
                tenant_id,
                address=key,
                reason=reason,
                stream_id=stream_id,
                after=(after_address, after_stream),
                limit=limit + 1,
            )

        found = await self._records.read(work)
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        return found[:limit], f"{last.address}{_SEPARATOR}{last.stream_id}"

    async def remove(
        self, tenant_id: str, address: str, stream_id: str = ALL_STREAMS, *, complaints_too: bool = False
    ) -> Suppression:
        """What was removed. `complaints_too` is for an operator: whoever reported mail as spam
        is not written to again because a tenant would like to.

        :raises NotFound: code `suppression_not_found`.
        :raises Conflict: code `complaint_stays`.
        """
        key = _folded(address)

        async def work(tx: Tx) -> Suppression:
            found = await store.get(tx, tenant_id, key, stream_id)
            if found is None:
                raise _absent()
            if found.reason == Reason.COMPLAINT and not complaints_too:
                raise Conflict("An address that complained cannot be removed", code="complaint_stays")
            await store.delete(tx, tenant_id, key, stream_id)
            return found

        return await self._records.write(work)

    async def sweep(self, limit: int = 1000) -> int:
        """Forget up to `limit` that have expired; how many there were. `find` ignores them anyway."""
        now = self._clock()

        async def work(tx: Tx) -> int:
            return await store.delete_expired(tx, now, limit)

        return await self._records.write(work, durable=False)


def _rows(tenant_id: str, entries: Sequence[Entry], now: int) -> list[Row]:
    rows: list[Row] = []
    faults: list[Fault] = []
    for n, entry in enumerate(entries):
        try:
            rows.append(_row(tenant_id, entry, now, f"/{n}"))
        except Invalid as error:
            faults.extend(error.faults)
    if faults:
        raise Invalid("Some suppressions are not valid", faults=tuple(faults[:100]))
    return rows


def _row(tenant_id: str, entry: Entry, now: int, pointer: str) -> Row:
    address = _folded(entry.address, pointer + "/address")
    _check_reason(entry.reason, pointer + "/reason")
    if entry.expires_at is not None and entry.expires_at <= now:
        raise _invalid(pointer + "/expires_at", "lies in the past")
    if "\0" in entry.source + entry.stream_id + (entry.evidence or ""):
        raise _invalid(pointer, "a NUL character is not allowed")
    evidence = entry.evidence[:MAX_EVIDENCE] if entry.evidence else None
    return (
        tenant_id,
        address,
        entry.stream_id,
        str(entry.reason),
        entry.source[:200],
        now,
        evidence,
        entry.expires_at,
    )


def _folded(address: str, pointer: str = "/address") -> str:
    if len(address) > MAX_ADDRESS:  # RFC 5321 §4.5.3.1.3, less the brackets
        raise _invalid(pointer, f"is longer than {MAX_ADDRESS} characters")
    try:
        return fold(address)
    except ValueError as error:
        raise _invalid(pointer, str(error)) from None


def _lookup_key(address: str) -> str:
    """Never fails, so that one address cannot stop a batch: what cannot be folded cannot have
    been listed either."""
    try:
        return fold(address)
    except ValueError:
        return address


def _check_reason(reason: str, pointer: str) -> None:
    if reason not in _REASONS:
        raise _invalid(pointer, f"must be one of {', '.join(Reason)}")


def _invalid(pointer: str, message: str) -> Invalid:
    return Invalid("The suppression is not valid", faults=(Fault(pointer, message),))


def _absent() -> NotFound:
    return NotFound("This address is not suppressed", code="suppression_not_found")
