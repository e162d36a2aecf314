"""The parts of OpenSearch's answers that are read, as `filter_path` asks for them."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from posthouse.storage.search.base import unavailable

T = TypeVar("T")


class Hit(msgspec.Struct, gc=False):
    """`sort`: `received_at` and the email."""

    sort: tuple[int, str]


class Total(msgspec.Struct):
    """`relation`: `eq`, or `gte` when it was not counted to the end."""

    value: int
    relation: str


class Hits(msgspec.Struct):
    """Without hits the filter leaves nothing of it."""

    hits: list[Hit] = []
    total: Total | None = None


class Found(msgspec.Struct):
    timed_out: bool
    hits: Hits = msgspec.field(default_factory=Hits)


class Trouble(msgspec.Struct):
    type: str = ""
    reason: str = ""


class Line(msgspec.Struct, gc=False):
    status: int
    error: Trouble | None = None


class Bulk(msgspec.Struct):
    """For each line its action's answer: `{"create": …}`."""

    items: list[dict[str, Line]]


class Got(msgspec.Struct, gc=False):
    found: bool = False
    error: Trouble | None = None


class Gotten(msgspec.Struct):
    docs: list[Got]


class Health(msgspec.Struct):
    status: str


class Docs(msgspec.Struct):
    count: int
    deleted: int


class Store(msgspec.Struct):
    size_in_bytes: int


class Primaries(msgspec.Struct):
    docs: Docs
    store: Store


class All(msgspec.Struct):
    primaries: Primaries


class Stats(msgspec.Struct):
    every: All = msgspec.field(name="_all")


class About(msgspec.Struct):
    aliases: dict[str, Any]


Aliases = dict[str, About]


def read(answer: Any, shape: type[T]) -> T:
    """:raises StorageUnavailable: `search_unavailable`: it has another shape."""
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise unavailable(f"OpenSearch: an answer that is none: {error}") from None
