"""SPF records and macro strings, parsed once a text (RFC 7208 §4.6.1, §5, §6, §7).

A record is right or wrong as a whole: an error anywhere in it is a `SyntaxFault`, whatever
stands before it (RFC 7208 §4.6).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

MAX_RECORD = 16_384  # characters; no record that DNS carries well is longer
MAX_EXPANDED = 65_536  # characters of an expanded macro string
QUALIFIERS = {"": "pass", "+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}

_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_DIRECTIVE = re.compile(r"([+~?-]?)([A-Za-z][A-Za-z0-9_.-]*)((?:[:/].*)?)", re.DOTALL)
_ADDRESSED = re.compile(r"(?::(.+?))?(?:/([0-9]{1,3}))?(?://([0-9]{1,3}))?", re.DOTALL)
_NETWORK = re.compile(r":([0-9A-Fa-f:.]+)(?:/([0-9]{1,3}))?")
_QUAD = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_PIECE = re.compile(r"%\{([a-zA-Z])([0-9]*)([rR]?)([.+,/_=-]*)\}|(%[%_-])|([^%]+)")
_LITERAL = re.compile(r"[\x21-\x24\x26-\x7e]+")
_EXPLAINED = re.compile(r"[\x20-\x24\x26-\x7e]+")
_TOP = re.compile(r"\.(?![0-9]+\.?\Z)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?\Z")
_ESCAPES = {"%%": "%", "%_": " ", "%-": "%20"}
_LETTERS = frozenset("slodiphv")
_EXPLAINING = frozenset("slodiphvcrt")  # RFC 7208 §7.2: c, r and t in explanations only


class SyntaxFault(ValueError):
    """The record's owner made a mistake; the text is for people."""


@dataclass(frozen=True, slots=True)
class Macro:
    letter: str
    keep: int
    """Parts from the right; 0 is all."""
    reverse: bool
    delimiters: str
    escape: bool


Template = tuple[str | Macro, ...]


@dataclass(frozen=True, slots=True)
class Mechanism:
    name: str
    text: str
    """As it stands in the record."""
    result: str
    """Of a match: pass, fail, softfail or neutral."""
    domain: Template | None = None
    network: tuple[int, int] | None = None
    """Of ip4 and ip6: the bits kept, and how many were dropped on the right."""
    v4: int = 32
    v6: int = 128


@dataclass(frozen=True, slots=True)
class Record:
    mechanisms: tuple[Mechanism, ...]
    redirect: Template | None = None
    exp: Template | None = None


def is_record(text: bytes) -> bool:
    """RFC 7208 §4.5: the version is followed by a space or by nothing."""
    return text[:6].lower() == b"v=spf1" and text[6:7] in {b"", b" "}


@lru_cache(maxsize=4096)
def parse(text: bytes) -> Record | SyntaxFault:
    """A fault is returned, so that it is remembered as well."""
    try:
        return _parse(text)
    except SyntaxFault as fault:
        return fault.with_traceback(None)


@lru_cache(maxsize=1024)
def parse_explanation(text: bytes) -> Template | None:
    """None: it is no explain-string (RFC 7208 §6.2)."""
    try:
        return _macro_string(text.decode("ascii"), _EXPLAINED, _EXPLAINING)
    except (SyntaxFault, UnicodeDecodeError):
        return None


def expand(template: Template, values: Mapping[str, str]) -> str:
    """:param values: by lower-case macro letter; those that the template names."""
    return "".join(piece if isinstance(piece, str) else _expanded(piece, values) for piece in template)[:MAX_EXPANDED]


def names(template: Template | None, letter: str) -> bool:
    return template is not None and any(isinstance(piece, Macro) and piece.letter == letter for piece in template)


def _parse(raw: bytes) -> Record:
    if len(raw) > MAX_RECORD:
        raise SyntaxFault("the record is too long")
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise SyntaxFault("the record is not ASCII") from None
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, Template] = {}
    for term in filter(None, text[6:].split(" ")):
        modifier = _MODIFIER.fullmatch(term)
        if modifier is None:
            mechanisms.append(_mechanism(term))
            continue
        name = modifier[1].lower()
        if name not in {"redirect", "exp"}:
            _macro_string(modifier[2], _LITERAL, _EXPLAINING)
        elif name in modifiers:
            raise SyntaxFault(f"{name}= stands twice")
        else:
            modifiers[name] = _domain_spec(modifier[2])
    return Record(tuple(mechanisms), modifiers.get("redirect"), modifiers.get("exp"))


