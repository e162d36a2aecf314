"""Newest first without sorting everything.

An account's messages are in blocks of about `BLOCK` in order of arrival, each with the
earliest and latest `received_at` in it. Arrival and `received_at` mostly run together, so
the newest matches are in the few blocks that end latest; where they do not (an import of old
mail), the same walk is still exact, it only visits more blocks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

BLOCK = 1024
FEW = 1000
"""Matches that are simply all fetched and sorted."""
_SPARSE = 2 * FEW
"""With more matches expected in all, it is not tried whether there are few."""
_BLOCKS_AT_ONCE = 64

Hit = tuple[int, str]
"""`received_at` and the email's id: what is sorted by, descending."""

Fetch = Callable[[Sequence["Block"] | None], Awaitable[list[Hit] | None]]
"""The matches below the position asked for, in any order: those in these blocks; or, given None,
those of the whole account, or None when more than `FEW` have to be looked at."""


@dataclass(frozen=True, slots=True)
class Block:
    """`low`, `high`: the first and last number of its messages, where the backend numbers
    them. Bounds hold for removed messages too."""

    no: int
    emails: int
    earliest: int
    latest: int
    low: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True)
class Newest:
    hits: list[Hit]
    total: int | None


async def newest(blocks: Sequence[Block], fetch: Fetch, most: int, before: Hit | None) -> Newest:
    """The `most` newest matches, by as little fetching as it takes; the total when known."""
    possible = [block for block in blocks if before is None or block.earliest <= before[0]]
    possible.sort(key=lambda block: (block.latest, block.no), reverse=True)
    emails = sum(block.emails for block in possible)
    if emails <= FEW:
        return _all(await _in(possible, fetch), most)
    first = _first(possible) + (before is not None)  # the block that the position is in may be used up
    found = await _in(possible[:first], fetch)
    if _enough(found, possible, first, most):
        return Newest(_sorted(found)[:most], None)
    looked_at = sum(block.emails for block in possible[:first])
    if len(found) * emails <= _SPARSE * looked_at:
        whole = await fetch(None)
        if whole is not None:
            return _all(whole, most)
    return Newest(await _walk(possible, first, found, fetch, most), None)


async def _in(some: Sequence[Block], fetch: Fetch) -> list[Hit]:
    return (await fetch(some) or []) if some else []


def _first(possible: Sequence[Block]) -> int:
    """How many blocks hold a block's worth: the last one may be almost empty."""
    emails = 0
    for count, block in enumerate(possible, 1):
        emails += block.emails
        if emails >= BLOCK // 2:
            return count
    return len(possible)


async def _walk(possible: Sequence[Block], at: int, found: list[Hit], fetch: Fetch, most: int) -> list[Hit]:
    size = 2
    while at < len(possible) and not _enough(found, possible, at, most):
        found = _sorted(found)[:most] + await _in(possible[at : at + size], fetch)
        at += size
        size = min(2 * size, _BLOCKS_AT_ONCE)
    return _sorted(found)[:most]


def _enough(found: Sequence[Hit], possible: Sequence[Block], at: int, most: int) -> bool:
    """Whether no block from `at` on can hold anything newer than the page's last."""
    if at >= len(possible):
        return True
    latest = possible[at].latest
    return sum(hit[0] > latest for hit in found) >= most


def _all(hits: list[Hit], most: int) -> Newest:
    return Newest(_sorted(hits)[:most], len(hits))


def _sorted(hits: list[Hit]) -> list[Hit]:
    return sorted(set(hits), reverse=True)


def ranges(blocks: Sequence[Block]) -> list[tuple[int, int]]:
    """The numbers of these blocks as few ranges (low, high), highest first: neighbours by
    `no` are one, what lies between them is of other accounts."""
    ordered = enumerate(sorted(blocks, key=lambda block: block.no))
    spans = [list(span) for _, span in groupby(ordered, key=lambda each: each[1].no - each[0])]
    return [(span[0][1].low, span[-1][1].high) for span in reversed(spans)]


def extend(
    last: Block | None, times: Sequence[int], numbers: Sequence[int] | None = None
) -> tuple[list[Block], list[int]]:
    """Put new messages behind an account's last block.

    :param times: their `received_at`; `numbers`: theirs, ascending.
    :returns: the blocks that are new or changed, and each message's block.
    """
    blocks: list[Block] = [last] if last is not None and last.emails < BLOCK else []
    following = last.no + 1 if last is not None else 0
    placed: list[int] = []
    for at, received_at in enumerate(times):
        number = numbers[at] if numbers is not None else 0
        if not blocks or blocks[-1].emails >= BLOCK:
            blocks.append(Block(following, 0, received_at, received_at, number, number))
            following += 1
        block = blocks[-1]
        blocks[-1] = replace(
            block,
            emails=block.emails + 1,
            earliest=min(block.earliest, received_at),
            latest=max(block.latest, received_at),
            high=number,
        )
        placed.append(block.no)
    return blocks, placed
