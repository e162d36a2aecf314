"""What the names in a Maildir say: flags, folders in modified UTF-7, names of new files."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Sequence

FLAGS = {
    "D": "$draft",
    "F": "$flagged",
    "P": "$forwarded",
    "R": "$answered",
    "S": "$seen",
    "T": "$deleted",
}
_INFO = re.compile(r"[:;!]2,([A-Za-z]*)$")
_NUMBER = re.compile("([0-9]{1,100})")
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
_OUTSIDE = re.compile(r"[^\x20-\x25\x27-\x2d\x30-\x7e&]+|&")
_CUSTOM = "abcdefghijklmnopqrstuvwxyz"


def base_name(file: str) -> str:
    """A file's name without its flags: what stays the same while the message is there."""
    return _INFO.sub("", file)


def in_order(file: str) -> list[str | int]:
    """Sorts as the messages came: a name begins with the second, the microsecond and a count, and
    not every program pads them with zeros."""
    return [int(word) if at % 2 else word for at, word in enumerate(_NUMBER.split(base_name(file)))]


def keywords(file: str, custom: Sequence[str] = ()) -> list[str]:
    """What its flags say. `custom`: what the letters a to z mean here (Dovecot's `dovecot-keywords`)."""
    found = _INFO.search(file)
    if found is None:
        return []
    words = {FLAGS[letter] for letter in found[1] if letter in FLAGS}
    words |= {custom[at] for letter in found[1] if (at := _CUSTOM.find(letter)) >= 0 and at < len(custom)}
    return sorted(words)


def flags(words: Collection[str], custom: Sequence[str] = ()) -> str:
    """The suffix of a name, its letters in order as they have to be."""
    standard = [letter for letter, word in FLAGS.items() if word in words]
    own = [_CUSTOM[at] for at, word in enumerate(custom[: len(_CUSTOM)]) if word in words]
    return ":2," + "".join(sorted(standard) + own)


def folder(directory: str) -> tuple[str, ...]:
    """The mailbox of a Maildir++ directory: `.Archive.2026` is Archive, 2026."""
    return tuple(decode(name) for name in directory.removeprefix(".").split(".") if name)


def directory(path: Sequence[str]) -> str:
    """The Maildir++ directory of a mailbox; dots and slashes in a name are encoded."""
    return "." + ".".join(encode(name) for name in path)


def decode(name: str) -> str:
    """From modified UTF-7 (RFC 3501 §5.1.3); what is none stays as it is."""

    def shifted(found: re.Match[str]) -> str:
        if not found[1]:
            return "&"
        packed = found[1].replace(",", "/")
        try:
            octets = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
            return octets.decode("utf-16-be")
        except (ValueError, UnicodeDecodeError):
            return found[0]

    return _SHIFTED.sub(shifted, name)


def encode(name: str) -> str:
    """Into modified UTF-7, with dots and slashes too, which part folders."""
    return _OUTSIDE.sub(_shift, name)


def _shift(found: re.Match[str]) -> str:
    if found[0] == "&":
        return "&-"
    packed = base64.b64encode(found[0].encode("utf-16-be", "surrogatepass")).decode().rstrip("=")
    return "&" + packed.replace("/", ",") + "-"
