"""Filters of our own: those of the engine that could make a value of any size, bounded, and
`date` and `num`. They get and give plain JSON values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import minijinja
import msgspec

MAX_VALUE = 1 << 20
"""Characters of text that one filter may give."""
_MAX_COLUMNS = 1_000
_MAX_RANGE = 10_000
_WIDE = re.compile(r"%[^a-zA-Z%]*(?:\d{3,}|\*)")
_DIRECTIVE = re.compile(r"%(?!-?[aAbBcdeHIjmMpSuUwWxXyYZz%])")
_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"}


def num(value: Any) -> Any:
    """A number; anything else is an error. Guards the operands of `*`."""
    if isinstance(value, int | float):
        return value
    raise ValueError("`*` needs numbers")


def replace(value: Any, old: str, new: str) -> str:
    text, old, new = str(value), str(old), str(new)
    _bound(len(text) + text.count(old) * max(0, len(new) - len(old)))
    return text.replace(old, new)


def join(value: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    parts: list[str] = []
    size = 0
    for one in value:
        item = one if attribute is None else one[attribute]
        parts.append(item if isinstance(item, str) else str(item))
        size = _bound(size + len(parts[-1]) + len(separator))
    return separator.join(parts)


def indent(value: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
    lines = str(value).split("\n")
    if not 0 <= width <= 100:
        raise ValueError("an indent is 0 to 100 wide")
    _bound(len(str(value)) + width * len(lines))
    pad = " " * width
    padded = [pad + line if blank or line else line for line in lines]
    if not first:
        padded[0] = lines[0]
    return "\n".join(padded)


def format_(pattern: str, *values: Any, **named: Any) -> str:
    """`"%.2f"|format(total)`, `"%(name)s"|format(name=…)`"""
    if _WIDE.search(pattern):
        raise ValueError("a width or a precision is 0 to 99")
    _bound(len(pattern) + pattern.count("%") * (100 + sum(len(str(value)) for value in (*values, *named.values()))))
    try:
        return pattern % (named or values)
    except (TypeError, KeyError) as error:
        raise ValueError(f"the format does not fit its values: {error}") from None


def tojson(value: Any, indent: int | None = None) -> str:
    """JSON that may stand in a `<script>`: `<`, `>`, `&` and `'` are escaped. Not for an
    attribute in double quotes."""
    text = msgspec.json.encode(value, enc_hook=str).decode()
    if indent:
        text = msgspec.json.format(text, indent=max(0, min(int(indent), 8)))
    for char, escaped in _HTML.items():
        text = text.replace(char, escaped)
    _bound(len(text))
    return minijinja.safe(text)


def batch(value: Iterable[Any], count: int, fill: Any = None) -> list[list[Any]]:
    if not 1 <= count <= _MAX_COLUMNS:
        raise ValueError(f"a batch has 1 to {_MAX_COLUMNS} items")
    items = iter(value)
    rows: list[list[Any]] = []
    while row := list(islice(items, count)):
        rows.append(row)
    if rows and fill is not None:
        rows[-1] += [fill] * (count - len(rows[-1]))
    return rows


def slice_(value: Iterable[Any], count: int, fill: Any = None) -> list[list[Any]]:
    if not 1 <= count <= _MAX_COLUMNS:
        raise ValueError(f"1 to {_MAX_COLUMNS} slices")
    items = list(value)
    each, longer = divmod(len(items), count)
    columns: list[list[Any]] = []
    at = 0
    for n in range(count):
        size = each + (n < longer)
        column = items[at : at + size]
        columns.append([*column, fill] if fill is not None and longer and n >= longer else column)
        at += size
    return columns


def date(value: Any, pattern: str = "%Y-%m-%d") -> str:
    """Of an RFC 3339 text or seconds since 1970 (then UTC), in strftime's directives."""
    if len(pattern) > 100 or _DIRECTIVE.search(pattern):
        raise ValueError("the date's format has a directive that is not known")
    try:
        if isinstance(value, int | float):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            moment = datetime.fromisoformat(str(value))
        return moment.strftime(pattern)
    except (ValueError, OverflowError, OSError):
        raise ValueError("the value is not a date") from None


def wordwrap(value: Any, width: int = 79) -> str:
    if not 10 <= width <= 1_000:
        raise ValueError("a line is 10 to 1,000 wide")
    wrapped: list[str] = []
    for line in str(value).split("\n"):
        current = ""
        for word in line.split(" "):
            if current and len(current) + 1 + len(word) > width:
                wrapped.append(current)
                current = word
            else:
                current = f"{current} {word}" if current else word
        wrapped.append(current)
    return "\n".join(wrapped)


def _bound(size: int) -> int:
    if size > MAX_VALUE:
        raise ValueError(f"a value grows over {MAX_VALUE} characters")
    return size


def range_(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > _MAX_RANGE:
        raise ValueError(f"a range has at most {_MAX_RANGE} numbers")
    return list(numbers)


OURS: Mapping[str, Any] = {
    "num": num,
    "replace": replace,
    "join": join,
    "indent": indent,
    "format": format_,
    "tojson": tojson,
    "batch": batch,
    "slice": slice_,
    "date": date,
    "wordwrap": wordwrap,
}
REFUSED_FUNCTIONS = ("cycler", "joiner", "namespace", "debug")
REFUSED_FILTERS = ("pprint",)
