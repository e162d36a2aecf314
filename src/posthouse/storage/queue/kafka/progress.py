"""Which offsets of a partition are done: a low-water mark, and ranges above it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import msgspec

_decode = msgspec.json.Decoder(list[int]).decode
_encode = msgspec.json.Encoder().encode


class Progress:
    """Every offset below `low` is done, and those of the ranges `[start, end)` above it."""

    __slots__ = ("_above", "low")

    def __init__(self, low: int = 0, above: Iterable[tuple[int, int]] = ()) -> None:
        self.low = low
        self._above = list(above)

    @classmethod
    def decode(cls, low: int, text: str) -> Progress:
        """`text`: JSON, for each range the distance from the end before it, and its length."""
        flat, at = _decode(text), low
        above: list[tuple[int, int]] = []
        for gap, length in zip(flat[::2], flat[1::2], strict=True):
            above.append((at + gap, at + gap + length))
            at += gap + length
        return cls(low, above)

    def encode(self) -> str:
        flat: list[int] = []
        at = self.low
        for start, end in self._above:
            flat += (start - at, end - start)
            at = end
        return _encode(flat).decode()

    def __contains__(self, offset: int) -> bool:
        if offset < self.low:
            return True
        place = bisect_right(self._above, (offset, 1 << 63))
        return place > 0 and self._above[place - 1][1] > offset

    @property
    def above(self) -> int:
        """Offsets done above the mark."""
        return sum(end - start for start, end in self._above)

    def add(self, offsets: Iterable[int]) -> None:
        self.add_ranges(_runs(offsets))

    def add_ranges(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Of `[start, end)`."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted([*self._above, *ranges]):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        while merged and merged[0][0] <= self.low:
            self.low = max(self.low, merged.pop(0)[1])
        self._above = merged


def _runs(offsets: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for offset in sorted(set(offsets)):
        if runs and runs[-1][1] == offset:
            runs[-1] = (runs[-1][0], offset + 1)
        else:
            runs.append((offset, offset + 1))
    return runs
