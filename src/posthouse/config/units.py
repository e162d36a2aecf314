"""Durations and sizes as people write them: `72h`, `5 min`, `40 MB`; bare numbers are seconds
and bytes. In a settings object they are always plain numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

_QUANTITY = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]*)\s*")
_SECONDS = {"": 1, "ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts; stands in the settings reference."""

    name: str


def _scaled(text: str, scales: dict[str, float] | dict[str, int], example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    scale = scales.get(match[2].lower()) if match else None
    if match is None or scale is None:
        raise ValueError(f"write a number with a unit, such as {example}")
    return float(match[1]) * scale


def seconds(value: object) -> object:
    """`"72h"` becomes 259200.0; anything but text is left to the type check."""
    return _scaled(value, _SECONDS, '"90s", "5min", "72h" or "3d"') if isinstance(value, str) else value


def octets(value: object) -> object:
    """`"40 MB"` becomes 40000000; anything but text is left to the type check."""
    return round(_scaled(value, _BYTES, '"512KiB" or "40MB"')) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, allow_inf_nan=False), Unit("seconds")]
Octets = Annotated[int, BeforeValidator(octets), Field(gt=0), Unit("bytes")]


def show_seconds(value: float) -> str:
    """`259200` as `72 h`: the largest unit, up to hours, that keeps it whole."""
    for scale, name in ((3600, "h"), (60, "min")):
        if value >= scale and value % scale == 0:
            return f"{value / scale:g} {name}"
    return f"{value:g} s"


def show_octets(value: int) -> str:
    for scale, name in ((10**9, "GB"), (2**20, "MiB"), (10**6, "MB"), (2**10, "KiB")):
        if value >= scale and value % scale == 0:
            return f"{value // scale} {name}"
    return f"{value} B"
