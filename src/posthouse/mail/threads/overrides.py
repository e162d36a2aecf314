"""What a person has decided about threads, as data that outlives every re-threading.

Overrides name emails, never threads: threads are made anew, emails are not. They apply in the
order of their `seq`, and a later one wins over an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec


class Override(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`split`: these emails leave what they were in and are a thread of their own, together with
    what answers them later. `merge`: the threads of these emails (one of each is enough) are one."""

    seq: int
    """Ascending in the account."""
    kind: Literal["split", "merge"]
    emails: tuple[str, ...]


def touched(overrides: Iterable[Override], emails: Iterable[str]) -> bool:
    """Whether one of the overrides speaks of one of these emails."""
    named = {email for override in overrides for email in override.emails}
    return bool(named) and not named.isdisjoint(emails)
