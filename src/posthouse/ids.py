"""Identifiers: UUIDv7 in hex behind a type prefix (`msg_0198c1…`), so they sort by time.

The same text is used in public, in the database and in logs; nothing is ever converted.
"""

from __future__ import annotations

import os
import re
import time
from hashlib import blake2b

_SHAPE = re.compile(r"[a-z]{2,4}_[0-9a-f]{12}7[0-9a-f]{19}")
_COUNTER_BITS = 12


def new(prefix: str) -> str:
    """One identifier, `prefix_` and 32 hex digits (RFC 9562 §5.7). Those of one process ascend, as
    long as its clock does: within a millisecond the 12 bits after the version count up."""
    stamp = time.time_ns() // 1_000_000
    last, count = _LAST[0]
    count = count + 1 if stamp == last and count < 0xFFF else 0
    _LAST[0] = stamp, count
    tail = _tail()
    return f"{prefix}_{stamp:012x}7{count:03x}{_VARIANT[tail[0]]}{tail[1:]}"


def many(prefix: str, count: int) -> list[str]:
    """`count` identifiers of one moment, ascending: the 12 bits after the version count up,
    and the millisecond moves on when they are used up."""
    stamp = time.time_ns() // 1_000_000
    noise = os.urandom(8 * count).hex()
    tails = [noise[at : at + 16] for at in range(0, 16 * count, 16)]
    return [
        f"{prefix}_{stamp + (i >> _COUNTER_BITS):012x}7{i & 0xFFF:03x}{_VARIANT[tail[0]]}{tail[1:]}"
        for i, tail in enumerate(tails)
    ]


def derived(prefix: str, source: str, about: str) -> str:
    """The identifier of what follows from `source`: the same each time, of that one's moment.

    :param source: an identifier.
    """
    stamp = source.partition("_")[2][:12]
    noise = blake2b(f"{source}\0{about}".encode(errors="surrogatepass"), digest_size=10).hexdigest()
    return f"{prefix}_{stamp}7{noise[:3]}{_VARIANT[noise[3]]}{noise[4:19]}"


def _tail() -> str:
    """16 random hex digits, used once: drawn from the system many at a time, since a call costs
    many times its octets. Threads may share it: `pop` is one step."""
    while True:
        try:
            return _TAILS.pop()
        except IndexError:
            noise = os.urandom(_DRAWN).hex()
            _TAILS.extend(noise[at : at + 16] for at in range(0, 2 * _DRAWN, 16))


_DRAWN = 1024  # octets
_TAILS: list[str] = []
_LAST: list[tuple[int, int]] = [(0, 0)]
os.register_at_fork(after_in_child=_TAILS.clear)  # a child must not repeat its parent
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the shape of an identifier of this type."""
    return text.startswith(prefix + "_") and _SHAPE.fullmatch(text) is not None


def moment(text: str) -> int | None:
    """When the identifier was made, µs since 1970 (of a millisecond's precision); None when it is none."""
    stamp = text.partition("_")[2]
    return int(stamp[:12], 16) * 1000 if _SHAPE.fullmatch(text) is not None else None
