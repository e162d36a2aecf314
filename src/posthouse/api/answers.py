"""Values to replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from posthouse.api import cursors
from posthouse.api.http import Reply
from posthouse.api.views import Listed

encode = msgspec.json.Encoder().encode


def ok(value: Any) -> Reply:
    return Reply(200, encode(value))


def created(value: Any, *, keep: Any = None) -> Reply:
    """
    :param keep: what a replay answers instead, where `value` holds a secret.
    """
    return Reply(201, encode(value), keep=None if keep is None else encode(keep))


def nothing() -> Reply:
    return Reply(204, b"")


def listed(kind: str, views: Sequence[Any], position: str | None) -> Reply:
    """
    :param position: where the next page begins, None on the last.
    """
    return ok(Listed(list(views), cursors.page(kind, position)))


def by_id(kind: str, things: Sequence[Any], views: Sequence[Any], limit: int) -> Reply:
    """A page of what was asked for with one more than `limit`, in order of id."""
    more = things[limit - 1].id if len(things) > limit else None
    return listed(kind, views[:limit], more)
