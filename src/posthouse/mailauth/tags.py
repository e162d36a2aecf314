"""Tag lists, `a=1; b=2` (RFC 6376 §3.2): of signatures, seals and key records."""

from __future__ import annotations

import re
from base64 import b64decode

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WHITE = " \t\r\n"
_FOLDS = re.compile(r"[ \t\r\n]+")
MAX_TAGS = 64


class TagFault(ValueError):
    """What is wrong, for people; holds none of the peer's text."""


def parse(text: str) -> dict[str, str]:
    """Values without the white space around them.

    :raises TagFault: no tag list, a tag twice, or too many.
    """
    tags: dict[str, str] = {}
    specs = text.split(";", MAX_TAGS + 1)
    if len(specs) > MAX_TAGS:
        raise TagFault("too many tags")
    if not specs[-1].strip(_WHITE):
        specs.pop()
    for spec in specs:
        name, equals, value = spec.partition("=")
        name = name.strip(_WHITE)
        if not equals or _NAME.fullmatch(name) is None:
            raise TagFault("no tag list")
        if name in tags:
            raise TagFault("a tag stands twice")
        tags[name] = value.strip(_WHITE)
    return tags


def without_folds(value: str) -> str:
    return _FOLDS.sub("", value) if " " in value or "\n" in value or "\t" in value or "\r" in value else value


def base64_value(value: str) -> bytes:
    """:raises TagFault: not base64, white space aside."""
    try:
        return b64decode(without_folds(value).encode(), validate=True)
    except (ValueError, UnicodeError):
        raise TagFault("a value is not base64") from None


def number(value: str, digits: int = 12) -> int:
    """:raises TagFault: not 1 to `digits` decimal digits."""
    if not (value.isascii() and value.isdigit() and len(value) <= digits):
        raise TagFault("a value is not a number")
    return int(value)
