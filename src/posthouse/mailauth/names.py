"""Domain names as the checks compare them: A-labels, lower case, no final dot."""

from __future__ import annotations

import re
from functools import lru_cache

from posthouse.errors import Invalid
from posthouse.mail.address import parse_domain

MAX_NAME = 253  # RFC 1035 §2.3.4, as text
_LABELS = re.compile(r"(?!.{254})[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*")


@lru_cache(maxsize=8192)
def normal(name: str) -> str | None:
    """None when it is no domain name. Underscores are kept: DNS has them, host names do not."""
    name = name.removesuffix(".")
    if not name.isascii():
        try:
            return parse_domain(name)
        except Invalid:
            return None
    low = name.lower()
    return low if _LABELS.fullmatch(low) is not None else None


def within(name: str, domain: str) -> bool:
    """`name` is `domain` or below it; both normal."""
    return name == domain or name.endswith("." + domain)


def parent(name: str) -> str:
    """Without its first label; empty above a top level."""
    return name.partition(".")[2]


def printable(text: str, most: int = 128) -> str:
    """A peer's text for a sentence: printable ASCII, bounded."""
    if len(text) > most:
        text = text[: most - 1] + "~"
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)
