"""What can be said of an arrival without asking anybody: parsed, looked at, made ready for its row
and its thread. Pure, and the greater part of a message's cost behind accept, so it may run in
processes of its own (`pool.py`)."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from posthouse.inbound.filter.look import Look, look
from posthouse.inbound.model import Arrival
from posthouse.mail.parse import parse, text
from posthouse.mail.parsed import Parsed, Part, part_of
from posthouse.mail.threads import Keys, thread_keys
from posthouse.mailbox.model import Record
from posthouse.mailbox.record import record

LARGE = 256 * 1024
"""Octets from which a message is examined in a thread."""
_AT_ONCE = 16
"""Messages before other tasks get their turn: about 3 ms."""
_QUOTES = 2000
"""Characters in which threads look for quotations."""
_MOST_FAULT = 2000


class Given(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """`owners`: for each recipient the address of its account; '' when it has none."""

    arrival: Arrival
    owners: tuple[str, ...]


class Examined(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """`keys`: for each recipient with an account. `look` None: the filter failed on it. `fault`:
    what failed, for the log."""

    parsed: Parsed
    record: Record
    keys: tuple[Keys | None, ...]
    look: Look | None
    fault: str = ""


Examine = Callable[[Sequence[Given]], Awaitable[list[Examined]]]
"""In the order given. :raises Unavailable: what examines is away."""


def examine(given: Given) -> Examined:
    """Never raises: a defect of ours must not hold the mail."""
    try:
        return _examined(given)
    except Exception:
        return plain(given, traceback.format_exc()[-_MOST_FAULT:])


def _examined(given: Given) -> Examined:
    arrival = given.arrival
    parsed = parse(arrival.raw)
    quotes = start(arrival.raw, parsed)
    fault = ""
    try:
        seen = look(arrival, parsed, text)
    except Exception:
        seen, fault = None, traceback.format_exc()[-_MOST_FAULT:]
    return Examined(parsed, record(parsed), _keys(given, parsed, quotes), seen, fault)


def _keys(given: Given, parsed: Parsed, quotes: str) -> tuple[Keys | None, ...]:
    arrival = given.arrival
    return tuple(
        [
            thread_keys(parsed, received_at=arrival.received_at, text=quotes, own={owner, recipient.address.lower()})
            if owner
            else None
            for owner, recipient in zip(given.owners, arrival.recipients, strict=True)
        ]
    )


def plain(given: Given, fault: str) -> Examined:
    """For one that cannot be examined: its octets as one text, so that it is stored and can be read."""
    size = len(given.arrival.raw)
    body = given.arrival.raw.find(b"\r\n\r\n") + 4
    start = body if body > 3 else 0
    parsed = Parsed(size, start, Part("1", "text/plain", 0, start, start, size - start, size - start), text=("1",))
    return Examined(parsed, record(parsed), _keys(given, parsed, ""), None, fault)


def start(raw: bytes, parsed: Parsed) -> str:
    """The first of what is shown as text, where quotations are looked for."""
    part = part_of(parsed.structure, parsed.text[0]) if parsed.text else None
    if part is None or part.type != "text/plain":
        return ""
    return text(raw, part, _QUOTES)


async def here(given: Sequence[Given]) -> list[Examined]:
    """In this process, a few at a time, large ones in a thread."""
    found: list[Examined] = []
    for n, one in enumerate(given):
        if n and n % _AT_ONCE == 0:
            await asyncio.sleep(0)
        found.append(await asyncio.to_thread(examine, one) if one.arrival.size > LARGE else examine(one))
    return found
