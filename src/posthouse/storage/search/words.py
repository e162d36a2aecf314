"""Text to words, the same for what is indexed and what is asked, on every backend.

Words are runs of letters, marks and digits, folded: NFKC, no case, none of the marks that
people leave out when they type (accents, Hebrew and Arabic points). Everything else divides,
so `ann@mail.example` is three words in a row, and is found whole as a phrase and by its
pieces. Scripts written without spaces (Han, kana, Hangul, Thai, Lao, Khmer, Burmese) become
pairs of letters, `東京都` → `東京 京都 都`; the last letter stands alone so that one letter is
found as a beginning. A longer run than `LONGEST` is cut into words of that length.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST = 40
"""Characters of one word."""
MOST = 50_000
"""Words of one text; the rest is not indexed."""
_CHARACTERS_AT_MOST = 1_000_000
"""Of one text that are looked at."""

# Left out when folding: combining accents, Hebrew points, Arabic vowel signs and tatweel,
# variation selectors, and what shows nothing (soft hyphen, joiners, byte order mark).
_DROPPED = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f"
    "\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f"
    "\ufe20-\ufe2f\u00ad\u200c\u200d\u2060\ufeff"
)
# Vowel signs of Indic scripts and Tibetan: parts of a word, although not letters.
_MARKS = "\u0900-\u0963\u0971-\u0df3\u0f71-\u0f84\u0f90-\u0fbc"
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u109f\u1100-\u11ff\u1780-\u17d3\u3005-\u3007\u3041-\u3096"
    "\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u318e\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)

_dropped = re.compile(f"[{_DROPPED}]+")
_unspaced = re.compile(f"[{_UNSPACED}]+")
_ascii_words = re.compile(f"[a-z0-9]{{1,{LONGEST}}}")
_any_words = re.compile(rf"[\w{_MARKS}{_UNSPACED}]{{1,{LONGEST}}}")
_address = re.compile(r"[\w.+-]{1,64}@[\w.-]{1,255}")


def fold(text: str) -> str:
    """As compared: NFKC without case and without the marks that are left out."""
    if text.isascii():
        return text.lower()
    bare = _dropped.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFC", _dropped.sub("", unicodedata.normalize("NFKD", bare.casefold())))


def words(text: str, most: int = MOST) -> list[str]:
    """The words in order, at most `most`. None holds anything but letters, marks and digits."""
    return _split(fold(text[:_CHARACTERS_AT_MOST]))[:most]


def phrase(text: str) -> tuple[tuple[str, ...], bool]:
    """The words that a text holding this text has in a row, and whether the last of them is
    only how a word begins (it is one letter of a script without spaces)."""
    folded = fold(text[:_CHARACTERS_AT_MOST])
    found = _split(folded)
    if not found or not _unspaced.fullmatch(found[-1]):
        return tuple(found), False
    *_, last = _unspaced.finditer(folded)
    if len(last[0]) == 1:
        return tuple(found), True
    return tuple(found[:-1]), False  # its letter is in the pair before; more letters may follow


def addresses(text: str) -> list[str]:
    """The e-mail addresses in the text, whole and folded."""
    return [found.rstrip(".-") for found in _address.findall(fold(text))] if "@" in text else []


def address(text: str) -> str | None:
    """The text as one whole e-mail address, folded, if that is all it is."""
    folded = fold(text)
    return folded if _address.fullmatch(folded) and folded[-1] not in ".-" else None


def _split(folded: str) -> list[str]:
    if folded.isascii():
        return _ascii_words.findall(folded)
    if "_" in folded:
        folded = folded.replace("_", " ")
    if _unspaced.search(folded):
        folded = _unspaced.sub(_pairs, folded)
    return _any_words.findall(folded)


def _pairs(run: re.Match[str]) -> str:
    letters = run[0]
    return f" {' '.join([letters[at : at + 2] for at in range(len(letters))])} "
