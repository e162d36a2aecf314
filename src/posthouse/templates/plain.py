"""A text part from HTML: readable, with the template's expressions where they were."""

from __future__ import annotations

import html
import re

from posthouse.templates.language import Kind, Segment
from posthouse.templates.markup import VOID, Masked, Part, Piece, attributes, pieces

_SKIPPED = frozenset("style script title noscript iframe textarea xmp head template svg select".split())
_PARAGRAPH = frozenset("p h1 h2 h3 h4 h5 h6 ul ol dl table blockquote pre hr".split())
_LINE = frozenset(
    "div tr li dt dd section article header footer main nav aside address center form fieldset figure "
    "figcaption thead tbody tfoot caption body html".split()
)
_CELL = frozenset({"td", "th"})
_SPACE = re.compile(r"[ \t\r\n\f]+")
_LANGUAGE = re.compile(r"\{(?=[{%#])")
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)


def derive(masked: Masked) -> str:
    """Paragraphs apart by an empty line, list items behind `- ` or `1. `, cells two spaces
    apart, links as `text (url)`, images by their alternative text. What is hidden is left out."""
    writer = _Writer(masked)
    for piece in pieces(masked.text):
        writer.take(piece)
    return masked.restore(writer.text(), _plain)


def _plain(segment: Segment) -> str:
    """Without the marks that eat blanks: the lines here are others than in the HTML."""
    if segment.kind is Kind.COMMENT:
        return ""
    if segment.kind is Kind.RAW:
        return segment.source
    source = segment.source
    start = 3 if source[2] in "-+" else 2
    end = len(source) - (3 if source[-3] in "-+" else 2)
    return f"{source[:2]} {source[start:end].strip()} {source[-2:]}"


class _Writer:
    def __init__(self, masked: Masked) -> None:
        self._masked = masked
        self._out: list[str] = []
        self._breaks = 0
        """Line ends to write before the next text."""
        self._space = False
        self._skip: list[str] = []
        """Open elements within one that is left out, that one first."""
        self._links: list[tuple[str, int]] = []
        self._lists: list[int | None] = []
        """The number of the last item; None: not numbered."""
        self._pre = 0
        self._loops = any(
            segment.kind is Kind.STATEMENT and segment.tokens[0].value == "for" for segment in masked.segments
        )

    def take(self, piece: Piece) -> None:
        if self._skip:
            self._take_hidden(piece)
        elif piece.part is Part.TEXT:
            self._text(piece.source)
        elif piece.part is Part.OPEN:
            self._open(piece)
        elif piece.part is Part.CLOSE:
            self._close(piece.name)

    def text(self) -> str:
        lines = "".join(self._out).split("\n")
        return "\n".join(line.rstrip(" ") for line in lines).strip("\n") + "\n"

    def _take_hidden(self, piece: Piece) -> None:
        """Statements count even where text does not: an `if` in a hidden part must still end."""
        if piece.part is Part.OPEN and piece.name == self._skip[0]:
            self._skip.append(piece.name)
        elif piece.part is Part.CLOSE and piece.name == self._skip[0]:
            self._skip.pop()
        for mark in self._masked.marks(piece.source):
            if self._masked.segments[mark].kind is Kind.STATEMENT:
                self._out.append(self._masked.mark_of(mark))

    def _open(self, piece: Piece) -> None:
        name = piece.name
        found = dict(reversed(attributes(piece.source))) if " " in piece.source or "\n" in piece.source else {}
        if name in _SKIPPED or (name not in VOID and _HIDDEN.search(found.get("style", ""))):
            self._skip.append(name)
            self._statements(piece.source)
            return
        self._statements(piece.source)
        self._break(name)
        if name == "br":
            self._breaks += 1
        elif name == "hr":
            self._write("-" * 20)
            self._breaks = 2
        elif name in _CELL:
            self._space = False
            if self._breaks == 0 and self._out:
                self._out.append("  ")
        elif name in {"ul", "ol"}:
            self._lists.append(0 if name == "ol" and not self._loops else None)
        elif name == "li":
            self._item()
        elif name == "img" and found.get("alt"):
            self._text(found["alt"])
        elif name == "a":
            self._links.append((self._address(found.get("href", "")), len(self._out)))
        elif name == "pre":
            self._pre += 1

    def _close(self, name: str) -> None:
        if name == "a" and self._links:
            self._end_link(*self._links.pop())
        elif name in {"ul", "ol"} and self._lists:
            self._lists.pop()
        elif name == "pre" and self._pre:
            self._pre -= 1
        self._break(name)

    def _break(self, name: str) -> None:
        if name in _PARAGRAPH and not (name in {"ul", "ol"} and self._lists):
            self._breaks = max(self._breaks, 2)
        elif name in _LINE or name in {"ul", "ol"}:
            self._breaks = max(self._breaks, 1)

    def _item(self) -> None:
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        indent = "  " * (len(self._lists) - 1)
        self._write(f"{indent}{number + 1}. " if number is not None else f"{indent}- ")
        self._space = False

    def _end_link(self, address: str, start: int) -> None:
        shown = "".join(self._out[start:]).strip()
        if not address or address.startswith("#") or address in {shown, f"mailto:{shown}", f"tel:{shown}"}:
            return
        self._write(f" ({address})" if shown else address)

    def _address(self, href: str) -> str:
        return self._literal(html.unescape(href.strip()))

    def _statements(self, source: str) -> None:
        """Expressions within a tag are its attributes' matter; statements there must stay
        balanced, and an `if` around an attribute says nothing in a text: all are dropped
        together, as a tag holds whole ones. What it sets is kept."""
        for mark in self._masked.marks(source):
            segment = self._masked.segments[mark]
            if segment.kind is Kind.STATEMENT and segment.tokens[0].value == "set":
                self._out.append(self._masked.mark_of(mark))

    def _text(self, source: str) -> None:
        at = 0
        for found in self._masked.mark.finditer(source):
            self._words(source[at : found.start()])
            if self._masked.segments[int(found[1])].kind is Kind.STATEMENT:
                self._statement(found.group(), int(found[1]))
            else:
                self._write(found.group())
            at = found.end()
        self._words(source[at:])

    def _statement(self, mark: str, number: int) -> None:
        """Line ends that are due come behind it, so that each turn of a loop begins its line
        and a branch that is not taken leaves nothing."""
        if self._space and not self._breaks:
            self._out.append(" ")
            self._space = False
        if self._breaks == 2 and self._out and self._masked.segments[number].tokens[0].value == "for":
            self._out.append("\n")
            self._breaks = 1
        self._out.append(mark)

    def _words(self, source: str) -> None:
        text = self._literal(html.unescape(source))
        if self._pre:
            if text:
                self._write(text)
            return
        text = _SPACE.sub(" ", text)
        if text.startswith(" "):
            self._space = True
        words = text.strip(" ")
        if words:
            self._write(words)
            self._space = text.endswith(" ")

    def _write(self, text: str) -> None:
        if self._breaks:
            if self._out:
                self._out.append("\n" * min(self._breaks, 2))
        elif self._space and self._out:
            self._out.append(" ")
        self._breaks = 0
        self._space = False
        self._out.append(text)

    def _literal(self, text: str) -> str:
        """What entities or joins make look like the template language is text."""
        return _LANGUAGE.sub('{{ "{" }}', text).replace("\0", "")
