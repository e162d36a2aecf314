"""Automatic answers (RFC 3834): built when one is due, sent once to a sender in so many days."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse import ids
from posthouse.clock import Clock, to_datetime
from posthouse.errors import Invalid
from posthouse.events.handover import Handover, Kind
from posthouse.inbound.decide import vacation_of
from posthouse.inbound.decision import Order, Parcel
from posthouse.mail.address import Mailbox
from posthouse.mail.vacation import answer, sender_key
from posthouse.storage.contents import Contents
from posthouse.storage.records.base import Row, Tx

DAY = 86_400_000_000
_LONGEST = 60 * DAY
"""As long as `every_days` may be; after it a row means nothing."""

# `at` moves only when the days have passed, so of two at once one finds that it is too early.
_ANSWERED = """
INSERT INTO answered (account, address, at)
SELECT v.account, v.address, v.at FROM {v(account int, address text, at int)} WHERE true
ON CONFLICT (account, address) DO UPDATE SET at = excluded.at WHERE answered.at <= excluded.at - $1
RETURNING account, address"""
_FORGET = "DELETE FROM answered WHERE account = ANY($1) AND at < $2"


class Answering:
    def __init__(self, contents: Contents, *, clock: Clock) -> None:
        self._contents = contents
        self._clock = clock

    async def parcel(self, order: Order) -> Parcel:
        """:raises Unavailable: the answer cannot be laid down."""
        account, arrival = order.account, order.arrival
        vacation = vacation_of(account.settings) if account is not None else None
        if account is None or vacation is None:
            return Parcel("No automatic answer: it was switched off.")
        local, _, domain = account.address.rpartition("@")
        id_ = ids.derived("msg", arrival.id, f"answer\0{account.number}")
        try:
            message = answer(
                vacation,
                order.parsed,
                sender=Mailbox(account.name, local, domain),
                reverse_path=arrival.reverse_path,
                message_id=f"<{id_.partition('_')[2]}@{domain}>",
                now=to_datetime(self._clock()),
            )
        except Invalid:
            return Parcel("No automatic answer: the sender's address cannot stand in one.")
        content = await self._contents.put(message)
        return Parcel(
            f"An automatic answer goes to {arrival.reverse_path} as {id_}.",
            content,
            Handover(
                id_,
                account.tenant_id,
                Kind.ANSWER,
                content.key,
                content.size,
                "",
                account.address,
                (arrival.reverse_path,),
                arrival.id,
                sign=True,
                utf8=not (account.address.isascii() and arrival.reverse_path.isascii()),
                subject=vacation.subject,
                domain=domain,
            ),
            (account.number, sender_key(arrival.reverse_path, vacation), arrival.received_at, vacation.every_days),
        )


async def due(tx: Tx, parcels: Sequence[Parcel]) -> set[str]:
    """The ids of those answers whose sender has not had one for long enough; remembered."""
    first: dict[tuple[int, str], Parcel] = {}
    for one in parcels:
        if one.answered is not None:
            first.setdefault(one.answered[:2], one)
    by_days: dict[int, list[Row]] = {}
    for one in first.values():
        assert one.answered is not None
        by_days.setdefault(one.answered[3], []).append(one.answered[:3])
    passed: set[tuple[int, str]] = set()
    for days, rows in sorted(by_days.items()):
        passed |= {(account, key) for account, key in await tx.each(_ANSWERED, sorted(rows), days * DAY)}
    if first:
        oldest = min(one.answered[2] for one in first.values() if one.answered is not None) - _LONGEST
        await tx.run(_FORGET, sorted({account for account, _ in first}), oldest)
    return {one.handover.id for key, one in first.items() if key in passed and one.handover is not None}
