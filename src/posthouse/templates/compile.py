"""Compiles a version once: checks its sources, inlines CSS, derives a missing text part. Pure."""

from __future__ import annotations

import html as entities
import re
from collections.abc import Sequence

import minijinja

from posthouse.errors import Fault, Invalid
from posthouse.templates import css, language, plain
from posthouse.templates.fill import engine
from posthouse.templates.language import Kind, RefusedError, Segment
from posthouse.templates.markup import Masked, Part, attributes, pieces
from posthouse.templates.model import MAX_PART, MAX_SUBJECT, Compiled

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BREAKS = re.compile(r"[\r\n\x85\u2028\u2029]")
_MAX_LINKS = 500
_FUEL = 100_000
_LOOP_OCTETS = 64 << 20
_LIGHT_SEGMENTS = 64


def compile_version(subject: str, html: str | None, text: str | None) -> Compiled:
    """
    :param subject: at most 1 KB, one line. `html`, `text`: at most 512 KB each, one at least.
    :raises Invalid: with pointers `/subject`, `/html`, `/text`, the line and what is wrong.
    """
    faults = _sizes(subject, html, text)
    parts: dict[str, list[Segment]] = {}
    for part, source in (("subject", subject), ("html", html), ("text", text)):
        if source is not None and not any(fault.pointer == f"/{part}" for fault in faults):
            try:
                parts[part] = _scanned(source)
            except RefusedError as error:
                faults.append(Fault(f"/{part}", f"line {error.line}: {error.message}"))
    if faults:
        raise Invalid("The template does not compile", faults=tuple(faults))
    return _compiled(parts)


def _sizes(subject: str, html: str | None, text: str | None) -> list[Fault]:
    faults: list[Fault] = []
    if html is None and text is None:
        faults.append(Fault("/html", "html or text is needed"))
    for part, source, limit in (("subject", subject, MAX_SUBJECT), ("html", html, MAX_PART), ("text", text, MAX_PART)):
        if source is None:
            continue
        try:
            octets = len(source.encode())
        except UnicodeEncodeError:
            faults.append(Fault(f"/{part}", "has half of a surrogate pair, which is no character"))
            continue
        if octets > limit:
            faults.append(Fault(f"/{part}", f"takes {octets} octets; at most {limit} are possible"))
        elif found := _CONTROLS.search(source):
            line = source.count("\n", 0, found.start()) + 1
            faults.append(Fault(f"/{part}", f"line {line}: the control character U+{ord(found[0]):04X} is not allowed"))
        elif part == "subject" and _BREAKS.search(source):
            faults.append(Fault("/subject", "is one line"))
    return faults


def _scanned(source: str) -> list[Segment]:
    """The engine reads the rewritten source: it works out constants, `"a" * 10 ** 8` too."""
    segments = language.scan(source)
    try:
        engine().add_template("source", written(segments, ticking=False))
    except minijinja.TemplateError as error:
        raise RefusedError(error.line or 1, error.detail or error.message) from None
    language.check(segments)
    return segments


def _compiled(parts: dict[str, list[Segment]]) -> Compiled:
    warnings: list[str] = []
    html: str | None = None
    links: tuple[str, ...] = ()
    derived = "text" not in parts
    metered = any(_needs_meter(segments) for segments in parts.values())
    if "html" in parts:
        masked = Masked(parts["html"])
        links = _links(masked)
        if derived:
            parts["text"] = _derived(masked, warnings)
        html = _inlined(masked, warnings, ticking=metered)
    compiled = Compiled(
        subject=written(parts["subject"], ticking=metered),
        html=html,
        text=written(parts["text"], ticking=metered),
        variables=_variables(parts),
        links=links,
        warnings=tuple(warnings),
        text_derived=derived,
        metered=metered,
        fuel=min(_fuel(segments) for segments in parts.values()),
    )
    for part in ("subject", "html", "text"):
        _parse_again(part, getattr(compiled, part) or "")
    return compiled


