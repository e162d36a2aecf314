"""Lines of a bulk request, and what each line's answer means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from posthouse.storage.search.opensearch.answers import Line, Trouble
from posthouse.storage.search.opensearch.layout import LONGEST_WORD
from posthouse.storage.search.prepare import Prepared

OCTETS_AT_ONCE = 5_000_000
"""Of one request; a single message may be larger."""
_ID_AT_MOST = 512
"""Octets (OpenSearch's own bound)."""
_PASSING = ("cluster_block_exception", "index_closed_exception")
"""Of the index, not of the message: a full disk, an operator's hand."""

_encode = msgspec.json.Encoder().encode


class _Id(msgspec.Struct, frozen=True):
    routing: str
    id: str = msgspec.field(name="_id")


class _Create(msgspec.Struct, frozen=True):
    create: _Id


class _Delete(msgspec.Struct, frozen=True):
    delete: _Id


class _Fields(msgspec.Struct, frozen=True):
    account: str
    email: str
    at: int
    body: str
    head: str


@dataclass(frozen=True, slots=True)
class Item:
    """`lines`: what is sent, newline included."""

    account: str
    email: str
    lines: bytes


class Outcome(Enum):
    DONE = "done"
    ALREADY = "already"
    """So it was before."""
    BUSY = "busy"
    """Worth another try soon."""
    MOVED = "moved"
    """The alias is gone: what is written is another index now."""
    POISON = "poison"
    """This one will never be taken."""


def routing(account: str) -> str:
    """By which a message finds its shard: a comma would name two."""
    return account.replace(",", "_")


def id_of(account: str, email: str) -> str:
    """:raises ValueError: longer than OpenSearch takes."""
    made = f"{account}/{email}"
    if len(made.encode()) > _ID_AT_MOST:
        raise ValueError(f"not an id: {made[:600]!r}")
    return made


def creation(prepared: Prepared) -> Item:
    """:raises ValueError: an id is too long."""
    doc, found = prepared
    head = " ".join([word for word in found.head if len(word) <= LONGEST_WORD])
    fields = _Fields(doc.account, doc.email, doc.received_at, " ".join(found.body), head)
    action = _Create(_Id(routing(doc.account), id_of(doc.account, doc.email)))
    return Item(doc.account, doc.email, b"%b\n%b\n" % (_encode(action), _encode(fields)))


def deletion(account: str, email: str) -> Item:
    """:raises ValueError: an id is too long."""
    action = _Delete(_Id(routing(account), id_of(account, email)))
    return Item(account, email, b"%b\n" % _encode(action))


def requests(items: Sequence[Item]) -> Iterator[list[Item]]:
    """As many as one request holds, in order."""
    part: list[Item] = []
    octets = 0
    for item in items:
        if part and octets + len(item.lines) > OCTETS_AT_ONCE:
            yield part
            part, octets = [], 0
        part.append(item)
        octets += len(item.lines)
    if part:
        yield part


def outcome(line: Line) -> tuple[Outcome, str]:
    """What came of it, and why."""
    status, error = line.status, line.error or Trouble()
    if status < 300:
        return Outcome.DONE, ""
    if status == 409 or (status == 404 and line.error is None):  # there already; not there to be deleted
        return Outcome.ALREADY, ""
    why = f"{status} {error.type}: {error.reason}"
    if status == 404 and error.type == "index_not_found_exception":
        return Outcome.MOVED, why
    if status in (403, 404, 429) or status >= 500 or error.type in _PASSING:
        return Outcome.BUSY, why
    return Outcome.POISON, why
