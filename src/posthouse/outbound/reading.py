"""JSON bytes to a frozen type, in one pass, with a JSON pointer (RFC 6901) for what is wrong."""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast

import msgspec

from posthouse.errors import Fault, Invalid, Malformed

T = TypeVar("T")

_AT = re.compile(r" - at `(key` in `)?\$([^`]*)`$")
_FIELD = re.compile(r"Object (contains unknown|missing required) field `([^`]*)`")
_MATCHING = re.compile(r"matching regex")
_BYTE = re.compile(r"^(?:JSON is malformed: )?(.*?) \(byte (\d+)\)$")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]|(\[\.\.\.\])")
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "datetime": "time (RFC 3339)"}
_CONTROL = re.compile(r"[\r\n\x00]")
_MOST_MESSAGE = 300
_NUL = b"\\u0000"


def read(decoder: msgspec.json.Decoder[T], data: bytes, *, base: str = "", nul: bool = False) -> T:
    """
    :param base: the pointer of `data` in the whole body, for the faults.
    :param nul: let NUL characters through, for a reader that keeps parts raw.
    :raises Malformed: not JSON, not UTF-8 or too deep; the detail says where.
    :raises Invalid: JSON of another shape than the type's, or text with NUL.
    """
    try:
        value = decoder.decode(data)
    except msgspec.ValidationError as error:
        raise invalid(error, data, base) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed(error, data) from None
    except RecursionError:
        raise Malformed("The JSON is nested too deeply", code="malformed_json") from None
    if not nul and _NUL in data:
        _refuse_nul(data, base)
    return value


def invalid(error: msgspec.ValidationError, data: bytes | None = None, base: str = "") -> Invalid:
    """A validation error of msgspec as ours. With `data`, a fault inside a map names its key."""
    text = str(error)
    at = _AT.search(text)
    path = at[2] if at else ""
    pointer, open_map = _pointer(path + "[...]" if at and at[1] else path)
    message = text[: at.start()] if at else text
    field = _FIELD.search(message)
    if field:
        pointer += "/" + _escape(field[2])
        message = "This field is unknown" if field[1].startswith("contains") else "This field is needed"
    elif _MATCHING.search(message):
        message = "This may not contain a line break or NUL"
    elif "RFC3339" in message:
        message = "This has to be a time with its zone (RFC 3339), such as 2027-01-31T08:00:00Z"
    else:
        message = re.sub(r"`([^`]*)`", lambda m: " or ".join(_TYPES.get(t, t) for t in m[1].split(" | ")), message)
    if open_map and data is not None:
        pointer = _blame(data, pointer)
    fault = Fault(base + pointer, message[:_MOST_MESSAGE])
    return Invalid("The request does not have the shape that is needed", faults=(fault,))


def _pointer(path: str) -> tuple[str, bool]:
    """`.to[0].email` is `/to/0/email`; it ends at a map, whose key msgspec does not tell."""
    parts: list[str] = []
    for step in _STEP.finditer(path):
        if step[3]:
            return "".join(parts), True
        parts.append("/" + (step[1] or step[2]))
    return "".join(parts), False


def _blame(data: bytes, pointer: str) -> str:
    """The first entry of the map at `pointer` that is not a string of one line."""
    try:
        value: Any = msgspec.json.decode(data)
        for step in pointer.split("/")[1:]:
            value = value[int(step)] if isinstance(value, list) else value[step]
    except (ValueError, LookupError, TypeError, RecursionError):
        return pointer
    if isinstance(value, dict):
        for key, entry in cast(dict[str, Any], value).items():
            if not isinstance(entry, str) or _CONTROL.search(entry) or _CONTROL.search(key) or len(entry) > 2000:
                return f"{pointer}/{_escape(key)}"
    return pointer


def _malformed(error: Exception, data: bytes) -> Malformed:
    if isinstance(error, UnicodeDecodeError):
        return Malformed("The body is not UTF-8", code="malformed_json")
    where = _BYTE.match(str(error))
    if where is None:
        what = "The body is empty" if not data.strip() else "The JSON ends too early"
        return Malformed(what, code="malformed_json")
    offset = int(where[2])
    line = data.count(b"\n", 0, offset) + 1
    column = offset - data.rfind(b"\n", 0, offset)
    return Malformed(
        f"The JSON is malformed at line {line}, column {column} (byte {offset}): {where[1]}", code="malformed_json"
    )


def _refuse_nul(data: bytes, base: str) -> None:
    """Look again at a body that may hold an escaped NUL; breadth first, without recursion."""
    try:
        whole = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # in a field that the type passed over
        raise _malformed(error, data) from None
    waiting: list[tuple[str, Any]] = [(base, whole)]
    for pointer, value in waiting:
        if isinstance(value, str) and "\x00" in value:
            message = "This may not contain NUL"
            raise Invalid(message, faults=(Fault(pointer, message),))
        if isinstance(value, list):
            waiting.extend((f"{pointer}/{i}", entry) for i, entry in enumerate(cast(list[Any], value)))
        elif isinstance(value, dict):
            for key, entry in cast(dict[str, Any], value).items():
                inner = f"{pointer}/{_escape(key)}"
                waiting.extend(((inner, entry), (inner, key)))


def _escape(step: str) -> str:
    """RFC 6901 §3, and no longer than a name may sensibly be."""
    return step[:100].replace("~", "~0").replace("/", "~1").replace("\x00", "�")
