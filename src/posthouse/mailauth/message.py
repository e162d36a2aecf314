"""A message as the checks look at it: its header once split and canonicalised, its body hashed
once for all signatures that ask for the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection
from typing import ParamSpec, TypeVar

from posthouse.mailauth.digest import SMALL, Raw, body_hashes
from posthouse.mailauth.dkim import Canon, canonical_header

P = ParamSpec("P")
T = TypeVar("T")

MAX_HEADER = 8 * 1024 * 1024  # octets; 100,000 fields fit
_FIELD_ENDS = re.compile(rb"\r\n(?![ \t])")

Need = tuple[Canon, int | None]
"""A body hash: of which canonical form, cut to how many octets (`l=`)."""


class Message:
    """:param raw: with CR LF line ends. An `mmap` is only read in pieces, never exported, so that
    its owner may close it at any time.
    """

    __slots__ = (
        "_canonical",
        "_hashes",
        "_header",
        "_lock",
        "_places",
        "_raw",
        "_totals",
        "complete",
        "fields",
        "names",
        "start",
    )

    def __init__(self, raw: Raw) -> None:
        end = raw.find(b"\r\n\r\n", 0, MAX_HEADER)
        if raw[:2] == b"\r\n":
            header, self.start = b"", 2
        elif end < 0:
            header, self.start = raw[:MAX_HEADER].removesuffix(b"\r\n"), len(raw)
        else:
            header, self.start = raw[:end], end + 4
        self.complete = end >= 0 or len(raw) <= MAX_HEADER
        """Whether the whole header was read; a longer one authenticates nothing."""
        self._raw = raw
        self._header = header
        self.fields: list[bytes] = _FIELD_ENDS.split(header) if header else []
        """As they stand, without their last line end."""
        self.names: list[bytes] = [field.partition(b":")[0].rstrip(b" \t").lower() for field in self.fields]
        self._canonical: dict[Canon, list[bytes]] = {}
        self._places: dict[bytes, list[int]] | None = None
        self._hashes: dict[Need, bytes] = {}
        self._totals: dict[Canon, int] = {}
        self._lock = asyncio.Lock()

    def places(self, name: bytes) -> list[int]:
        """Where the fields of this name stand, the first one first. :param name: lower case."""
        if self._places is None:
            self._places = {}
            for index, found in enumerate(self.names):
                self._places.setdefault(found, []).append(index)
        return self._places.get(name, [])

    def value(self, index: int) -> bytes:
        """A field's body as it stands."""
        return self.fields[index].partition(b":")[2]

    def canonical(self, canon: Canon) -> list[bytes]:
        """Every field's canonical form with CR LF."""
        known = self._canonical.get(canon)
        if known is None:
            known = canonical_header(self._header, canon)[1]
            self._canonical[canon] = known
        return known

    def body_hash(self, need: Need) -> tuple[bytes, int]:
        """The hash, and the octets of the whole canonical body; `hash_body` comes first."""
        return self._hashes[need], self._totals[need[0]]

    async def hash_body(self, needs: Collection[Need]) -> None:
        """Each hash once, a large body's in a thread."""
        if all(need in self._hashes for need in needs):
            return
        if len(self._raw) - self.start <= SMALL:
            self._hash(needs)
            return
        async with self._lock:
            await asyncio.to_thread(self._hash, needs)

    async def work(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs what goes over the header; in a thread when that is large."""
        if self.start <= SMALL:
            return call(*args, **kwargs)
        return await asyncio.to_thread(call, *args, **kwargs)

    def _hash(self, needs: Collection[Need]) -> None:
        missing = [need for need in needs if need not in self._hashes]
        canons: list[Canon] = [canon for canon, _ in missing]
        for canon in set(canons):
            lengths = {length for asked, length in missing if asked == canon}
            found, self._totals[canon] = body_hashes(self._raw, self.start, canon, lengths)
            for length, value in found.items():
                self._hashes[canon, length] = value
