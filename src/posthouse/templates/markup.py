"""HTML as a flat run of tokens, with template expressions kept whole.

A source is first masked: each segment of the template language becomes a mark, a word of
letters and digits that occurs nowhere in the source, so that no HTML or CSS parser trips over
it. Tokens are read in one pass, in linear time whatever the input (HTML Living Standard
§13.2.5, simplified: no tree is made, so nothing is moved or closed).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from posthouse.templates.language import Kind, Segment, safe_products

_MARKUP = re.compile(r"<(?=/?[a-zA-Z]|[!?])")
_TAG_NAME = re.compile(r"</?([a-zA-Z][^\s/>]*)")
_ATTRIBUTE = re.compile(r"""[\s/]*([^\s/>=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"']*)))?""")
_TAG_CHARS = re.compile(r"""[>"'=]|[^\s>"'=]+""")
_RAW_TEXT = frozenset({"style", "script", "title", "textarea", "xmp", "noscript", "iframe"})
VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())


class Part(Enum):
    TEXT = auto()
    OPEN = auto()
    CLOSE = auto()
    COMMENT = auto()
    """Declarations and processing instructions as well."""
    RAW_TEXT = auto()
    """What stands in a style, script, title, textarea …"""


@dataclass(frozen=True, slots=True)
class Piece:
    part: Part
    source: str
    name: str = ""
    """The element's, lower case; of RAW_TEXT the one it stands in."""


class Masked:
    """A source with marks for its template segments."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._prefix = _unused("".join(segment.source for segment in segments).lower())
        self.mark = re.compile(rf"{self._prefix}(\d+)x")
        self.segments = list(segments)
        self.text = "".join(
            segment.source if segment.kind is Kind.TEXT else f"{self._prefix}{n}x" for n, segment in enumerate(segments)
        )

    def restore(self, text: str, write: Callable[[Segment], str] | None = None) -> str:
        """Marks back into the sources of their segments, or what `write` makes of them."""
        segments = self.segments
        return self.mark.sub(
            lambda found: write(segments[int(found[1])]) if write else segments[int(found[1])].source, text
        )

    def mark_of(self, number: int) -> str:
        return f"{self._prefix}{number}x"

    def fold(self, text: str) -> str:
        """One mark for a piece of the masked text."""
        self.segments.append(Segment(Kind.RAW, self.restore(text, safe_products), 0))
        return self.mark_of(len(self.segments) - 1)

    def marks(self, text: str) -> list[int]:
        return [int(number) for number in self.mark.findall(text)]


def _unused(source: str) -> str:
    for n in range(10_000):
        prefix = f"zq{n}v" if n else "zqv"
        if prefix not in source:
            return prefix
    raise ValueError("every mark occurs in the source")


def pieces(text: str) -> Iterator[Piece]:
    """All pieces' sources joined are the text again."""
    at = 0
    while at < len(text):
        piece = _next(text, at)
        at += len(piece.source)
        yield piece
        if piece.part is Part.OPEN and piece.name in _RAW_TEXT:
            inside = _until_close(text, at, piece.name)
            if inside:
                yield Piece(Part.RAW_TEXT, inside, piece.name)
                at += len(inside)


def _next(text: str, at: int) -> Piece:
    opened = _MARKUP.search(text, at)
    if opened is None or opened.start() > at:
        return Piece(Part.TEXT, text[at : opened.start() if opened else len(text)])
    if text.startswith("<!--", at):
        # `<!-->` and `<!--->` are whole comments.
        end = text.find("-->", at + 2)
        return Piece(Part.COMMENT, text[at : end + 3 if end >= 0 else len(text)])
    if text.startswith(("<!", "<?"), at):
        end = text.find(">", at)
        return Piece(Part.COMMENT, text[at : end + 1 if end >= 0 else len(text)])
    named = _TAG_NAME.match(text, at)
    assert named is not None
    end = _tag_end(text, named.end())
    part = Part.CLOSE if text.startswith("</", at) else Part.OPEN
    return Piece(part, text[at:end], named[1].lower())


def _tag_end(text: str, at: int) -> int:
    """Behind the `>` that is not in a quoted value; the end of the text when there is none."""
    quote = ""
    before = ""
    for found in _TAG_CHARS.finditer(text, at):
        char = found.group()
        if quote:
            quote = "" if char == quote else quote
        elif char == ">":
            return found.end()
        elif char in "\"'" and before == "=":
            quote = char
        before = char
    return len(text)


def _until_close(text: str, at: int, name: str) -> str:
    closed = re.compile(rf"</{re.escape(name)}(?=[\s/>])", re.IGNORECASE).search(text, at)
    return text[at : closed.start() if closed else len(text)]


def attributes(tag: str) -> list[tuple[str, str]]:
    """Of a start tag's source: names in lower case, values as they stand (entities kept)."""
    return [(name, value) for name, value, _ in spanned_attributes(tag)]


def spanned_attributes(tag: str) -> list[tuple[str, str, tuple[int, int]]]:
    """With where each lies in the source."""
    named = _TAG_NAME.match(tag)
    if named is None:
        return []
    end = len(tag) - tag.endswith(">")
    return [
        (found[1].lower(), found[2] or found[3] or found[4] or "", (found.start(1), found.end()))
        for found in _ATTRIBUTE.finditer(tag, named.end(), end)
    ]
