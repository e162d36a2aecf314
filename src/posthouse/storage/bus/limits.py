"""The port of limits that processes share: token buckets, and slots held for a while.

A bucket bounds how much may happen in a time, whoever does it; slots bound how much goes on at
once. Neither verb raises: where the shared state is away, a part of each limit that follows
from the number of processes stands in, never none of it and never all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Peers = Callable[[str], int]
"""How many processes, this one included, share the limits of a group, from another source; 0: unknown."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Tokens of the bucket `key`. What stands before the first `:` of a key names who share it."""

    key: str
    least: int
    """Granted in full or not at all. More than `burst` passes when the bucket is full, and
    leaves a debt."""
    most: int
    """Taken beyond `least` while the bucket holds it, so that the next ones need no asking."""
    rate: float
    """Tokens a second, more than 0."""
    burst: int
    """What a full bucket holds, at least 1."""


@dataclass(frozen=True, slots=True)
class Grant:
    taken: int
    """0: none."""
    wait: float
    """Seconds until `least` would be granted, if nobody else asks; 0.0 when it was."""
    level: float
    """What the bucket holds now; below 0 is a debt."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Slots of `key` for this holder, in place of those that it had."""

    key: str
    wanted: int
    """0 and nothing `in_use`: given back."""
    in_use: int
    """Those that cannot be given back this moment."""
    most: int
    """Of all holders together, at least 1."""


class SharedLimits(Protocol):
    async def take(self, asks: Sequence[Ask]) -> list[Grant]:
        """In order, each by itself; one round trip for all. A bucket is full until first asked
        for. Of all takers together never more than `burst` and `rate` for the time since, and
        one debt."""
        ...

    async def hold(self, holds: Sequence[Hold], ttl: float) -> list[int]:
        """How many slots each may use from now on; one round trip for all. What is granted is
        renewed by asking again, and lost `ttl` seconds after the last time.

        Who wants more than its fair part gets what others leave; it is told a smaller number
        when they come to want theirs. A number below `in_use` asks to come down to it. All
        holders together never use more than `most`, as long as each uses no more than it was
        granted and asks again within `ttl`.
        """
        ...

    async def close(self) -> None:
        """Gives back what it holds, if that can be done at once. Again is fine."""
        ...
