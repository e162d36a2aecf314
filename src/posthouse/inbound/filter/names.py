"""Names that pretend to be others: scripts mixed in a word, look-alike domains and brands.

The skeleton of a name is what it looks like in plain Latin letters (the idea of UTS #39 §4,
with a small table of our own): two names with one skeleton are easily taken for each other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import idna

from posthouse.domains.name import organizational
from posthouse.inbound.filter.brands import BRANDS, OFFICIAL

_LOOKS_LIKE: Final = {
    "a": "аαɑᴀ@4", "b": "ьЬ", "c": "сϲᴄ", "d": "ԁđɗ", "e": "еёєҽε3", "g": "ɡց", "h": "һհħ", "j": "јϳ", "k": "кκ",
    "l": "ӏʟłⅼi1|іїιıɩ", "m": "мⅿ", "n": "пηռ", "o": "0оοօøσ", "p": "рρ", "q": "ԛ", "r": "гᴦ", "s": "5$ѕꜱ", "t": "тτŧ",
    "u": "υսц", "v": "νѵ", "w": "ԝωшա", "x": "хχ", "y": "уүγ", "z": "ᴢƶ", "": "-_ .'’\u00ad\u200b\u200c\u200d\u2060",
}  # fmt: skip
_PLAIN: Final = str.maketrans({like: letter for letter, many in _LOOKS_LIKE.items() for like in many})
_MIXED: Final = re.compile("[a-z][\u0370-\u052f]|[\u0370-\u052f][a-z]", re.IGNORECASE)
_HIDDEN: Final = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_LETTER_HIDDEN: Final = re.compile("[A-Za-z\u0400-\u04ff][\u200b\u200c\u200d\u2060\ufeff]+[A-Za-z\u0400-\u04ff]")
_WORD: Final = re.compile(r"[^\W_]+")
MAX_HOST = 255


class Likeness(NamedTuple):
    """`how`: alike (looks the same), near (one letter off), inside (its name as a word of
    another domain) or below (its whole domain as a subdomain of another)."""

    how: str
    original: str


@lru_cache(maxsize=20_000)
def registrable(host: str) -> str:
    """The domain that somebody registered: `example.co.uk` of `www.example.co.uk`; the host
    itself when it is a public suffix or an address."""
    if len(host) > MAX_HOST or not host.isascii():
        host = ascii_host(host)
    return organizational(host)


@lru_cache(maxsize=20_000)
def ascii_host(host: str) -> str:
    """In A-labels and lower case; what cannot be encoded stays as it is, bounded."""
    host = host[:MAX_HOST].rstrip(".").lower()
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return host


@lru_cache(maxsize=20_000)
def shown_host(host: str) -> str:
    """As a client shows it: A-labels decoded, label by label."""
    if "xn--" not in host:
        return host
    return ".".join(_decoded(label) for label in host[:MAX_HOST].split("."))


def _decoded(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, ValueError):
        return label


def skeleton(text: str) -> str:
    """What `text` looks like, in `a-z` where there is a likeness; blanks and hyphens go."""
    folded = text.lower()
    if not folded.isascii():
        folded = unicodedata.normalize("NFKD", folded)
        folded = "".join(char for char in folded if not unicodedata.combining(char))
    return folded.translate(_PLAIN).replace("rn", "m").replace("vv", "w")


def mixes_scripts(text: str) -> bool:
    """Latin letters beside Greek or Cyrillic ones inside one word."""
    return not text.isascii() and _MIXED.search(text) is not None


def hides_characters(text: str) -> bool:
    """Zero-width or direction-changing characters, where a name or a subject has no use for them.
    Joiners between letters of scripts that need them, and inside emoji, are fine."""
    if text.isascii() or _HIDDEN.search(text) is None:
        return False
    return _LETTER_HIDDEN.search(text) is not None or any("\u202a" <= c <= "\u202e" or c == "\u2066" for c in text)


def split_words(text: str) -> int:
    """How often zero-width characters cut Latin or Cyrillic words of `text` (at most 50)."""
    if text.isascii() or _HIDDEN.search(text) is None:
        return 0
    return sum(1 for _, _ in zip(range(50), _LETTER_HIDDEN.finditer(text), strict=False))


@lru_cache(maxsize=20_000)
def deceptive_idn(host: str) -> bool:
    """A label that mixes scripts, or is of Cyrillic or Greek letters that all look Latin and
    stands under a Latin top level."""
    shown = shown_host(host)
    if shown.isascii():
        return False
    labels = shown.split(".")
    return any(mixes_scripts(label) or _all_alike(label) for label in labels[:-1] if not label.isascii()) and (
        labels[-1].isascii()
    )


def _all_alike(label: str) -> bool:
    foreign = any("\u0370" <= char <= "\u052f" for char in label)
    return foreign and skeleton(label).isascii()


@lru_cache(maxsize=20_000)
def imitates_brand(host: str) -> Likeness | None:
    """Whether a host that no brand owns is made to be taken for one."""
    owner = registrable(host)
    if owner in _OWNED:
        return None
    name = shown_host(owner).partition(".")[0]
    plain = skeleton(name)
    if plain in _SKELETONS and name not in BRANDS:
        return Likeness("alike", _SKELETONS[plain])
    for brand in _NEAR.get(name[:1], ()):
        if one_off(name, brand):
            return Likeness("near", brand)
    words = {skeleton(word): word for word in name.split("-")}
    if len(words) > 1:
        for plain in words:
            if plain in _SKELETONS and len(plain) > 3:
                return Likeness("inside", _SKELETONS[plain])
    above = host.removesuffix(owner).rstrip(".")
    if above:
        for domain in _DOMAINS_OVER_THREE:
            if f".{above}.".find(f".{domain}.") >= 0 or f".{above}.".find(f".{domain.replace('.', '-')}.") >= 0:
                return Likeness("below", domain)
    return None


@lru_cache(maxsize=20_000)
def imitates(domain: str, original: str) -> Likeness | None:
    """Whether `domain` is made to be taken for `original`, a domain of ours or of somebody known."""
    one, other = registrable(domain), registrable(original)
    if one == other:
        return None
    name, real = shown_host(one).partition(".")[0], shown_host(other).partition(".")[0]
    if len(real) < 4 or name == real:
        return None
    if skeleton(name) == skeleton(real):
        return Likeness("alike", other)
    if len(real) >= 6 and name[:1] == real[:1] and one_off(name, real):
        return Likeness("near", other)
    if f".{domain}.".find(f".{other}.") >= 0:
        return Likeness("below", other)
    return None


@lru_cache(maxsize=20_000)
def claimed_brand(name: str) -> str | None:
    """The brand that a display name speaks for: all its words are the brand's or such as
    `Security Team`. So `Apple Support`, and not `Apple Pie Friends`."""
    words = [word.lower() for word in _WORD.findall(name[:120])]
    if not words or len(words) > 8:
        return None
    for size in (3, 2, 1):
        for at in range(len(words) - size + 1):
            brand = _SKELETONS.get(skeleton("".join(words[at : at + size])))
            if brand is not None and all(word in _BESIDE for word in words[:at] + words[at + size :]):
                return brand
    return None


def brand_owns(brand: str, domain: str) -> bool:
    return registrable(domain) in _DOMAINS[brand] or registrable(domain).partition(".")[0] == brand


def one_off(name: str, real: str) -> bool:
    """One letter put in, left out, changed, or two neighbours swapped."""
    if abs(len(name) - len(real)) > 1 or name == real:
        return False
    at = 0
    while at < min(len(name), len(real)) and name[at] == real[at]:
        at += 1
    rest, wanted = name[at:], real[at:]
    return (
        rest[1:] == wanted
        or rest == wanted[1:]
        or rest[1:] == wanted[1:]
        or (rest[:2] == wanted[1::-1] and rest[2:] == wanted[2:] and len(wanted) > 1)
    )


def originals(address: str) -> Iterator[str]:
    """Addresses that this one may be made to be taken for: the same local part at its domain's
    plain spellings. At most six."""
    local, _, domain = address.lower().partition("@")
    shown = shown_host(domain)
    spellings = {
        shown.translate(_LATIN_ONLY),
        shown.replace("rn", "m"),
        shown.replace("vv", "w"),
        shown.replace("0", "o").replace("1", "l"),
        shown.replace("1", "i"),
        shown.replace("0", "o"),
    }
    for spelling in sorted(spellings):
        if spelling != domain and spelling.isascii() and "." in spelling:
            yield f"{local}@{spelling}"


_LATIN_ONLY: Final = str.maketrans(
    {like: letter for letter, many in _LOOKS_LIKE.items() for like in many if letter and ord(like) > 127}
    | dict.fromkeys("іїιıɩ", "i")
)
_DOMAINS: Final = {brand: frozenset(domains.split()) for brand, domains in BRANDS.items()}
_OWNED: Final = frozenset().union(*_DOMAINS.values())
_SKELETONS: Final = {skeleton(brand): brand for brand in BRANDS}
_NEAR: Final = {
    brand[0]: tuple(one for one in BRANDS if one[0] == brand[0] and len(one) >= 7)
    for brand in BRANDS
    if len(brand) >= 7
}
_DOMAINS_OVER_THREE: Final = tuple(sorted(domain for domain in _OWNED if len(domain) > 6))
_BESIDE: Final = OFFICIAL | frozenset("id 365 pay prime bank com de the your".split())
