"""`Idempotency-Key` for every POST that creates, but the messages (outbound keeps theirs in
the transaction that accepts them).

The answer is kept after the work, in a transaction of its own: a crash between the two makes
a retry run again, and find what it would create there already.
"""

from __future__ import annotations

from posthouse.accounts import idempotency
from posthouse.accounts.idempotency import First, InFlight, Stored
from posthouse.api.http import Call, Reply
from posthouse.api.operations import Context, Handler
from posthouse.api.ports import Services
from posthouse.storage.records.base import Tx

REPLAYED = (b"idempotent-replayed", b"true")


class Once:
    def __init__(self, services: Services) -> None:
        self._records = services.records
        self._clock = services.clock
        self._in_flight = InFlight()

    async def run(self, handler: Handler, context: Context, call: Call, *, secret: bool = False) -> Reply:
        """
        :param secret: the body may hold a password, which a quick hash would give away.
        :raises Conflict: code `idempotency_in_flight` or `idempotency_key_reused`.
        """
        given = await call.idempotency(slow=secret)
        if given is None:
            return await handler(context, call)
        tenant_id = call.caller.tenant.id
        with self._in_flight.hold(tenant_id, given.key):
            stored = await self._find(tenant_id, given.key)
            if stored is not None:
                first = idempotency.replay(stored, given.body_hash)
                return Reply(first.status, first.answer, headers=(REPLAYED,))
            reply = await handler(context, call)
            if reply.status < 300:
                answer = reply.body if reply.keep is None else reply.keep
                await self._keep(First(tenant_id, given.key, given.body_hash, self._clock(), reply.status, answer))
            return reply

    async def _find(self, tenant_id: str, key: str) -> Stored | None:
        async def work(tx: Tx) -> Stored | None:
            return (await idempotency.lookup(tx, tenant_id, [key], now=self._clock())).get(key)

        return await self._records.read(work)

    async def _keep(self, first: First) -> None:
        async def work(tx: Tx) -> None:
            await idempotency.save(tx, [first])

        await self._records.write(work)
