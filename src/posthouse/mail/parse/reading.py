"""What a part holds: its octets, its text, and the words of a whole message."""

from __future__ import annotations

import re
from collections.abc import Iterator

from posthouse.mail.parse import charsets, html
from posthouse.mail.parse.decoding import decoded as _octets
from posthouse.mail.parse.fields import Raw, read_block
from posthouse.mail.parse.parameters import media_type
from posthouse.mail.parse.words import clean
from posthouse.mail.parsed import Parsed, Part

PREVIEW = 256
"""Characters of a preview."""
_TAKEN = (768, 8192)  # octets of a plain part that are looked at for a preview
_TAKEN_HTML = (16_384, 262_144)
_MAX_INDEXED = 1 << 18
_MARGIN = 65_536
_UNSEEN = re.compile("[\u00ad\u034f\u200b\u2060]+|(?<!\\S)\u200c+(?!\\S)")
_FILLING = "\u00ad\u034f\u200b\u2060\u200c"
_FLOWED = re.compile(r" \r?\n")


def content(message: Raw, part: Part) -> bytes:
    """The part's octets, its transfer encoding undone."""
    return b"".join(decoded(message, part))


def decoded(message: Raw, part: Part) -> Iterator[bytes]:
    """`content` in pieces of at most 64 KB, for parts of any size."""
    return _octets(message, part.body, part.length, part.encoding)


def text(message: Raw, part: Part, most: int) -> str:
    """At most `most` characters of the part's text, lines ending in LF. HTML stays HTML."""
    return _characters(message, part, most * 4 + 4)[:most].replace("\r\n", "\n")


def preview(message: Raw, texts: list[Part], htmls: list[Part]) -> str:
    """At most `PREVIEW` characters of what a reader would see first, blanks made one.

    :param texts: the parts that show the message as text, `htmls` as HTML.
    """
    for part in texts[:4]:
        if part.type == "text/plain":
            found = ""
            for size in _TAKEN:
                found = _seen(_plain_start(message, part, size))
                if len(found) >= PREVIEW - 8 or part.length <= size:
                    break
            if found:
                return found
    for part in htmls[:4]:
        if part.type == "text/html":
            for size in _TAKEN_HTML:
                found = _seen(html.words(_characters(message, part, size)))
                if len(found) >= PREVIEW // 4 or (found and part.length <= size):
                    return found
    return ""


def search_text(message: Raw, parsed: Parsed, *, most: int = _MAX_INDEXED) -> str:
    """What full-text search finds the message by, beside its header: text parts, HTML without
    markup, names of attachments. At most `most` characters.

    The HTML of an alternative is left out where the text says as much.
    """
    out: list[str] = []
    room = most
    shown = set(parsed.text)
    for part in _leaves(parsed.structure):
        if part.name:
            out.append(part.name[:room])
            room -= len(out[-1]) + 1
        if room <= 0:
            break
        if not part.type.startswith("text/"):
            continue
        if part.id in parsed.html and part.id not in shown and _says_enough(parsed, part):
            continue
        words = _words(message, part, room)
        out.append(words)
        room -= len(words) + 1
    return "\n".join(out)[:most]


def _says_enough(parsed: Parsed, part: Part) -> bool:
    """Whether the text beside an HTML part is more than a link to it: its markup is most of it."""
    beside = sum(
        each.size for each in _leaves(parsed.structure) if each.id in parsed.text and each.type == "text/plain"
    )
    return beside * 12 >= part.size


def _words(message: Raw, part: Part, room: int) -> str:
    if part.type == "text/html":
        return " ".join(html.words(text(message, part, min(room * 8, 8 * _MAX_INDEXED))).split())[:room]
    return text(message, part, room)


def _leaves(part: Part) -> Iterator[Part]:
    waiting = [part]
    while waiting:
        each = waiting.pop()
        if each.children:
            waiting.extend(reversed(each.children))
        else:
            yield each


def _characters(message: Raw, part: Part, octets: int) -> str:
    """The text of the first `octets` of content."""
    taken: list[bytes] = []
    size = 0
    chunk = max(min(octets * 2, 65_536), 256)
    length = min(part.length, octets * 4 + _MARGIN)  # what is not content at all is not searched for it
    for piece in _octets(message, part.body, length, part.encoding, chunk):
        taken.append(piece)
        size += len(piece)
        if size >= octets:
            break
    data = b"".join(taken)
    whole = size < octets and length == part.length
    charset = part.charset
    if part.type == "text/html" and (charset is None or not charsets.codec(charset)) and not data.isascii():
        charset = charsets.declared_in_html(data) or charset
    return charsets.decode(data if whole else data[:octets], charset, whole=whole)


def _plain_start(message: Raw, part: Part, most: int) -> str:
    length = min(part.length, most)
    data = next(_octets(message, part.body, length, part.encoding, length), b"") if length else b""
    start = charsets.decode(data, part.charset, whole=length == part.length)
    if " \r\n" in start and _has_delsp(message, part):
        start = _FLOWED.sub("", start)
    return start


def _has_delsp(message: Raw, part: Part) -> bool:
    """RFC 3676 §4.1: `format=flowed; delsp=yes`, where the blank of a soft line break is none."""
    block = read_block(message, part.header, part.header + part.header_length)
    for name, value, _ in block.fields:
        if name.lower() == b"content-type":
            return media_type(value)[1].get("delsp", "").lower() == "yes"
    return False


def _seen(start: str) -> str:
    start = " ".join(start[: PREVIEW * 64].split())
    # What senders fill the preview with, so that nothing follows their own words.
    if not start.isascii() and any(c in start for c in _FILLING):
        start = " ".join(_UNSEEN.sub("", start[: PREVIEW * 2]).split())
    return clean(start, PREVIEW)
