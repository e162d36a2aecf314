"""The outbound facade as the API's tests need it: durable, isolated, idempotent; sends nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from posthouse import errors, ids
from posthouse.accounts import idempotency, limits
from posthouse.accounts.idempotency import First, InFlight
from posthouse.accounts.model import Caller
from posthouse.clock import Clock, from_datetime, rfc3339
from posthouse.errors import Fault
from posthouse.events.story import Explanation, Sentence
from posthouse.outbound import reading
from posthouse.outbound.model import (
    Answer,
    EventView,
    FanOutDraft,
    Filter,
    Idempotency,
    ManyDraft,
    MessageDraft,
    MessageView,
    Page,
    Party,
    RecipientView,
)
from posthouse.storage.records.base import Records, Tx

_one = msgspec.json.Decoder(MessageDraft)
_encode = msgspec.json.Encoder().encode


class OutboundStub:
    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._in_flight = InFlight()
        self.fail: Exception | None = None

    async def send(self, caller: Caller, draft: MessageDraft, *, idempotency: Idempotency | None) -> Answer:
        if self.fail is not None:
            raise self.fail
        row = self._row(caller, draft, "")
        body = _encode({"id": row[0], "status": "queued", "recipients": [{"address": row[7], "status": "queued"}]})
        return await self._accept(caller, [row], body, idempotency)

    async def send_many(self, caller: Caller, draft: ManyDraft, *, idempotency: Idempotency | None) -> Answer:
        results: list[Any] = []
        rows: list[tuple[Any, ...]] = []
        for number, raw in enumerate(draft.messages):
            try:
                base = f"/messages/{number}"
                row = self._row(caller, reading.read(_one, bytes(raw), base=base), base)
            except errors.Invalid as error:
                if draft.all_or_nothing:
                    raise
                fault = error.faults[0]
                results.append({"error": {"code": error.code, "errors": [{"pointer": fault.pointer}]}})
                continue
            rows.append(row)
            results.append({"id": row[0]})
        return await self._accept(caller, rows, _encode({"results": results}), idempotency)

    async def send_each(self, caller: Caller, draft: FanOutDraft, *, idempotency: Idempotency | None) -> Answer:
        now = self._clock()
        rows = [
            (ids.new("msg"), 0, caller.tenant.id, "sub_x", "str_x", 2, _address(one.to, f"/recipients/{n}/to"), now)
            for n, one in enumerate(draft.recipients)
        ]
        rows = [(*row[:6], row[6], row[6], row[7]) for row in rows]
        body = _encode({"results": [{"id": row[0]} for row in rows]})
        return await self._accept(caller, rows, body, idempotency)

    async def list(self, caller: Caller, filter: Filter, *, cursor: str | None, limit: int) -> Page:  # noqa: A002
        async def work(tx: Tx) -> list[tuple[Any, ...]]:
            return await tx.rows(
                "SELECT id, address, state, created_at, due_at FROM message WHERE tenant_id = $1 AND id > $2"
                " ORDER BY id LIMIT $3",
                caller.tenant.id,
                cursor or "",
                limit + 1,
            )

        rows = await self._records.read(work)
        views = [_view(row) for row in rows[:limit] if filter.to in (None, row[1])]
        return Page(views, rows[limit - 1][0] if len(rows) > limit else None)

    async def get(self, caller: Caller, id: str) -> MessageView:  # noqa: A002
        return _view(await self._load(caller, id))

    async def events(self, caller: Caller, id: str) -> list[EventView]:  # noqa: A002
        row = await self._load(caller, id)
        return [EventView(ids.new("evt"), "accepted", rfc3339(row[3]), "submit", row[1])]

    async def explain(self, caller: Caller, id: str) -> Explanation:  # noqa: A002
        row = await self._load(caller, id)
        return Explanation(row[0], row[2], "It waits.", [Sentence(rfc3339(row[3]), "Accepted.")])

    async def content(self, caller: Caller, id: str) -> bytes:  # noqa: A002
        row = await self._load(caller, id)
        return f"To: {row[1]}\r\n\r\nHello\r\n".encode()

    async def cancel(self, caller: Caller, id: str) -> MessageView:  # noqa: A002
        await self._load(caller, id)
        return await self._set(caller, id, "state = $2", "canceled")

    async def reschedule(self, caller: Caller, id: str, send_at: datetime) -> MessageView:  # noqa: A002
        row = await self._load(caller, id)
        if row[2] != "queued":
            raise errors.Conflict("It is not scheduled", code="message_not_scheduled")
        return await self._set(caller, id, "due_at = $2", from_datetime(send_at))

    async def _set(self, caller: Caller, id: str, change: str, value: Any) -> MessageView:  # noqa: A002
        async def work(tx: Tx) -> int:
            return await tx.run(f"UPDATE message SET {change} WHERE id = $1", id, value)

        await self._records.write(work)
        return _view(await self._load(caller, id))

    async def _load(self, caller: Caller, id: str) -> tuple[Any, ...]:  # noqa: A002
        async def work(tx: Tx) -> tuple[Any, ...] | None:
            return await tx.row(
                "SELECT id, address, state, created_at, due_at FROM message WHERE id = $1 AND tenant_id = $2",
                id,
                caller.tenant.id,
            )

        row = await self._records.read(work) if ids.is_id(id, "msg") else None
        if row is None:
            raise errors.NotFound("There is no such message", code="message_not_found")
        return row

    def _row(self, caller: Caller, draft: MessageDraft, base: str) -> tuple[Any, ...]:
        if not draft.to:
            raise errors.Invalid(faults=(Fault(f"{base}/to", "A recipient is needed"),))
        address = _address(draft.to[0], f"{base}/to/0")
        message_id = ids.new("msg")
        return (message_id, 0, caller.tenant.id, "sub_x", "str_x", 1, address, address, self._clock())

    async def _accept(
        self, caller: Caller, rows: list[tuple[Any, ...]], body: bytes, given: Idempotency | None
    ) -> Answer:
        if given is None:
            return await self._store(caller, rows, body, None)
        with self._in_flight.hold(caller.tenant.id, given.key):
            return await self._store(caller, rows, body, given)

    async def _store(
        self, caller: Caller, rows: list[tuple[Any, ...]], body: bytes, given: Idempotency | None
    ) -> Answer:
        now = self._clock()
        tenant = caller.tenant

        async def work(tx: Tx) -> Answer:
            if given is not None:
                stored = (await idempotency.lookup(tx, tenant.id, [given.key], now=now)).get(given.key)
                if stored is not None:
                    first = idempotency.replay(stored, given.body_hash)
                    return Answer(first.status, first.answer, replayed=True)
            await limits.charge(tx, tenant.id, len(rows), tenant.limits.daily_quota, now=now)
            await tx.each(
                "INSERT INTO message (id, rcpt, tenant_id, submission_id, stream_id, lane, address, state, created_at,"
                " due_at, expires_at, updated_at, next_at) SELECT id, rcpt, tenant_id, sub, stream, lane, address,"
                " 'queued', at, at, at, at, at FROM {v(id text, rcpt int, tenant_id text, sub text, stream text,"
                " lane int, address text, x text, at int)} WHERE true",
                rows,
            )
            if given is not None:
                await idempotency.save(tx, [First(tenant.id, given.key, given.body_hash, now, 202, body)])
            return Answer(202, body)

        return await self._records.write(work)


def _address(given: str | Party, pointer: str) -> str:
    text = given.email if isinstance(given, Party) else given
    if text.count("@") != 1:
        raise errors.Invalid("An address is not valid", faults=(Fault(pointer, "This is not an address"),))
    return text


def _view(row: tuple[Any, ...]) -> MessageView:
    at = rfc3339(row[3])
    recipient = RecipientView(row[1], row[2], 0, at)
    return MessageView(
        row[0], row[2], "a@example.com", "transactional", "transactional", at, rfc3339(row[4]), at, [recipient]
    )
