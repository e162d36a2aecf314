"""The Author Domain: the domains that From names (RFC 9989 §5.3.1), read with suspicion.

Anything can stand in From. What a reader may take for an address counts as one, so that a
second address hidden by odd syntax is judged as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from posthouse.mailauth.message import Message
from posthouse.mailauth.names import normal

MAX_DOMAINS = 8  # different ones that are judged
MAX_FIELD = 16_384  # octets of From that are read
_MAX_FIELDS = 8

_USUAL = re.compile(rb"\s*(?:(?:[^\"<>(),:;@\\]*|\"[^\"\\<>@]*\"\s*)<[^\s\"<>(),:;@\\]+@([A-Za-z0-9.-]+)>"
                    rb"|[^\s\"<>(),:;@\\]+@([A-Za-z0-9.-]+))\s*")  # fmt: skip
_TOKEN = re.compile(r'\\.|["()]|[^\\"()]+|\\', re.DOTALL)
_ANGLE = re.compile(r"<([^<>]*)>")
_WHITE = re.compile(r"\s+")
_MARK = "\x00"


@dataclass(frozen=True, slots=True)
class Authors:
    """`domains`: normal, each once. `problem`: why there is none, or why they say little."""

    domains: tuple[str, ...]
    problem: str = ""


def authors(message: Message) -> Authors:
    places = message.places(b"from")
    if not message.complete:
        return Authors((), "the header is too long")
    if not places:
        return Authors((), "there is no From")
    domains: dict[str, None] = {}
    for index in places[:_MAX_FIELDS]:
        domains.update(dict.fromkeys(_domains(message.value(index)[:MAX_FIELD])))
    if not domains:
        return Authors((), "From names no domain")
    problem = "there are several From fields" if len(places) > 1 else ""
    if len(domains) > 1:
        problem = problem or "From names several domains"
    return Authors(tuple(domains), problem)


def _domains(value: bytes) -> tuple[str, ...]:
    return _remembered(value) if len(value) <= 512 else _read(value)


@lru_cache(maxsize=4096)
def _remembered(value: bytes) -> tuple[str, ...]:
    return _read(value)


def _read(value: bytes) -> tuple[str, ...]:
    usual = _USUAL.fullmatch(value)
    if usual is not None:
        found = [(usual[1] or usual[2]).decode()]
    else:
        found = [domain.rpartition("@")[2] for domain in _addresses(value.decode("utf-8", "replace"))]
    domains = [normal(domain) for domain in found]
    return tuple(dict.fromkeys(domain for domain in domains if domain is not None))


def _addresses(text: str) -> list[str]:
    """What stands in angle brackets, and what has an @ where there are none."""
    text = _visible(text.replace(_MARK, " "))
    found = [_WHITE.sub("", inside) for inside in _ANGLE.findall(text)]
    for piece in re.split("[,;:]", _ANGLE.sub(_MARK, text)):
        if _MARK not in piece and "@" in piece:
            found.extend(_bare(piece))
    return [address for address in found if "@" in address]


def _visible(text: str) -> str:
    """Without comments, and quoted strings as a letter; with all of it when one is left open."""
    kept: list[str] = []
    quoted, depth = False, 0
    for piece in _TOKEN.findall(text):
        if piece == '"' and not depth:
            quoted = not quoted
            kept.append("q")
        elif piece == "(" and not quoted:
            depth += 1
        elif piece == ")" and depth:
            depth -= 1
        elif not quoted and not depth:
            kept.append(piece)
    return re.sub('["()]', " ", text) if quoted or depth else "".join(kept)


def _bare(piece: str) -> list[str]:
    words = piece.split()
    whole = [word for word in words if "@" in word.strip("@")]
    return [word.strip("<>") for word in whole] or ["".join(words).strip("<>")]
