"""`type/subtype; name=value` (RFC 2045 §5.1) with RFC 2231's continuations and charsets, and the
forms that clients write instead: encoded words, values without quotes, quotes without end."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from posthouse.mail.parse import charsets
from posthouse.mail.parse.comments import without_comments
from posthouse.mail.parse.words import clean, decoded, unfolded

MAX_PARAMETERS = 100
MAX_NAME = 255
"""Characters of a file's name."""
_MAX_SEGMENTS = 1000  # of one parameter, RFC 2231 §3

_WORD = "[!#$%&'*+.0-9A-Z^_`a-z{|}~-]{1,127}"
_TYPE = re.compile(rf"({_WORD}) ?/ ?({_WORD})[ \t]*(?:[;(]|$)")
# A quoted value that never ends goes up to the end; so each octet is looked at once.
_PARAMETER = re.compile(r';\s*+([^\s=;"]{1,127})\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)(?:"|$)[^;]*+|([^;]*+))', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')  # a lone backslash is a Windows path, not an escape
_SEGMENT = re.compile(r"(.+?)\*(?:([0-9]{1,3})(\*)?)?")


def media_type(value: bytes) -> tuple[str | None, dict[str, str]]:
    """Lower-case `type/subtype`, None when it is not one, and its parameters by lower-case name."""
    if len(value) < 64 and b"oundary" not in value:
        return _media_type(value)
    return _read_type(unfolded(value))


@lru_cache(maxsize=1024)
def _media_type(value: bytes) -> tuple[str | None, dict[str, str]]:
    return _read_type(unfolded(value))


def _read_type(text: str) -> tuple[str | None, dict[str, str]]:
    if "(" in text and "name" not in text:
        text = without_comments(text)
    found = _TYPE.match(text)
    if found is None:
        return None, parameters(text) if ";" in text else {}
    kind = f"{found[1]}/{found[2]}".lower()
    return kind, parameters(text) if ";" in text else {}


def disposition(value: bytes) -> tuple[str | None, dict[str, str]]:
    """Lower-case disposition and its parameters (RFC 2183)."""
    text = unfolded(value)
    kind = text.partition(";")[0].partition("(")[0].strip().lower()
    if "=" in kind:  # filename="x" alone
        return None, parameters(";" + text)
    return clean(kind, 60) or None, parameters(text) if ";" in text else {}


def parameters(text: str) -> dict[str, str]:
    """Name → value, after the first semicolon. Of two with one name, the first; the extended form
    of RFC 2231 goes before the plain one (§4.1)."""
    plain: dict[str, str] = {}
    segments: dict[str, dict[int, tuple[str, bool]]] = {}
    for found, _ in zip(_PARAMETER.finditer(text), range(_MAX_SEGMENTS), strict=False):
        name = found[1].lower()
        value = found[2]
        if value is None:
            value = found[3].strip()
            if "(" in value and "name" not in name:
                value = value.partition("(")[0].strip()
        elif "\\" in value:
            value = _ESCAPED.sub(r"\1", value)
        if "*" not in name:
            if len(plain) < MAX_PARAMETERS:
                plain.setdefault(name, value)
        elif (part := _SEGMENT.fullmatch(name)) is not None:
            encoded = part[2] is None or part[3] is not None
            segments.setdefault(part[1], {}).setdefault(int(part[2] or 0), (value, encoded))
    for name, values in segments.items():
        if 0 in values and len(plain) < MAX_PARAMETERS:
            plain[name] = _assembled(values)
    return plain


def file_name(disposed: dict[str, str], typed: dict[str, str]) -> str | None:
    """The file's name from `filename` or else `name`, decoded, without directories."""
    name = disposed.get("filename") or typed.get("name")
    if not name:
        return None
    name = clean(decoded(name[:8192]), 4096)
    name = name[max(name.rfind("/"), name.rfind("\\")) + 1 :].strip()
    return _shortened(name) if name not in {"", ".", ".."} else None


def _shortened(name: str) -> str:
    """At most `MAX_NAME` characters, with its extension."""
    if len(name) <= MAX_NAME:
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 20:
        return name[:MAX_NAME]
    return stem[: MAX_NAME - 1 - len(extension)] + dot + extension


def _assembled(values: dict[int, tuple[str, bool]]) -> str:
    """Segments in their order, up to the first that lacks; octets are joined before they are
    decoded, since segments split characters."""
    first, first_encoded = values[0]
    charset = ""
    if first_encoded:
        head = first.split("'", 2)
        if len(head) == 3:
            charset, first = head[0], head[2]
    octets: list[bytes] = []
    for number in range(len(values)):
        value, encoded = values.get(number, ("", False))
        if number not in values:
            break
        if number == 0:
            value = first
        octets.append(unquote_to_bytes(value) if encoded else value.encode("utf-8", "replace"))
    return charsets.decode(b"".join(octets), charset or None)
