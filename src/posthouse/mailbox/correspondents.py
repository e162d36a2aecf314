"""Whom an account has written to: learnt from what lies in its Sent mailbox, a credit for their mail."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse.directory.model import fold
from posthouse.errors import Invalid
from posthouse.mailbox.model import Delivery, Role
from posthouse.mailbox.record import detail
from posthouse.storage.records.base import Tx

_MOST = 200
"""Recipients of one email that are learnt; a mailing to more is no correspondence."""
_SENT = "SELECT id FROM mailbox WHERE account = $1 AND role = 'sent'"
_LEARN = """
INSERT INTO correspondent (account, address, last_at)
SELECT v.account, v.address, v.at FROM {v(account int, address text, at int)} WHERE true
ON CONFLICT (account, address) DO UPDATE SET last_at = excluded.last_at
WHERE correspondent.last_at < excluded.last_at"""


async def learn(tx: Tx, account: int, deliveries: Sequence[Delivery]) -> None:
    """From those that go to Sent; in the transaction that stores them."""
    row = await tx.row(_SENT, account)
    places = {Role.SENT.value, row[0]} if row is not None else {Role.SENT.value}
    latest: dict[str, int] = {}
    for one in deliveries:
        if places.intersection(one.mailboxes):
            for address in _written_to(one):
                latest[address] = max(one.received_at, latest.get(address, 0))
    if latest:
        await tx.run_each(_LEARN, [(account, address, at) for address, at in sorted(latest.items())])


def _written_to(one: Delivery) -> set[str]:
    found = detail(one.record.detail)
    everybody = [*found.to, *found.cc, *found.bcc]
    if len(everybody) > _MOST:
        return set()
    return {address for person in everybody if (address := _folded(person.address))}


def _folded(address: str) -> str:
    try:
        return fold(address)
    except Invalid:
        return ""
