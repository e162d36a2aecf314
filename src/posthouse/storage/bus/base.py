"""The bus port: who changed just now, for those who wait for it (push, IDLE, an open page).

A hint, not a log: what was missed is read from the account's change log, by modseq. So a
subscriber that is slow loses only intermediate states: changes of one account that it has not
taken yet become one, with the highest modseq and all the kinds and mailboxes.

`invalidate` is for what processes hold in memory: a cache that expires by itself anyway hears
of a change sooner.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

NAMES_AT_MOST = 256
"""Kinds or mailboxes of one change; past it they become `ALL`."""
States = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
"""The modseq of each of these accounts that exists; raises when it cannot be known."""
ALL = ("*",)
"""In place of kinds or mailboxes: any may have changed."""


@dataclass(frozen=True, slots=True)
class Change:
    """`kinds`: types of what changed (`email`, `mailbox`, `thread`). `mailboxes`: their ids."""

    account: str
    modseq: int
    kinds: tuple[str, ...] = ()
    mailboxes: tuple[str, ...] = ()


class Bus(Protocol):
    def publish(self, changes: Sequence[Change]) -> None:
        """Call it on the loop, after the commit. Never raises, never waits; once closed, or
        with nobody listening, the changes go nowhere."""
        ...

    def subscribe(self, accounts: Collection[str]) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """Changes of these accounts from when the block is entered until it is left. The
        iteration ends when the bus is closed, after what waits was taken. A second entry of
        one subscription is a RuntimeError."""
        ...

    def invalidate(self, topic: str, key: str = "") -> None:
        """What caches of this topic hold of `key` is out of date; `""`: all that they hold.
        Call it on the loop, after the commit. Never raises, never waits."""
        ...

    def listen(self, topic: str, forget: Callable[[str], None]) -> None:
        """`forget(key)` for each `invalidate` of this topic, of this process's (at once) or of
        another's, until the bus is closed. When some may have been missed, or several came
        together, it is called with `""`. It must not raise or wait."""
        ...

    async def close(self) -> None:
        """Ends every subscription. Again is fine."""
        ...


def merge(earlier: Change, later: Change) -> Change:
    """Both as one."""
    return Change(
        earlier.account,
        max(earlier.modseq, later.modseq),
        _union(earlier.kinds, later.kinds),
        _union(earlier.mailboxes, later.mailboxes),
    )


def _union(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    if ALL[0] in some or ALL[0] in others:
        return ALL
    union = tuple(dict.fromkeys(some + others)) if some != others else some
    return union if len(union) <= NAMES_AT_MOST else ALL
