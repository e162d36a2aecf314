"""A change of an account, told on the bus after its commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from posthouse.mailbox.model import Touched
from posthouse.storage.bus.base import Bus, Change


def announce(bus: Bus) -> Callable[[Sequence[Touched]], None]:
    """For `Mailboxes` and `Store`: accounts and mailboxes are named by their numbers."""

    def tell(touched: Sequence[Touched]) -> None:
        if touched:
            bus.publish(
                [Change(str(one.account), one.modseq, one.kinds, tuple(map(str, one.mailboxes))) for one in touched]
            )

    return tell
