"""Header text for people: encoded words (RFC 2047, as written and as often miswritten), raw
UTF-8 (RFC 6532) and raw 8-bit octets."""

from __future__ import annotations

import re
import unicodedata
from binascii import a2b_qp

from posthouse.mail.parse import charsets
from posthouse.mail.parse.decoding import base64_octets

MAX_TEXT = 4000
"""Characters of a decoded header value."""
_MAX_RAW = 65_536  # octets of a value that are looked at

_START = re.compile(r"=\?([A-Za-z0-9_.:+()-]{1,60})(?:\*[A-Za-z0-9-]{0,40})?\?([bBqQ])\?")
_SOUND = re.compile(r"=\?([^?*\s]{1,60})(?:\*[^?\s]{0,40})?\?[bBqQ]\?[^?\s]*\?=")
_SPACES = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]+")
# Controls, overrides of the writing direction, lone surrogates, the byte order mark.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\ud800-\udfff\ufeff]+")
_FOLDS = re.compile(r"\r?\n(?=[ \t])")


def decode_words(value: bytes) -> str:
    """A header's value as text: unfolded, encoded words decoded, cleaned, at most `MAX_TEXT`
    characters."""
    return clean(decoded(unfolded(value)))


def unfolded(value: bytes, most: int = _MAX_RAW) -> str:
    """The value on one line, its raw octets as characters, encoded words as they stand; of more
    than `most` octets only those."""
    whole = len(value) <= most
    value = value.strip() if whole else value[:most].strip()
    text = charsets.decode(value, None, whole=whole)
    return _FOLDS.sub("", text) if "\n" in text else text


def clean(text: str, most: int = MAX_TEXT) -> str:
    """NFC, without control characters, without blanks around, at most `most` characters."""
    text = text[:most]  # normalising a long run of combining marks takes the square of its length
    if not text.isprintable():
        text = _UNWANTED.sub("", _SPACES.sub(" ", text))
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text)[:most].strip()


def decoded(text: str) -> str:
    """`text` with its encoded words decoded.

    Words that stand beside each other in one charset are joined before they are decoded, since
    senders split characters between them. A word that never ends stays as it is.
    """
    if "=?" not in text:
        return text
    out: list[str] = []
    run: list[tuple[str, str]] = []  # kind and content of the words at hand
    charset, last, stop = "", 0, -1
    found = _START.search(text)
    while found is not None:
        begin = found.end()
        if stop < begin:
            stop = text.find("?=", begin)
        if stop < 0:
            break
        inner = _START.search(text, begin, stop)
        if inner is not None:
            found = inner
            continue
        between = text[last : found.start()]
        own = found[1].lower()
        if run and (own != charset or between.strip()):
            out.append(_joined(run, charset))
            run = []
            if not between.isspace():
                out.append(between)
        elif not run and (not out or not between.isspace()):
            out.append(between)
        run.append((found[2].lower(), text[begin:stop]))
        charset, last = own, stop + 2
        found = _START.search(text, last)
    if run:
        out.append(_joined(run, charset))
    out.append(text[last:])
    return "".join(out)


def are_sound(text: str) -> bool:
    """Whether each encoded word in unfolded `text` is whole and in a known charset."""
    words = _SOUND.findall(text)
    return len(words) == len(_START.findall(text)) and all(charsets.codec(word) is not None for word in words)


def _joined(run: list[tuple[str, str]], charset: str) -> str:
    octets: list[bytes] = []
    held = ""
    for kind, content in run:
        if kind == "b":
            held += content
            if len(held) % 4 and not held.endswith("="):
                continue  # base64 that was cut between words
            octets.append(base64_octets(held.encode("ascii", "ignore")))
            held = ""
            continue
        octets.append(base64_octets(held.encode("ascii", "ignore")) if held else b"")
        held = ""
        octets.append(a2b_qp(content.encode("utf-8", "replace"), header=True))
    if held:
        octets.append(base64_octets(held.encode("ascii", "ignore")))
    return charsets.decode(b"".join(octets), charset)
