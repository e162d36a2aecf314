"""Character sets as mail names them, rightly or wrongly.

Names are looked up in a closed list: Python's own look-up imports modules by name and remembers
each that it does not know. ASCII and Latin-1 are read as Windows-1252, which is what is meant
(WHATWG Encoding §4.2); GB 2312 as GB 18030, KS C 5601 as CP949, which hold them.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from contextlib import suppress
from encodings.aliases import aliases
from functools import lru_cache
from typing import Final

_NOT_TEXT = frozenset(
    "base64_codec bz2_codec hex_codec quopri_codec rot_13 uu_codec zlib_codec mbcs oem punycode idna undefined"
    " unicode_escape raw_unicode_escape cp037 cp1026 cp1140 cp273 cp424 cp500 cp875".split()
)
_MORE = "koi8_r koi8_u koi8_t cp720 cp737 cp856 cp874 cp1006 cp65001 utf_8_sig iso8859_1 mac_arabic".split()
_MEANT = {
    "ascii": "",
    "latin_1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
    "utf_8_sig": "utf_8",
    "iso8859_1": "cp1252",
    "iso8859_11": "cp874",
    "iso8859_9": "cp1254",
    "iso2022_jp": "iso2022_jp_ext",
    "cp65001": "utf_8",
    "utf8mb4": "utf_8",
    "utf8mb3": "utf_8",
    "unicode_1_1_utf_8": "utf_8",
    "unicode_1_1_utf_7": "utf_7",
    "unicode": "utf_16",
    "sjis": "cp932",
    "ks_c_5601": "cp949",
    "ansi": "cp1252",
    "iso8859_8_i": "iso8859_8",
    "iso8859_8_e": "iso8859_8",
    "iso8859_6_i": "iso8859_6",
    "visual": "iso8859_8",
    "unknown_8bit": "",
    "8bit": "",
    "unknown": "",
    "default": "",
    "us_ascii": "",
    "ansi_x3_4_1968": "",
    "ansi_x3_4": "",
    "macintosh": "mac_roman",
    "windows_31j": "cp932",
    "cswindows31j": "cp932",
    "ms932": "cp932",
    "windows_949": "cp949",
    "windows_936": "gb18030",
    "windows_874": "cp874",
    "eucjp_ms": "euc_jp",
    "cp51932": "euc_jp",
    "iso_2022_jp_ms": "iso2022_jp_ext",
    "cp50220": "iso2022_jp_ext",
    "cp50221": "iso2022_jp_ext",
}
_KNOWN: Final = (
    {name: codec for name, codec in aliases.items() if codec not in _NOT_TEXT}
    | {codec: codec for codec in [*aliases.values(), *_MORE] if codec not in _NOT_TEXT}
)  # fmt: skip
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_ISO = re.compile(r"iso_?8859_?")
_NOT_ASCII = re.compile("utf_16|utf_32|utf_7|iso2022|hz")
_META = re.compile(rb"""<meta\b[^>]{0,200}?charset\s{0,8}=\s{0,8}["']?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)


@lru_cache(maxsize=512)
def codec(charset: str) -> str | None:
    """Python's codec for a declared name, "" where it says nothing (ASCII), None when nobody
    knows it."""
    name = _SEPARATORS.sub("_", charset[:60].lower()).strip("_")
    for form in (name, name.removeprefix("x_"), _ISO.sub("iso8859_", name), name.replace("_", "")):
        for listed in (_MEANT.get(form), _KNOWN.get(form)):
            if listed is not None:
                return _MEANT.get(listed, listed)
    return None


@lru_cache(maxsize=512)
def _is_ascii_superset(charset: str) -> bool:
    return _NOT_ASCII.match(codec(charset) or "") is None


def decode(data: bytes, charset: str | None, *, whole: bool = True) -> str:
    """Text of octets, whatever they are; what cannot be read becomes U+FFFD.

    :param whole: False when `data` may end inside a character; that one is dropped.
    """
    if data.isascii() and b"\x1b" not in data and (charset is None or _is_ascii_superset(charset)):
        return data.decode("ascii")
    name = codec(charset) if charset else ""
    if not name:
        return guess(data, whole=whole)
    if name == "cp1252":
        return _windows(data)
    for errors in ("strict", "replace"):
        try:
            return getincrementaldecoder(name)(errors).decode(data, whole)
        except (UnicodeError, ValueError):  # some codecs cannot replace
            if name == "utf_8":
                return _damaged_utf8(data, whole=whole)
    return guess(data, whole=whole)


def guess(data: bytes, *, whole: bool = True) -> str:
    """UTF-8 when it is valid, else Windows-1252; ISO-2022 where it shifts to two octets."""
    if b"\x1b$" in data and data.isascii():
        for name in ("iso2022_jp_ext", "iso2022_kr"):
            with suppress(UnicodeDecodeError):
                return getincrementaldecoder(name)("strict").decode(data, whole)
    try:
        return getincrementaldecoder("utf-8")("strict").decode(data, whole)
    except UnicodeDecodeError:
        return _windows(data)


def declared_in_html(html: bytes) -> str | None:
    """The charset of a `<meta>` in the first 2 KB, when it is one that we know."""
    found = _META.search(html, 0, 2048)
    name = found[1].decode("ascii") if found else ""
    return name if name and codec(name) is not None else None


def _damaged_utf8(data: bytes, *, whole: bool) -> str:
    text = getincrementaldecoder("utf-8")("replace").decode(data, whole)
    if any(c > "\x7f" and c != "\ufffd" for c in text):
        return text
    return _windows(data)  # none of it is UTF-8


def _windows(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # five octets stand for nothing there
        return data.decode("latin-1")
