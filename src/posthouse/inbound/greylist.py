"""Greylisting (RFC 6647): who is unknown waits once; who comes back is remembered.

Keyed by the peer's network (/24 or /64), the sender and the recipient. A clock that is set
back never makes anybody wait longer than once more the delay.
"""

from __future__ import annotations

from hashlib import blake2b
from ipaddress import ip_address, ip_network

from posthouse.clock import DAY, SECOND, Clock
from posthouse.storage.records.base import Records, Tx

WINDOW = 2 * DAY
"""Who comes back later than this begins anew."""
MEMORY = 36 * DAY
"""Who has passed and is not seen for this long begins anew."""
_MOST_PASSED = 20_000

_SEEN = """
INSERT INTO greylist (key, first_at, last_at, passed) VALUES ($1, $2, $2, 0)
ON CONFLICT (key) DO UPDATE SET
    first_at = CASE
        WHEN greylist.first_at > $2 OR (greylist.passed = 1 AND greylist.last_at < $4)
             OR (greylist.passed = 0 AND greylist.first_at < $3) THEN $2
        ELSE greylist.first_at END,
    passed = CASE
        WHEN greylist.passed = 1 AND greylist.last_at >= $4 THEN 1
        WHEN greylist.passed = 0 AND greylist.first_at <= $5 AND greylist.first_at >= $3 THEN 1
        ELSE 0 END,
    last_at = $2
RETURNING first_at, passed
"""
_FORGET = """
DELETE FROM greylist WHERE key IN
(SELECT key FROM greylist WHERE last_at < $1 OR (last_at < $2 AND passed = 0) ORDER BY last_at LIMIT $3)
"""


class Greylist:
    """:param delay: seconds that who is unknown must wait."""

    def __init__(self, records: Records, clock: Clock, *, delay: float) -> None:
        self._records = records
        self._clock = clock
        self._delay = round(delay * SECOND)
        self._passed: dict[str, int] = {}

    async def wait(self, peer: str, reverse_path: str, recipient: str) -> float | None:
        """Seconds to wait; None: it may pass. :raises StorageUnavailable:"""
        now = self._clock()
        key = _key(peer, reverse_path, recipient)
        known = self._passed.get(key)
        if known is not None and 0 <= now - known < DAY:
            return None

        async def work(tx: Tx) -> tuple[int, int]:
            row = await tx.row(_SEEN, key, now, now - WINDOW, now - MEMORY, now - self._delay)
            assert row is not None
            return row[0], row[1]

        first_at, passed = await self._records.write(work, durable=False)
        if passed:
            self._remember(key, now)
            return None
        return (first_at + self._delay - now) / SECOND

    async def forget(self, *, most: int = 10_000) -> int:
        """Remove what is too old to matter; how many."""
        now = self._clock()
        return await self._records.write(lambda tx: tx.run(_FORGET, now - MEMORY, now - WINDOW, most), durable=False)

    def _remember(self, key: str, now: int) -> None:
        """For a day without asking; the records learn of it then, well within `MEMORY`."""
        self._passed.pop(key, None)
        self._passed[key] = now
        if len(self._passed) > _MOST_PASSED:
            del self._passed[next(iter(self._passed))]


def network(peer: str) -> str:
    """`192.0.2.0/24`, `2001:db8::/64`; what is no address is its own."""
    try:
        ip = ip_address(peer)
    except ValueError:
        return peer
    return str(ip_network((ip, 24 if ip.version == 4 else 64), strict=False))


def _key(peer: str, reverse_path: str, recipient: str) -> str:
    text = "\0".join((network(peer), reverse_path.lower(), recipient))
    return blake2b(text.encode(), digest_size=16).hexdigest()
