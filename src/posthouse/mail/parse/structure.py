"""The tree of parts (RFC 2045, 2046) with where each lies. Top down: a multipart is cut by its
own boundary first, so an outer boundary ends every part inside, as RFC 2046 §5.1.2 wants.

Ids are IMAP's section numbers (RFC 9051 §6.4.5). Two nodes have none there: a multipart that is
the whole message is `0`, one that is the whole of an attached message `2` is `2.0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from posthouse.mail.parse import charsets, decoding
from posthouse.mail.parse.fields import Block, Raw, read_block
from posthouse.mail.parse.parameters import disposition, file_name, media_type
from posthouse.mail.parse.words import clean, unfolded
from posthouse.mail.parsed import Part

MAX_DEPTH = 100
MAX_PARTS = 10_000
_MAX_BOUNDARY = 998
_FALSE = 64  # lines that only look like delimiters
_MAX_ID = 998  # characters of a Content-ID
_CHECKED = 65_536  # octets of a base64 part that are looked through
# Octets that boundaries are searched through, beyond which parts are kept closed: levels by
# size, so that 36 MB a hundred levels deep take no longer than a second or two.
_SEARCHED = 64 << 20
_SEARCHED_TIMES = 8

_CLOSING = rb"(--)?[ \t]*+"
_DELIMITER_END = re.compile(_CLOSING + rb"(?:\r?\n|\Z)")
_GUESSED = re.compile(rb"--([!-~]{1,70})[ \t]*\r?\n(?i:content-)")
_NOT_IN_ENCODING = re.compile(r"[\s;(\"].*", re.DOTALL)
_MESSAGES = frozenset({"message/rfc822", "message/global"})
_ENCODINGS = {
    "8bits": "8bit",
    "7bits": "7bit",
    "8-bit": "8bit",
    "7-bit": "7bit",
    "quoted_printable": "quoted-printable",
}

Fields = dict[bytes, bytes]
"""Lower-case name → the first value."""


class Structure:
    """Makes the tree of one message. `flaws` gathers what was wrong."""

    __slots__ = ("_ascii", "_budget", "_message", "_parts", "flaws")

    def __init__(self, message: Raw, *, is_ascii: bool, flaws: set[str]) -> None:
        self._message = message
        self._ascii = is_ascii
        self._parts = 0
        self._budget = max(_SEARCHED, _SEARCHED_TIMES * len(message))
        self.flaws = flaws

    def root(self, fields: Fields, body: int, end: int) -> Part:
        """The message itself, its header read before."""
        return self._part(fields, 0, body, end, within="", number=0, depth=0, default="text/plain")

    def _entity(self, start: int, end: int, within: str, number: int, depth: int, default: str) -> Part:
        block = read_block(self._message, start, end)
        if block.flaws:
            self.flaws.update(block.flaws)
        return self._part(_content_fields(block), start, block.body, end, within, number, depth, default)

    def _part(
        self, fields: Fields, start: int, body: int, end: int, within: str, number: int, depth: int, default: str
    ) -> Part:
        """:param within: what ids in here begin with, such as `2.`.
        :param number: 0 for the whole of a message."""
        self._parts += 1
        value = fields.get(b"content-type")
        kind, typed = media_type(value) if value is not None else (default, _NO_PARAMETERS)
        if kind is None:
            kind = "text/plain"
            self.flaws.add("bad_content_type")
        encoding = self._encoding(fields.get(b"content-transfer-encoding"))
        children: tuple[Part, ...] = ()
        if kind.startswith("multipart/"):
            own = f"{within}{number}"
            inside = within if number == 0 else f"{own}."
            if encoding not in decoding.IDENTITY:
                self.flaws.add("encoded_composite")
                encoding = "7bit"
            if self._may_open(depth, end - body):
                children = self._children(kind, typed.get("boundary", ""), body, end, inside, depth + 1)
        else:
            own = f"{within}{number or 1}"
            if kind in _MESSAGES:
                children = self._attached(encoding, body, end, own, depth + 1)
            else:
                self._check_leaf(kind, encoding, typed, body, end)
        return self._made(own, kind, typed, fields, encoding, (start, body, end), children)

    def _made(
        self,
        own: str,
        kind: str,
        typed: dict[str, str],
        fields: Fields,
        encoding: str,
        place: tuple[int, int, int],
        children: tuple[Part, ...],
    ) -> Part:
        start, body, end = place
        charset = typed.get("charset")
        disposed, name, cid, language, location = None, None, None, None, None
        value = fields.get(b"content-disposition")
        parameters = _NO_PARAMETERS
        if value is not None:
            disposed, parameters = disposition(value)
        if parameters or typed:
            name = file_name(parameters, typed)
        if len(fields) > 2:
            cid = _cid(fields.get(b"content-id"))
            language = _plain(fields.get(b"content-language"))
            location = _plain(fields.get(b"content-location"))
        counted = kind.startswith("text/") or kind in _MESSAGES
        return Part(
            own,
            kind,
            start,
            body - start,
            body,
            end - body,
            decoding.decoded_size(self._message, body, end - body, encoding),
            encoding,
            clean(charset.lower(), 60) if charset else None,
            disposed,
            name,
            cid,
            language,
            location,
            decoding.count(self._message, b"\n", body, end) if counted else 0,
            children,
        )

    def _may_open(self, depth: int, size: int) -> bool:
        self._budget -= size
        if depth >= MAX_DEPTH or self._budget < 0:
            self.flaws.add("too_deep")
            return False
        return True

    def _encoding(self, value: bytes | None) -> str:
        if value is None:
            return "7bit"
        name = value.strip().lower().decode("latin-1")
        if name in decoding.KNOWN:
            return name
        name = _NOT_IN_ENCODING.sub("", unfolded(value).strip("\"' ").lower())
        name = _ENCODINGS.get(name, name)
        if name not in decoding.KNOWN:
            self.flaws.add("unknown_encoding")
        return clean(name, 60) or "7bit"

    def _check_leaf(self, kind: str, encoding: str, typed: dict[str, str], body: int, end: int) -> None:
        charset = typed.get("charset")
        if charset and kind.startswith("text/") and charsets.codec(charset) is None:
            self.flaws.add("unknown_charset")
        if encoding == "base64":
            if not decoding.is_base64(self._message[body : min(end, body + _CHECKED)]):
                self.flaws.add("bad_base64")
        elif not self._ascii and encoding == "7bit" and not is_ascii(self._message, body, end):
            self.flaws.add("mime_in_8bit")

    def _attached(self, encoding: str, body: int, end: int, own: str, depth: int) -> tuple[Part, ...]:
        """What an attached message consists of: one part, which may be a multipart."""
        if encoding not in decoding.IDENTITY:
            self.flaws.add("encoded_composite")
            return ()
        if not self._may_open(depth - 1, end - body):
            return ()
        if self._parts >= MAX_PARTS:
            self.flaws.add("too_many_parts")
            return ()
        return (self._entity(body, end, f"{own}.", 0, depth, "text/plain"),)

    def _children(self, kind: str, boundary: str, body: int, end: int, inside: str, depth: int) -> tuple[Part, ...]:
        default = "message/rfc822" if kind == "multipart/digest" else "text/plain"
        found: list[Part] = []
        delimiter = boundary[: _MAX_BOUNDARY + 1].rstrip().encode("utf-8", "replace")
        if 0 < len(delimiter) <= _MAX_BOUNDARY:
            self._cut(delimiter, (body, end), inside, depth, default, found)
        if not found:
            # A boundary that lacks or occurs nowhere: that of the first line may be meant.
            self.flaws.add("no_boundary")
            guessed = _GUESSED.match(self._message, body, min(end, body + 1000))
            if guessed is not None:
                self._cut(guessed[1], (body, end), inside, depth, default, found)
        if not found and end > body and self._parts < MAX_PARTS:
            found.append(self._part({}, body, body, end, inside, 1, depth, "text/plain"))
        return tuple(found)

    def _cut(
        self, boundary: bytes, place: tuple[int, int], inside: str, depth: int, default: str, found: list[Part]
    ) -> None:
        for number, (start, stop) in enumerate(self._ranges(boundary, *place), 1):
            if self._parts >= MAX_PARTS:
                self.flaws.add("too_many_parts")
                return
            found.append(self._entity(start, stop, inside, number, depth, default))

    def _ranges(self, boundary: bytes, body: int, end: int) -> Iterator[tuple[int, int]]:
        """Where the parts between delimiters lie, without the line end before the next one."""
        message = self._message
        start = -1
        for at, after, closes in _delimiters(message, boundary, body, end):
            if start >= 0:
                stop = at - 1
                if stop > start and message[stop - 1 : stop] == b"\r":
                    stop -= 1
                yield start, max(start, stop)
            if closes:
                return
            start = after
        if start >= 0:
            self.flaws.add("no_close")
            if start < end:
                yield start, end


_NO_PARAMETERS: dict[str, str] = {}


def is_ascii(message: Raw, start: int, end: int) -> bool:
    """Whether all octets in `start:end` are ASCII; without copying more than a chunk."""
    if isinstance(message, bytes) and end - start <= decoding.CHUNK:
        return message[start:end].isascii()
    chunks = (message[at : min(at + decoding.CHUNK, end)] for at in range(start, end, decoding.CHUNK))
    return all(chunk.isascii() for chunk in chunks)


def _delimiters(message: Raw, boundary: bytes, body: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Where each delimiter line begins, where the line after it does, and whether it closes. A
    line that only begins like one is none, as one boundary may begin with another."""
    first = b"--" + boundary
    needle = b"\n" + first
    width = len(first)
    at = body if message[body : min(body + width, end)] == first else _after_newline(message, needle, body, end)
    false = 0
    while at >= 0:
        line = _DELIMITER_END.match(message, at + width, end)
        if line is not None:
            yield at, line.end(), line[1] is not None
            at = _after_newline(message, needle, line.end() - 1, end)
            continue
        false += 1
        if false > _FALSE:  # a flood of what looks like one: the regex engine passes over it faster
            yield from _flooded(message, needle, at + width, end)
            return
        at = _after_newline(message, needle, at + width, end)


def _after_newline(message: Raw, needle: bytes, start: int, end: int) -> int:
    at = message.find(needle, start, end)
    return at + 1 if at >= 0 else -1


def _flooded(message: Raw, needle: bytes, at: int, end: int) -> Iterator[tuple[int, int, bool]]:
    pattern = re.compile(re.escape(needle) + _CLOSING + rb"(?=\r?\n|\Z)")
    for line in pattern.finditer(message, at, end):
        after = message.find(b"\n", line.end(), line.end() + 2) + 1
        yield line.start() + 1, after if 0 < after <= end else end, line[1] is not None


def _content_fields(block: Block) -> Fields:
    fields: Fields = {}
    for name, value, _ in block.fields:
        key = name.lower()
        if key.startswith(b"content-"):
            fields.setdefault(key, value)
    return fields


def _cid(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = clean(unfolded(value), _MAX_ID)
    start, stop = text.find("<"), text.rfind(">")
    return (text[start + 1 : stop] if 0 <= start < stop else text.strip("<>")) or None


def _plain(value: bytes | None) -> str | None:
    return (clean(unfolded(value), _MAX_ID) or None) if value is not None else None
