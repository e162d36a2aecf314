"""The same octets in other pieces: what is read from a stream must not depend on them."""

from __future__ import annotations

import random
import zlib


def cuts(data: bytes, most: int = 40) -> list[bytes]:
    """`data` in up to `most` pieces at places that depend on nothing but `data`."""
    dice = random.Random(zlib.crc32(data))
    places = sorted({dice.randrange(len(data) + 1) for _ in range(min(most, len(data)))})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
