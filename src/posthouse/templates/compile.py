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
_LIGHT_EMISSIONS = 64


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
    _parse(source)
    segments = language.scan(source)
    language.check(segments)
    return segments


def _parse(source: str) -> None:
    """By the engine itself. The depth is bounded there, the length of an expression before."""
    try:
        language.scan(source)
    except RefusedError as error:
        if "parts" in error.message:
            raise
    try:
        engine().add_template("source", source)
    except minijinja.TemplateError as error:
        raise RefusedError(error.line or 1, error.detail or error.message) from None


def _compiled(parts: dict[str, list[Segment]]) -> Compiled:
    warnings: list[str] = []
    html: str | None = None
    links: tuple[str, ...] = ()
    derived = False
    if "html" in parts:
        masked = Masked(parts["html"])
        links = _links(masked)
        html = _inlined(masked, warnings)
        if "text" not in parts:
            parts["text"], derived = _derived(masked, warnings)
    text = _written(parts["text"]) if "text" in parts else None
    compiled = Compiled(
        subject=_written(parts["subject"]),
        html=html,
        text=text,
        variables=_variables(parts),
        links=links,
        warnings=tuple(warnings),
        text_derived=derived,
        metered=any(_needs_meter(segments) for segments in parts.values()),
        fuel=min(_fuel(segments) for segments in parts.values()),
    )
    for source in (compiled.subject, compiled.html, compiled.text):
        if source is not None:
            _parse_again(source)
    return compiled


def _inlined(masked: Masked, warnings: list[str]) -> str:
    text = masked.text
    try:
        text = css.inline(masked)
        masked.restore(text)
        engine().add_template("inlined", masked.restore(text))
    except css.UnsafeError as error:
        warnings.append(f"The CSS stays in <style>: {error}.")
        text = masked.text
    except minijinja.TemplateError:
        warnings.append("The CSS stays in <style>: the HTML cannot be written again.")
        text = masked.text
    return masked.restore(text, language.safe_products)


def _derived(masked: Masked, warnings: list[str]) -> tuple[list[Segment], bool]:
    """The text part's segments; none that mean anything when it cannot be derived."""
    try:
        segments = _scanned(plain.derive(masked))
    except RefusedError:
        warnings.append("A text part could not be made from the HTML: give one.")
        return language.scan("This message is in HTML.\n"), True
    if any("|safe" in segment.source.replace(" ", "") for segment in segments if segment.kind is Kind.EXPRESSION):
        warnings.append("The derived text shows values marked `safe` as they are, with their HTML.")
    return segments, True


def _written(segments: Sequence[Segment]) -> str:
    return "".join(language.safe_products(segment) if segment.tokens else segment.source for segment in segments)


def _parse_again(source: str) -> None:
    try:
        engine().add_template("compiled", source)
    except minijinja.TemplateError as error:
        raise Invalid(
            "The template does not compile", faults=(Fault("/html", error.detail or error.message),)
        ) from None


def _variables(parts: dict[str, list[Segment]]) -> tuple[str, ...]:
    """Dotted names that the sources refer to and do not set themselves."""
    found: set[str] = set()
    checked = engine()
    for segments in parts.values():
        source = "".join(segment.source for segment in segments)
        found |= checked.undeclared_variables_in_str(source, nested=True)
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
    emissions = sum(segment.kind is Kind.EXPRESSION for segment in segments)
    carries = any(
        segment.kind is Kind.STATEMENT and segment.tokens[0].value in {"for", "set", "with"} for segment in segments
    )
    return carries or emissions > _LIGHT_EMISSIONS


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