def _inlined(masked: Masked, warnings: list[str], *, ticking: bool) -> str:
    try:
        made = _restored(masked, css.inline(masked), ticking=ticking)
        engine().add_template("inlined", made)
    except css.UnsafeError as error:
        warnings.append(f"The CSS stays in <style>: {error}.")
    except minijinja.TemplateError:
        warnings.append("The CSS stays in <style>: the HTML cannot be written again.")
    else:
        return made
    return _restored(masked, masked.text, ticking=ticking)


def _restored(masked: Masked, text: str, *, ticking: bool) -> str:
    return masked.restore(text, lambda segment: _written_segment(segment, ticking=ticking))


def _derived(masked: Masked, warnings: list[str]) -> list[Segment]:
    """The text part's segments; a sentence when it cannot be derived."""
    try:
        segments = _scanned(plain.derive(masked))
    except RefusedError:
        warnings.append("A text part could not be made from the HTML: give one.")
        return language.scan("This message is in HTML.\n")
    if any("|safe" in segment.source.replace(" ", "") for segment in segments if segment.kind is Kind.EXPRESSION):
        warnings.append("The derived text shows values marked `safe` as they are, with their HTML.")
    return segments


def written(segments: Sequence[Segment], *, ticking: bool) -> str:
    """
    :param ticking: put out something empty before each statement, so that the meter gets to
        look at the clock.
    """
    return "".join(_written_segment(segment, ticking=ticking) for segment in segments)


def _written_segment(segment: Segment, *, ticking: bool) -> str:
    source = language.safe_products(segment) if segment.tokens else segment.source
    if not ticking or segment.kind is not Kind.STATEMENT:
        return source
    # The blanks that `{%-` eats are eaten by what now stands before it.
    return ('{{- "" }}' if source.startswith("{%-") else '{{ "" }}') + source


def _parse_again(part: str, source: str) -> None:
    try:
        engine().add_template("compiled", source)
    except minijinja.TemplateError as error:
        message = f"line {error.line or 1}: {error.detail or error.message}"
        raise Invalid("The template does not compile", faults=(Fault(f"/{part}", message),)) from None


def _variables(parts: dict[str, list[Segment]]) -> tuple[str, ...]:
    """Dotted names that the sources refer to and do not set themselves."""
    found: set[str] = set()
    checked = engine()
    for segments in parts.values():
        found |= checked.undeclared_variables_in_str(written(segments, ticking=False), nested=True)
    return tuple(sorted(found - language.FUNCTIONS))


def _links(masked: Masked) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for piece in pieces(masked.text):
        if piece.part is Part.OPEN and piece.name in {"a", "area"}:
            for name, value in attributes(piece.source):
                if name == "href" and value:
                    found[masked.restore(entities.unescape(value).strip())] = None
    return tuple(list(found)[:_MAX_LINKS])


def _needs_meter(segments: Sequence[Segment]) -> bool:
    busy = sum(bool(segment.tokens) for segment in segments)
    return busy > _LIGHT_SEGMENTS or any(
        (segment.kind is Kind.STATEMENT and segment.tokens[0].value in {"for", "set", "with"})
        or not language.filters_of(segment.tokens) <= language.LIGHT_FILTERS
        for segment in segments
        if segment.tokens
    )


def _fuel(segments: Sequence[Segment]) -> int:
    """Fewer steps the longer the text in a loop, which is put out uncounted."""
    depth = 0
    longest = 1
    for segment in segments:
        if segment.kind is Kind.STATEMENT:
            depth += {"for": 1, "endfor": -1}.get(segment.tokens[0].value, 0)
        elif depth and segment.kind in {Kind.TEXT, Kind.RAW}:
            longest = max(longest, len(segment.source))
    return min(_FUEL, max(1_000, _LOOP_OCTETS // longest))
