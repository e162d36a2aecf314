"""Moves `<style>` rules into `style` attributes, because several mail readers drop the former.

The source is parsed and written again by css-inline, so it is proved afterwards that nothing
of the template was lost, repeated or moved: the same marks in the same order between the same
tags. When that cannot be shown, the source stays as it is, with a warning. Rules that cannot
be inlined (`@media`, `:hover`) stay in a `<style>`. Nothing is ever fetched.
"""

from __future__ import annotations

import re

from css_inline import CSSInliner, InlineError

from posthouse.templates.language import Kind
from posthouse.templates.markup import VOID, Masked, Part, Piece, attributes, pieces, spanned_attributes

# Tags that a parser may add, or end, on its own (HTML Living Standard §13.1.2.4).
_IMPLIED = frozenset({"html", "head", "body", "tbody", "colgroup"})
_SELF_ENDING = frozenset("p li dt dd tr td th thead tfoot option optgroup rt rp".split()) | VOID
MAX_PIECES = 20_000
_LANGUAGE = re.compile(r"\{[{%#]")
_DECLARATION = "--{}:1"


class UnsafeError(ValueError):
    """Why the styles stay where they are."""


def inline(masked: Masked) -> str:
    """The masked text with its styles inlined; unchanged when it has no `<style>`.

    :raises UnsafeError: it cannot be shown that the result means the same.
    """
    before = [_folded(masked, piece) for piece in pieces(masked.text)]
    if len(before) > MAX_PIECES:
        raise UnsafeError("the HTML has too many tags")
    styles = [piece.source for piece in before if piece.part is Part.RAW_TEXT and piece.name == "style"]
    if not styles:
        return masked.text
    if any(masked.segments[mark].kind is not Kind.EXPRESSION for style in styles for mark in masked.marks(style)):
        raise UnsafeError("a <style> has statements in it")
    try:
        # Selectors may match what a class or an id becomes only when it is filled.
        made = _inliner(keep_all=_has_dynamic_names(masked, before)).inline(_prepared(masked, before))
    except InlineError as error:
        raise UnsafeError(f"the CSS cannot be read: {str(error)[:100]}") from None
    made = _finished(masked, made)
    if _LANGUAGE.search(made):
        raise UnsafeError("an entity would become part of the template language")
    _prove(masked, before, list(pieces(made)))
    return made


def _folded(masked: Masked, piece: Piece) -> Piece:
    """`<td {% if x %}width="5"{% endif %}>`: statements among attributes, with what they
    embrace, become one mark, because the writer orders attributes anew."""
    if piece.part is not Part.OPEN or not masked.mark.search(piece.source):
        return piece
    spans = [(name, span) for name, _, span in spanned_attributes(piece.source)]
    stated = [
        n
        for n, (name, _) in enumerate(spans)
        if any(masked.segments[mark].kind is Kind.STATEMENT for mark in masked.marks(name))
    ]
    if not stated:
        return piece
    inside = {masked.mark.sub("", name) for name, _ in spans[stated[0] : stated[-1] + 1]}
    if inside & {"style", "class", "id"}:
        raise UnsafeError("a class, an id or a style depends on a statement")
    start, end = spans[stated[0]][1][0], spans[stated[-1]][1][1]
    mark = masked.fold(piece.source[start:end])
    return Piece(piece.part, f"{piece.source[:start]}{mark}{piece.source[end:]}", piece.name)


def _inliner(*, keep_all: bool) -> CSSInliner:
    return CSSInliner(
        load_remote_stylesheets=False,
        keep_style_tags=True,
        keep_link_tags=True,
        remove_inlined_selectors=not keep_all,
    )


def _has_dynamic_names(masked: Masked, before: list[Piece]) -> bool:
    tags = (piece.source for piece in before if piece.part is Part.OPEN and masked.mark.search(piece.source))
    return any(masked.mark.search(value) for tag in tags for name, value in attributes(tag) if name in {"class", "id"})


def _prepared(masked: Masked, before: list[Piece]) -> str:
    """Marks between tags become comments, which may stand anywhere, also in a table; a mark
    that is a whole declaration in a `style` attribute becomes one."""
    made: list[str] = []
    for piece in before:
        source = piece.source
        if piece.part is Part.TEXT:
            source = masked.mark.sub(r"<!--\g<0>-->", source)
        elif piece.part is Part.OPEN:
            source = re.sub(
                rf"""(style\s*=\s*["']|;)(\s*)({masked.mark.pattern})(?=\s*[;"'])""",
                lambda found: f"{found[1]}{found[2]}{_DECLARATION.format(found[3])}",
                source,
                flags=re.IGNORECASE,
            )
        made.append(source)
    return "".join(made)


def _finished(masked: Masked, made: str) -> str:
    mark = masked.mark.pattern
    made = re.sub(rf"<!--({mark})-->", r"\1", made)
    made = re.sub(r"<style[^>]*>\s*</style>", "", made)
    made = re.sub(rf"--({mark}):\s*1\b", r"\1", made)
    for name in _IMPLIED:
        # Added by the parser, perhaps between a loop's start and what it repeats.
        if not re.search(rf"<{name}[\s>/]", masked.text, re.IGNORECASE) and not re.search(rf"<{name}\s", made):
            made = re.sub(rf"</?{name}>", "", made)
    # An expression among a tag's attributes was written back as an attribute without a value.
    return re.sub(rf'(\s{mark})=""', r"\1", made)


def _prove(masked: Masked, before: list[Piece], after: list[Piece]) -> None:
    if _skeleton(masked, before) != _skeleton(masked, after):
        raise UnsafeError("the HTML is not well formed enough to be written again")
    was, now = _style_marks(masked, before), _style_marks(masked, after)
    if not was <= now:
        raise UnsafeError("an expression in a style attribute would be lost")


def _skeleton(masked: Masked, parts: list[Piece]) -> list[str | int]:
    """Tags and marks in order, less what a parser may add and what is in styles. An end tag
    that may be left out counts when there are statements: one that is added would stand in
    another branch than its start."""
    found: list[str | int] = []
    stated = any(segment.kind is Kind.STATEMENT for segment in masked.segments)
    optional = VOID if stated else _SELF_ENDING
    for piece in parts:
        if piece.part in {Part.OPEN, Part.CLOSE}:
            if piece.name == "style":
                continue
            implied = piece.name in _IMPLIED
            if piece.part is Part.OPEN:
                if not implied:
                    found.append(f"<{piece.name}")
                bare = "".join(
                    f" {name} {value}" for name, value in attributes(piece.source) if name not in {"style", "xmlns"}
                )
                found += sorted(masked.marks(bare))
            elif not implied and piece.name not in optional:
                found.append(f"/{piece.name}")
        elif not (piece.part is Part.RAW_TEXT and piece.name == "style"):
            found += masked.marks(piece.source)
    return found


def _style_marks(masked: Masked, parts: list[Piece]) -> set[int]:
    return {
        mark
        for piece in parts
        if piece.part is Part.OPEN and masked.mark.search(piece.source)
        for name, value in attributes(piece.source)
        if name == "style"
        for mark in masked.marks(value)
    }
