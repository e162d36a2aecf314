"""Tricks of HTML: what it hides, asks for or runs. Looked for in lower-cased HTML."""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

import msgspec

from posthouse.inbound.filter.links import plain

_TAGS: Final = re.compile(r"<(form|script|iframe|object|embed|input|meta|img)\b")
_RUNS: Final = frozenset({"script", "iframe", "object", "embed"})
_HIDDEN: Final = re.compile(
    r"style\s?=\s?[\"'][^\"'>]{0,500}?(?:display:\s?none|visibility:\s?hidden|opacity:\s?0(?![.\d])|"
    r"font-size:\s?(?:0(?![.\d])|[01]px))[^>]{0,500}>([^<]{200,20000})"
)
_INVISIBLE: Final = re.compile("[\\s\u00a0\u00ad\u034f\u200b-\u200f\u2007\u2060\ufeff]+")
_PASSWORD: Final = re.compile(r"type\s?=\s?[\"']?password")
_REFRESH: Final = re.compile(r"<meta[^>]{0,100}http-equiv\s?=\s?[\"']?refresh")
MUCH = 300
"""Characters of hidden text that are more than a preheader."""


class Markup(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`hidden`: characters of text in one hidden element, when more than `MUCH`. `form`: asks for
    input, `password` of that kind. `script`: a script, a frame or an object. `refresh`: leads
    on by itself. `image_only`: pictures, a link and hardly a word."""

    hidden: int = 0
    form: bool = False
    password: bool = False
    script: bool = False
    refresh: bool = False
    image_only: bool = False


NO_MARKUP: Final = Markup()


def markup(html: str, shown: int, links: int, *, hides: bool) -> Markup:
    """:param html: lower-cased.
    :param shown: characters of text that a reader sees.
    :param links: how many the message has.
    :param hides: whether the parser saw a style that hides (its flaw `hidden_text`).
    """
    tags: set[str] = set(_TAGS.findall(html))
    hidden = _hidden(html) if hides else 0
    return Markup(
        hidden=hidden,
        form="form" in tags,
        password="input" in tags and _PASSWORD.search(html) is not None,
        script=not tags.isdisjoint(_RUNS),
        refresh="meta" in tags and _REFRESH.search(html) is not None,
        image_only="img" in tags and links > 0 and shown - hidden < 60,
    )


def _hidden(html: str) -> int:
    most = 0
    for match in islice(_HIDDEN.finditer(html), 20):
        # Newsletters fill their preheader with invisible characters, which is no text.
        most = max(most, len(_INVISIBLE.sub(" ", plain(match[1])).strip()))
    return most if most > MUCH else 0