def _mechanism(term: str) -> Mechanism:
    found = _DIRECTIVE.fullmatch(term)
    if found is None:
        raise SyntaxFault("a term is neither mechanism nor modifier")
    result, name, rest = QUALIFIERS[found[1]], found[2].lower(), found[3]
    if name == "all":
        if rest:
            raise SyntaxFault("all takes nothing")
        return Mechanism(name, term, result)
    if name in {"include", "exists", "ptr"}:
        if not rest and name == "ptr":
            return Mechanism(name, term, result)
        if not rest.startswith(":"):
            raise SyntaxFault(f"{name} needs a domain")
        return Mechanism(name, term, result, _domain_spec(rest[1:]))
    if name in {"a", "mx"}:
        return _addressed(name, term, result, rest)
    if name in {"ip4", "ip6"}:
        return Mechanism(name, term, result, network=_network(name, rest))
    raise SyntaxFault("a mechanism is unknown")


def _addressed(name: str, term: str, result: str, rest: str) -> Mechanism:
    found = _ADDRESSED.fullmatch(rest)
    if found is None:
        raise SyntaxFault(f"{name} has a wrong argument")
    domain = _domain_spec(found[1]) if found[1] is not None else None
    return Mechanism(name, term, result, domain, v4=_prefix(found[2], 32), v6=_prefix(found[3], 128))


def _network(name: str, rest: str) -> tuple[int, int]:
    found = _NETWORK.fullmatch(rest)
    if found is None or (name == "ip4" and _QUAD.fullmatch(found[1]) is None):
        raise SyntaxFault(f"{name} needs a network")
    try:
        address = ipaddress.IPv4Address(found[1]) if name == "ip4" else ipaddress.IPv6Address(found[1])
    except ValueError:
        raise SyntaxFault(f"{name} needs a network") from None
    dropped = address.max_prefixlen - _prefix(found[2], address.max_prefixlen)
    return int(address) >> dropped, dropped


def _prefix(text: str | None, most: int) -> int:
    if text is None:
        return most
    if (len(text) > 1 and text.startswith("0")) or int(text) > most:
        raise SyntaxFault("a prefix length is wrong")
    return int(text)


def _domain_spec(text: str) -> Template:
    """RFC 7208 §7.1: ends in a macro, or in a dot and a top-level label."""
    template = _macro_string(text, _LITERAL, _LETTERS)
    ends_in_macro = bool(template) and (isinstance(template[-1], Macro) or text.endswith(("%%", "%_", "%-")))
    if not ends_in_macro and (not template or _TOP.search(str(template[-1])) is None):
        raise SyntaxFault("a domain is wrong")
    return template


def _macro_string(text: str, literal: re.Pattern[str], letters: Iterable[str]) -> Template:
    pieces: list[str | Macro] = []
    at = 0
    while at < len(text):
        found = _PIECE.match(text, at)
        if found is None:
            raise SyntaxFault("a macro is wrong")
        at = found.end()
        if found[6] is not None:
            if literal.fullmatch(found[6]) is None:
                raise SyntaxFault("a character is not allowed")
            pieces.append(found[6])
        elif found[5] is not None:
            pieces.append(_ESCAPES[found[5]])
        else:
            pieces.append(_macro(found, letters))
    return tuple(pieces)


def _macro(found: re.Match[str], letters: Iterable[str]) -> Macro:
    letter, digits = found[1], found[2]
    if letter.lower() not in letters:
        raise SyntaxFault("a macro letter is not allowed")
    keep = min(int(digits[:4]), 128) if digits else 0
    if digits and (keep == 0 or not int(digits[:4])):
        raise SyntaxFault("a macro keeps no part")
    return Macro(letter.lower(), keep, bool(found[3]), found[4] or ".", letter.isupper())


def _expanded(macro: Macro, values: Mapping[str, str]) -> str:
    value = values[macro.letter]
    if macro.keep or macro.reverse or macro.delimiters != ".":
        parts = re.split("[" + re.escape(macro.delimiters) + "]", value)
        if macro.reverse:
            parts.reverse()
        value = ".".join(parts[-macro.keep :])
    return quote(value, safe="-._~") if macro.escape else value
