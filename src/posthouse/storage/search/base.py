"""The search port: which of an account's messages hold these words, newest first.

The index can be dropped and made again from the records and contents; nothing else depends
on it. A message never changes, so one that is indexed already is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from posthouse import errors
from posthouse.storage.search.query import Query

LIMIT_AT_MOST = 1000
"""Messages on one page."""
SECONDS_AT_MOST = 10.0
"""Of one query."""


class Doc(msgspec.Struct, frozen=True, gc=False):
    """One message as it is searched. `received_at`: µs since 1970. `from_`, `to` (with cc and
    bcc): one text for each address, name and address (`Ann Lee <ann@example.com>`). `text`:
    the body as a reader sees it, without markup. `attachments`: file names."""

    account: str
    email: str
    received_at: int
    subject: str = ""
    from_: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    text: str = ""
    attachments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """`next`: the position to give as `before` for the page after this one; None at the end.
    `total`: messages that match, where that was learnt on the way, else None."""

    emails: tuple[str, ...]
    next: str | None = None
    total: int | None = None


Unbuilt = Literal["new", "rebuilding", "broken", "removed"]


@dataclass(frozen=True, slots=True)
class Size:
    """`removed`: removed messages that still take room. `needs_rebuild`: why a rebuild is due
    (`clear`, `index` everything, `rebuilt`); None when the index is whole:
    `new` it was made empty; `rebuilding` one began and did not end; `broken` a damaged file
    was set aside; `removed` more than half of it is of removed messages. While one is rebuilt
    beside another, it is the new one that is counted."""

    emails: int
    removed: int
    octets: int
    needs_rebuild: Unbuilt | None


@dataclass(frozen=True, slots=True)
class Capabilities:
    engine: Literal["sqlite", "postgresql", "opensearch"]
    batch: int
    """Messages in one call of `index` that serve it best."""
    gapless: bool = False
    """From `clear` to `rebuilt` the index that was there answers queries, and new messages go to both."""


class Search(Protocol):
    capabilities: Capabilities

    async def index(self, docs: Sequence[Doc]) -> int:
        """How many were new. On return they are durable and found. Safe to repeat. Larger
        batches cost less; ascending `received_at` keeps the newest together.

        :raises StorageUnavailable: `search_unavailable`; some of them may be indexed.
        """
        ...

    async def remove(self, account: str, emails: Sequence[str]) -> None:
        """They are found no more; unknown ones are passed over.

        :raises StorageUnavailable: `search_unavailable`.
        """
        ...

    async def query(self, account: str, query: Query, *, limit: int = 50, before: str | None = None) -> Page:
        """The account's messages that match, newest first (those of one microsecond by id).

        :param limit: at most so many, 1 to `LIMIT_AT_MOST`.
        :param before: a `Page.next`, of any query.
        :raises Invalid: `before` is no position.
        :raises StorageUnavailable: `search_unavailable`, also when it took too long.
        """
        ...

    async def clear(self) -> None:
        """An empty index begins, to be rebuilt: everything that is stored when this returns has to be given
        to `index` again. Mends an index whose file is damaged or gone. Where `capabilities.gapless`, queries go
        on with the old one; else they find what has been indexed since.

        :raises StorageUnavailable: `search_unavailable`.
        """
        ...

    async def rebuilt(self) -> None:
        """All there was is indexed: `needs_rebuild` ends.

        :raises StorageUnavailable: `search_unavailable`.
        """
        ...

    async def size(self) -> Size:
        """Counts everything; for people and metrics.

        :raises StorageUnavailable: `search_unavailable`.
        """
        ...

    async def ready(self) -> None:
        """:raises StorageUnavailable: `search_unavailable`, with the reason."""
        ...

    async def close(self) -> None: ...


def unavailable(detail: str) -> errors.StorageUnavailable:
    return errors.StorageUnavailable(
        "Search does not answer; mail is not affected; try again", code="search_unavailable", detail=detail
    )


def position(received_at: int, email: str) -> str:
    return f"{received_at}.{email}"


def parse_position(text: str) -> tuple[int, str]:
    """:raises Invalid: it is none of ours."""
    number, dot, email = text.partition(".")
    if not (dot and email and len(text) <= 200 and number.removeprefix("-").isdecimal() and number.isascii()):
        raise errors.Invalid("the position is not one that a search gave", code="cursor_invalid")
    received_at = int(number)
    if abs(received_at) >= 1 << 63 or not email.isprintable():
        raise errors.Invalid("the position is not one that a search gave", code="cursor_invalid")
    return received_at, email
